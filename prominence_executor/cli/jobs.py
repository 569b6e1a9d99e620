"""The commands about jobs, whoever has made them, and about what executors have stored: list, describe, delete, purge.

It may not hold logic that a program would miss.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from ..shown import harmless
from .account import connected
from .terminal import Columns, counted, duration, for_scripts, moment, numbers, print_json, print_table

if TYPE_CHECKING:
    from . import AddParser

_JOBS = Columns(
    ("job", "name", "function", "status", "created", "time", "image"), ("job", "status"), ("image", "created")
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    command = add("list", _list, "list jobs: the active ones, or all", "list --function simulate")
    command.add_argument("--all", action="store_true", help="also those that have ended; slow at a long history")
    command.add_argument("--run", metavar="RUN", help="only those of this run")
    command.add_argument("--function", metavar="NAME", help="only those that call this function, as the list shows it")
    command.add_argument("--label", type=_label, metavar="NAME=VALUE", help="only those with this label")
    for_scripts(command)
    command = add("describe", _describe, "what the service knows of a job, without secrets", "describe 1234")
    command.add_argument("job", type=_number, metavar="JOB", help="the service's number")
    for_scripts(command)
    command = add("delete", _delete, "delete jobs", "delete 1234 1235")
    command.add_argument("job", nargs="+", type=_number, metavar="JOB", help="the service's numbers")
    command = add(
        "purge", _purge, "delete what executors have stored and no run needs any more", "purge --older-than 30d"
    )
    command.add_argument(
        "--older-than", required=True, type=_age, metavar="AGE", help="for example 30d, 12h; 0s for all"
    )
    command.add_argument("--images", action="store_true", help="container images, too")


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a job's number")
    return int(text)


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _age(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number with s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


def _list(arguments: argparse.Namespace) -> int:
    from ..runs import list_jobs

    with connected(arguments) as client:
        jobs = list_jobs(
            client, all=arguments.all, run_id=arguments.run, function=arguments.function, label=arguments.label
        )
    if arguments.json:
        print_json(jobs)
    elif jobs:
        print_table(
            _JOBS,
            [
                (
                    str(job.id),
                    job.name,
                    job.function,
                    job.status,
                    moment(job.created),
                    duration(job.seconds()),
                    job.image,
                )
                for job in jobs
            ],
        )
    else:
        print("there are no such jobs" if arguments.all else "no such job is active; --all lists all", file=sys.stderr)
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from ..runs import described

    with connected(arguments) as client:
        facts = described(client.describe_job(arguments.job))
    if arguments.json:
        print_json(facts)
    else:
        for name, value in facts.items():
            for line in _lines(name, value):
                print(harmless(line))
    return 0


def _lines(name: str, value: Any) -> list[str]:
    name = name.replace("_", " ")
    if isinstance(value, dict):
        value = [f"{key}: {part}" for key, part in value.items()]
    if isinstance(value, list):
        return [f"{name}:", *(f"    {_fact(part)}" for part in value)] if value else []
    if isinstance(value, range):
        value = numbers(value)
    if name in ("created", "started", "ended"):
        value = moment(value)
    return [f"{name}: {value}"] if value not in (None, "") else []


def _fact(part: Any) -> str:
    if isinstance(part, dict):
        return ", ".join(f"{key} {_fact(value)}" for key, value in part.items())
    return f"{part:.3g}" if isinstance(part, float) else str(part)


def _delete(arguments: argparse.Namespace) -> int:
    from ..runs import delete_jobs

    with connected(arguments) as client:
        left = delete_jobs(client, arguments.job)
    for number, why in left.items():
        print(f"job {number}: {harmless(why)}", file=sys.stderr)
    print(f"{counted(len(set(arguments.job)) - len(left), 'job')} deleted")
    return 1 if left else 0


def _purge(arguments: argparse.Namespace) -> int:
    from ..runs import purge_stored

    with connected(arguments) as client:
        names = purge_stored(client, arguments.older_than, images=arguments.images)
    for name in names:
        print(harmless(name))
    print(f"{len(names)} deleted", file=sys.stderr)
    return 0
