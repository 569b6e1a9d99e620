"""What the benchmarks share: a clock, tables, the line about the machine, and the loop over the upstream client.

It lies in a folder of its own since beside it a script is named as a library, `requests`. As a module beside any user's
script it travels with the calls: so it is short, and imports nothing that would travel, too.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

CORES = os.cpu_count() or 1


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """For a script's options; of its description the first line, which is its question."""
    return argparse.ArgumentParser(description=(description or "").partition("\n")[0])


def machine() -> str:
    return f"Python {sys.version.split()[0]}, {CORES} cores"


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def check(results: Iterable[object], expected: Iterable[object]) -> None:
    """End the script unless all results are right and in order."""
    if list(results) != list(expected):
        raise SystemExit("wrong results")


class Table:
    """Prints its head, and then each cell as soon as there is one.

    Args:
        columns: the name of each and its format, as ">9.2f". A text may stand in the place of a number.
    """

    def __init__(self, *columns: tuple[str, str]) -> None:
        self._formats = [form for _, form in columns]
        self.row(*(name for name, _ in columns))

    def part(self, *cells: object, first: int = 0) -> None:
        """Print some cells of a row, from that column on."""
        for cell, form in zip(cells, self._formats[first:], strict=False):
            print(format(cell, _width(form) if isinstance(cell, str) else form), end="", flush=True)

    def end(self) -> None:
        print(flush=True)

    def row(self, *cells: object) -> None:
        """Print a whole row; cells may be missing at its end."""
        self.part(*cells)
        self.end()


def _width(form: str) -> str:
    """A format without what only numbers have."""
    found = re.match(r"[<>]\d+", form)
    assert found, form
    return found[0]


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the requests of this process where they leave, whatever client makes them."""
    import requests

    counts: Counter[str] = Counter()
    send = requests.Session.send

    def counted(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        counts[f"{request.method} {'/jobs' if '/v1/' in (request.url or '') else 'output'}"] += 1
        return send(self, request, **options)

    requests.Session.send = counted  # type: ignore[method-assign]  # to count, not to change
    try:
        yield counts
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def upstream_loop(calls: int, command: Callable[[int], str], *, interval: float, **described: Any) -> list[int]:
    """Create one `prominence.Job` for each call, then wait for one after the other: as its users would write it.

    Args:
        command: of a call's number; it writes its result, a number, to the file `out`.
        interval: seconds between two looks at a job.
        described: further attributes of each job.
    """
    import prominence

    jobs = []
    for number in range(calls):
        task = prominence.Task()
        task.image, task.runtime, task.command = "python", "singularity", command(number)
        job = prominence.Job()
        job.name, job.tasks, job.output_files = f"call-{number}", [task], ["out"]
        job.resources.walltime = 10
        for name, value in described.items():
            setattr(job, name, value)
        job.create()
        jobs.append(job)
    results = []
    for job in jobs:
        while job.status not in ("completed", "failed", "deleted", "killed"):
            time.sleep(interval)
        results.append(int(job.get_output_file("out")))
    return results
