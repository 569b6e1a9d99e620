"""Slurm's words and what they mean: states, refusals, tables. Pure: text is given, values are returned."""

from __future__ import annotations

import re

from ..base import Limits
from ..ends import CANCELLED, MEMORY, NO_DIRECTORY, NO_PROGRAM, NODE, PREEMPTED, WALLTIME
from ..system import Gone, Place, Running, State, Waiting

LINE = "%j|%K|%T|%r|%N|%F"  # of squeue: name, number in the array, state, reason, nodes, number
EXITS = {77: NO_DIRECTORY, 78: NO_PROGRAM}  # of the script, before it starts the program

_CAUSES = {
    "TIMEOUT": WALLTIME, "DEADLINE": WALLTIME, "OUT_OF_MEMORY": MEMORY, "CANCELLED": CANCELLED, "NODE_FAIL": NODE,
    "BOOT_FAIL": NODE, "PREEMPTED": PREEMPTED, "COMPLETED": "", "FAILED": "", "REVOKED": CANCELLED,
}  # fmt: skip
_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
# What sbatch says when it is worth another try. All else that it says is for ever.
_FOR_NOW = re.compile(
    r"unable to contact|socket timed out|timed out|temporarily|connection refused|connect failure|zero bytes|"
    r"transient|resource temporarily|maxsubmit|max.*limit|submit limit|too many|slurmctld|munge|authentication|"
    r"try again|no such host|communication",
    re.IGNORECASE,
)


def states(text: str, prefix: str) -> dict[Place, State]:
    """Read squeue's lines. Of two jobs with one place the one that is still there counts."""
    found: dict[Place, State] = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != 6 or not parts[0].startswith(prefix):
            continue
        name, number, word, reason, nodes, _ = parts
        state = state_of(word, reason, nodes)
        place = name, int(number) if number.isdigit() else 0
        if place not in found or isinstance(found[place], Gone):
            found[place] = state
    return found


def state_of(word: str, reason: str, nodes: str) -> State:
    """Return what one of Slurm's states means."""
    if word in _CAUSES:
        return Gone(_CAUSES[word], nodes)
    return Waiting(reason) if word in _WAITS else Running(nodes)


def numbers(text: str, names: set[str]) -> dict[str, str]:
    """Read the numbers of batches from squeue's lines."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 6 and parts[0] in names:
            found[parts[0]] = parts[5]
    return found


def refusal(said: str) -> str | None:
    """Return why sbatch will never accept a job, in its own words; None when it is worth another try."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines() if line.strip()]
    sentence = " ".join(lines).strip()
    return None if not sentence or _FOR_NOW.search(sentence) else sentence


def exit_cause(text: str) -> str:
    """Read why a job without an outcome ended, from what ``scontrol show job`` says."""
    state = re.search(r"JobState=(\w+)", text)
    code = re.search(r"ExitCode=(\d+):(\d+)", text)
    if code and int(code[1]) in EXITS:
        return EXITS[int(code[1])]
    return _CAUSES.get(state[1], "") if state else ""


def limits(table: str, partition: str | None, array: int) -> Limits:
    """Read what a partition has from lines ``name*|cpus|MB|time`` of sinfo.

    Raises:
        RuntimeError: there is no such partition.
    """
    rows = [line.split("|") for line in table.splitlines() if line.count("|") == 3]
    names = tuple(dict.fromkeys(row[0].rstrip("*") for row in rows))
    chosen = partition.split(",") if partition else [row[0].rstrip("*") for row in rows if row[0].endswith("*")]
    for name in chosen:
        if name not in names:
            raise RuntimeError(f"Slurm has no partition {name!r}; there are {', '.join(names) or 'none'}")
    own = [row for row in rows if row[0].rstrip("*") in chosen] or rows
    if not own:
        raise RuntimeError("Slurm has no partition with nodes")
    times = [minutes(row[3]) for row in own]
    return Limits(
        max(_number(row[1]) for row in own),
        max(1, max(_number(row[2]) for row in own) // 1024),
        None if None in times else max(time for time in times if time is not None),
        array,
        names,
    )


def minutes(text: str) -> float | None:
    """Read a time limit: ``infinite``, or days-hours:minutes:seconds; None for no limit."""
    if not re.fullmatch(r"[\d:-]+", text):
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:  # days-hours[:minutes[:seconds]]
        parts = (parts + [0, 0])[:3]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1] + parts[2] / 60


def _number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
