"""The names of jobs and workflows, which say which calls they run: enough to find them again from any machine.

    RUN/7  RUN/7-11  RUN/7-11.2             a job of its own: one call, five calls, their second attempt
    RUN.0-99.10.1                           an array: a workflow of the calls 0 to 99, ten to a job, first attempt
    RUN.w3                                  a warm worker, the third one of the run
    RUN.w0                                  a courier, which leaves places for large messages of warm workers
    RUN.0-99.10.1/pxcall/3                  the job at its position 3, with the calls 30 to 39

Pure functions; each form has the function that reads it beside the one that makes it. How functions are called in
labels and commands stands here, too: what a list of jobs shows of them.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

MOST_CALLS = 10_000_000
"""Of a run, as far as another program believes the names of its jobs: more futures than that no program could hold."""
COURIER = 0
"""What a courier's job has in place of a worker's number."""
_NUMBER = "[0-9]{1,12}"
_LONGEST_WORD = 100  # characters of a function's name
MEMBER = "pxcall"  # an array's job; the service mangles outputs of names that occur in "scratch/<uuid>"


class CallRange(NamedTuple):
    """Calls that travel as one job."""

    first: int  # the number in the run of the first one
    size: int
    attempt: int

    def numbers(self) -> range:
        """Return the numbers of its calls in the run."""
        return range(self.first, self.first + self.size)


class ArrayRange(NamedTuple):
    """Calls that travel as one array."""

    first: int
    last: int
    size: int  # calls in one job; the last job may have fewer
    attempt: int

    def at(self, position: int) -> CallRange:
        """Return the calls of one of its jobs."""
        first = self.first + position * self.size
        return CallRange(first, min(self.size, self.last - first + 1), self.attempt)

    @property
    def members(self) -> int:
        """How many jobs it has."""
        return (self.last - self.first) // self.size + 1

    def jobs(self) -> list[CallRange]:
        """List all of them, in the order of their positions."""
        return [self.at(position) for position in range(self.members)]


def new_run_id(name: str | None) -> str:
    """Make a run's name that no other run has: readable, sortable, fit for a label, a job's name and a file name."""
    return f"{name or 'px'}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def job_name(run_id: str, calls: CallRange) -> str:
    """Return the name of a job of its own."""
    first, size, attempt = calls
    numbers = f"{first}-{first + size - 1}" if size > 1 else f"{first}"
    return f"{run_id}/{numbers}" + (f".{attempt}" if attempt > 1 else "")


def array_name(run_id: str, span: ArrayRange) -> str:
    """Return the name of an array's workflow."""
    return f"{run_id}.{span.first}-{span.last}.{span.size}.{span.attempt}"


def worker_name(run_id: str, number: int) -> str:
    """Return the name of a warm worker's job."""
    return f"{run_id}.w{number}"


def parse_worker_name(run_id: str, name: str) -> int | None:
    """Return the number of a warm worker of the run; None when the name is not one of its workers'."""
    match = re.fullmatch(rf"\.w({_NUMBER})", name[len(run_id) :]) if name.startswith(run_id) else None
    return int(match[1]) if match else None


def parse_job_name(run_id: str, name: str) -> CallRange | None:
    """Return the calls of a job of the run, in an array or by itself; None when the name is not one of its jobs'."""
    if not name.startswith(run_id):
        return None
    match = re.fullmatch(rf"/({_NUMBER})(?:-({_NUMBER}))?(?:\.({_NUMBER}))?", name[len(run_id) :])
    if match:
        first, last, attempt = match.groups()
        calls = CallRange(int(first), int(last or first) - int(first) + 1, int(attempt or 1))
        return calls if job_name(run_id, calls) == name else None
    span = parse_array_name(run_id, workflow_of(name))
    position = name.rpartition("/")[2]
    if span is None or not re.fullmatch(_NUMBER, position) or int(position) >= span.members:
        return None
    return span.at(int(position))


def parse_array_name(run_id: str, name: str) -> ArrayRange | None:
    """Return what an array of the run consists of; None when the name is not one of its arrays'."""
    numbers = rf"\.({_NUMBER})-({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    match = re.fullmatch(numbers, name[len(run_id) :]) if name.startswith(run_id) else None
    if not match:
        return None
    span = ArrayRange(*map(int, match.groups()))
    return span if span.size and span.last >= span.first else None


def workflow_of(name: str) -> str:
    """Return the name of the workflow that a job is one of; "" for a job of its own."""
    return name.rpartition(f"/{MEMBER}/")[0]


def run_of(name: str) -> str | None:
    """Return the id of the run whose job, or array, has this name; None when it has none of the forms."""
    whole = workflow_of(name) or name
    match = re.fullmatch(
        rf"(.+)(?:/{_NUMBER}(?:-{_NUMBER})?(?:\.{_NUMBER})?|\.w{_NUMBER}|(?:\.{_NUMBER}-{_NUMBER}(?:\.{_NUMBER}){{2}}))",
        whole,
    )
    return match[1] if match else None


def function_word(names: Iterable[str]) -> str:
    """Return what a label's value and a command's word may hold of functions' names; "" where none is known.

    ``__main__.fit.<locals>.<lambda>`` becomes ``fit.lambda``; of several, the first stands for the others.
    """
    words = list(dict.fromkeys(filter(None, map(_word, names))))
    if len(words) > 1:
        others = "1-other" if len(words) == 2 else f"{len(words) - 1}-others"
        return f"{words[0][: _LONGEST_WORD - 20]}-and-{others}"
    return words[0] if words else ""


def function_in(command: str) -> str:
    """Return the word behind a job's command, as `function_word` has made it; "" where there is none.

    Before it may stand the position in an array.
    """
    words = command.split()
    word = words[-1] if len(words) > 2 else ""
    return "" if word.startswith("${") or word.isdigit() else word


def _word(name: str) -> str:
    for left_out in ("__main__.", "builtins."):
        name = name.removeprefix(left_out)
    plain = unicodedata.normalize("NFKD", name.replace("<locals>.", "").replace("<lambda>", "lambda"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    word = re.sub(r"[^A-Za-z0-9_.]+", "_", plain).strip(".")
    # From the end: the function's own name says more than its module's.
    return word[-_LONGEST_WORD:].lstrip(".")
