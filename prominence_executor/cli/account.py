"""Who asks, and whom: the client that other commands use, and the commands config, check, version and completion.

It may not hold logic that a program would miss.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..shown import harmless
from .terminal import Columns, for_scripts, print_json, print_table

if TYPE_CHECKING:
    from ..client.client import ProminenceClient
    from . import AddParser

_PATIENCE = 5.0  # seconds for which a service that does not answer is asked again
_SHELLS = ("bash", "zsh", "tcsh")


def connected(arguments: argparse.Namespace, *, start: bool = False) -> ProminenceClient:
    """Return a client for the service that the command line, the environment or a profile names.

    Args:
        start: also start the one of Slurm, where it does not run; who only looks has no need of it.

    Raises:
        AuthenticationError, InvalidRequestError: something is not set.
        ServiceUnavailableError: the service of Slurm does not run.
    """
    from ..client.profiles import service_url
    from ..errors import InvalidRequestError
    from ..executor.settings import find_service

    if service_url(arguments.profile) == "local":
        raise InvalidRequestError(
            "the URL is 'local': that service ends with the program that has started it, and its runs with it; "
            "'prominence-executor serve' is one that stays"
        )
    return find_service(None, None, _PATIENCE, profile=arguments.profile, start=start).connect()


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    command = add(
        "config",
        _config,
        "show or change a profile: url, token_file, image, resources",
        "config set url=https://host/prominence/v1 cpus=2 --profile big",
    )
    command.add_argument("action", choices=("show", "set", "unset", "path"), nargs="?", default="show",
                         help="default: show, which lists all profiles")  # fmt: skip
    command.add_argument("change", nargs="*", metavar="NAME[=VALUE]",
                         help="url, token_file, image, runtime, cpus, memory, disk, nodes, walltime; also token, "
                         "whose value is read from the standard input when none is given")  # fmt: skip
    command.set_defaults(more=("change", str))
    for_scripts(command)
    command = add(
        "check", _check, "service, token, clock, versions: what a mail for help would say", "check --profile big"
    )
    for_scripts(command)
    command = add("version", _version, "versions of this program, of Python and of what it uses", "version --json")
    for_scripts(command)
    command = add(
        "completion",
        _completion,
        "print a script with which a shell completes commands and options (needs shtab)",
        "completion bash > ~/.local/share/bash-completion/completions/prominence-executor",
    )
    command.add_argument("shell", choices=_SHELLS)


def _config(arguments: argparse.Namespace) -> int:
    from ..client import profiles

    if arguments.action == "path":
        print(harmless(str(profiles.profiles_file())))
        return 0
    if arguments.action == "show":
        if arguments.change:
            arguments.parser.error("config show takes no names")
        return _show_profiles(arguments)
    if not arguments.change:
        arguments.parser.error(
            f"config {arguments.action} needs one NAME{'=VALUE' * (arguments.action == 'set')} or more"
        )
    name = arguments.profile or os.environ.get("PROMINENCE_PROFILE") or profiles.DEFAULT
    changes = {}
    for change in arguments.change:
        field, equals, value = change.partition("=")
        if arguments.action == "set":
            if not equals and field == profiles.SECRET:
                value = _asked_for_token()
            elif not equals:
                arguments.parser.error(f"config set needs NAME=VALUE, not {change!r}")
            changes[field] = value
        else:
            changes[field] = None
    profiles.change_profile(name, changes)
    print(f"profile {name} in {harmless(str(profiles.profiles_file()))}", file=sys.stderr)
    return 0


def _asked_for_token() -> str:
    """Read a token where neither the screen nor the list of processes shows it."""
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass("token: ")
        except EOFError:
            raise ValueError("no token was given") from None
    return sys.stdin.readline().strip()


def _show_profiles(arguments: argparse.Namespace) -> int:
    from ..client import profiles

    known = profiles.profiles()
    wanted = {arguments.profile: profiles.find_profile(arguments.profile)} if arguments.profile else known
    shown = {
        name: {field: _shown(field, text) for field, text in profile.values.items()} for name, profile in wanted.items()
    }
    if arguments.json:
        print_json(shown)
    elif shown:
        rows = [(name, field, text) for name, fields in shown.items() for field, text in fields.items()]
        print_table(Columns(("profile", "field", "value"), ("profile", "field", "value")), rows)
    else:
        print(f"there are no profiles in {harmless(str(profiles.profiles_file()))}", file=sys.stderr)
    return 0


def _shown(field: str, text: str) -> str:
    from ..client import profiles

    if field == profiles.SECRET:
        return "(hidden)"
    return profiles.shown_url(text) if field == "url" else text


def _check(arguments: argparse.Namespace) -> int:
    from ..client.checkup import check_up
    from . import status_of

    rows: list[Sequence[str]] = []
    facts = []
    status = 0
    for fact in check_up(arguments.profile):
        word = "problem" if fact.error is not None else "look" if fact.doubtful else "ok"
        rows.append((word, fact.name, fact.value))
        facts.append({"name": fact.name, "value": fact.value, "verdict": word})
        if fact.error is not None:
            status = status or status_of(fact.error)
    if arguments.json:
        print_json(facts)
    else:
        for word, name, value in rows:  # no table: a value that is cut helps nobody
            print(f"{word:8}{name:20}{harmless(value)}")
    return status


def _version(arguments: argparse.Namespace) -> int:
    from ..client.checkup import versions

    found = versions()
    if arguments.json:
        print_json(found)
    else:
        for name, text in found.items():
            print(f"{name} {text or 'not installed'}")
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise ImportError("completion needs shtab: pip install 'prominence-executor[cli]'") from None
    from . import parser

    print(shtab.complete(parser(), shell=arguments.shell))
    return 0
