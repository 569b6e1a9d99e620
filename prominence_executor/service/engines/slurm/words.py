"""Slurm's words and what they mean: states, refusals, tables. Pure: text is given, values are returned."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..base import Limits, Room
from ..ends import CANCELLED, MEMORY, NO_DIRECTORY, NO_PROGRAM, NO_PYTHON, NODE, PREEMPTED, WALLTIME
from ..system import Gone, Place, Running, State, SystemAway, SystemFull, SystemRefuses, Waiting

LINE = "%j|%K|%T|%r|%N|%F"  # of squeue: name, number in the array, state, reason, nodes, number
EXITS = {77: NO_DIRECTORY, 78: NO_PYTHON, 79: NO_PROGRAM}  # of the script, before it starts the program

_CAUSES = {
    "TIMEOUT": WALLTIME, "DEADLINE": WALLTIME, "OUT_OF_MEMORY": MEMORY, "CANCELLED": CANCELLED, "NODE_FAIL": NODE,
    "BOOT_FAIL": NODE, "PREEMPTED": PREEMPTED, "COMPLETED": "", "FAILED": "",
}  # fmt: skip
_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
SLEEPS = "Slurm temporarily unable to accept job"  # what sbatch says before it sleeps and tries again, for minutes
# Reasons for which a job waits that stay until somebody changes the job, or Slurm; so do limits of one job.
_IN_VAIN = ("BadConstraints", "PartitionTimeLimit", "PartitionNodeLimit", "InvalidAccount", "InvalidQOS")
# What commands say when Slurm gave no answer. All else that they say was said by Slurm.
_AWAY = re.compile(
    r"unable to contact|timed out|connection refused|connect failure|zero bytes|transient|"
    r"slurmctld|munge|authentication|try again|no such host|communication|configuration source|"
    r"standby|I/O error|Unexpected message",
    re.IGNORECASE,
)
# The name of a limit stands in a line of its own. Only those of the number of submitted jobs leave room later: what
# else is refused already when it is submitted is too much for one job.
_LIMIT = re.compile(r"\b(?:QOS|Assoc)\w*(?:Limit|PerAccount)\b")
_POLICY = "Job violates accounting/QOS policy"  # any of them, where the name is not said
_FULL = re.compile(
    rf"{SLEEPS}|Resource temporarily unavailable|Invalid job array specification|"
    r"not available \(inactive or drain\)|not available now",
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
        for member in members(number):
            place = name, member
            if place not in found or isinstance(found[place], Gone):
                found[place] = state
    return found


def members(text: str) -> list[int]:
    """Read which jobs of an array a line is about: ``3``, several that wait as ``0-3,8%2``, or none: it is no array."""
    text = text.strip("[]").partition("%")[0]
    if not re.fullmatch(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*", text):
        return [0]
    found: list[int] = []
    for part in text.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        found.extend(range(int(first), int(last or first) + 1, int(step or 1) or 1))
    return found


def submitted_as(printed: str) -> str | None:
    """Read the number of a batch from what ``sbatch --parsable`` has printed, around which sites put words."""
    found = re.findall(r"^\s*(\d+)(?:;\S*)?\s*$", printed, re.MULTILINE)
    return found[-1] if found else None


def state_of(word: str, reason: str, nodes: str) -> State:
    """Return what one of Slurm's states means. REVOKED: it runs on another cluster of a federation."""
    if word in _CAUSES:
        return Gone(_CAUSES[word], nodes)
    if word not in _WAITS:
        return Running(nodes)
    return Waiting(reason, reason.endswith("PerJobLimit") or reason in _IN_VAIN)


def together(ids: Iterable[str]) -> list[str]:
    """Return jobs as scancel takes them, those of one array in one word: ``7_[0-3,8]``."""
    arrays: dict[str, list[int]] = {}
    for name in dict.fromkeys(ids):
        batch, _, number = name.partition("_")
        arrays.setdefault(batch, []).extend([int(number)] if number else [])
    return [
        f"{batch}_[{','.join(part)}]" if found else batch
        for batch, found in arrays.items()
        for part in _pieces(_ranges(sorted(found)))
    ]


def _ranges(numbers: list[int]) -> list[str]:
    """Return ascending numbers as ``0-3`` and ``8``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [f"{first}-{last}" if last > first else f"{first}" for first, last in found]


def _pieces(ranges: list[str]) -> list[list[str]]:
    """Return ranges in pieces that are not too long for one word; one piece, when there are none."""
    return [ranges[start : start + 100] for start in range(0, len(ranges), 100)] or [[]]


def numbers(text: str, names: set[str]) -> dict[str, str]:
    """Read the numbers of batches from squeue's lines."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 6 and parts[0] in names:
            found[parts[0]] = parts[5]
    return found


def why_not(said: str, size: int, others: bool) -> SystemAway | SystemFull | SystemRefuses:
    """Return what it means that sbatch has failed, in its own words.

    size: of the batch. others: whether jobs of this user are there, which may be what leaves no room.
    """
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines() if line.strip()]
    sentence = " ".join(lines).strip()
    limit = _LIMIT.search(sentence)
    if limit:
        return SystemFull(sentence) if "Submit" in limit[0] else SystemRefuses(sentence)
    if _POLICY in sentence:
        return SystemFull(sentence) if others or size > 1 else SystemRefuses(sentence)
    if _FULL.search(sentence):
        return SystemRefuses(sentence) if "array" in sentence and size == 1 else SystemFull(sentence)
    return SystemAway(sentence) if not sentence or is_away(sentence) else SystemRefuses(sentence)


def is_away(said: str) -> bool:
    """Return whether a command that has failed says that Slurm gave no answer."""
    return _AWAY.search(said) is not None


def exit_cause(text: str) -> str:
    """Read why a job without an outcome ended, from what ``scontrol show job`` says."""
    state = re.search(r"JobState=(\w+)", text)
    code = re.search(r"ExitCode=(\d+):(\d+)", text)
    return _cause(state[1] if state else "", int(code[1]) if code else 0)


def accounted_cause(text: str) -> str:
    """Read why a job without an outcome ended from lines ``state|code:signal`` of sacct, as ``CANCELLED by 7|0:15``."""
    for line in text.splitlines():
        state, _, code = line.partition("|")
        number = code.partition(":")[0]
        return _cause(state.partition(" ")[0], int(number) if number.isdigit() else 0)
    return ""


def _cause(state: str, code: int) -> str:
    return EXITS.get(code) or _CAUSES.get(state, "")


def largest_array(config: str) -> int:
    """Read from ``scontrol show config`` how many jobs may be submitted together."""
    found = [int(number) for number in re.findall(r"(?:MaxArraySize\s*=\s*|max_array_tasks=)(\d+)", config)]
    return max(1, min(found, default=1))


def cluster(config: str) -> str:
    """Read from ``scontrol show config`` what the cluster is called."""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)
    return found[1] if found else "slurm"


def limits(table: str, partition: str | None, array: int, site: str = "slurm") -> Limits:
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
        site,
    )


def room(table: str) -> Room:
    """Read what nodes have from lines ``name|allocated/idle/other/all|MB|MB allocated|`` of sinfo, one a partition."""
    cpus = free = memory = allocated = 0
    for line in set(table.splitlines()):
        if not re.fullmatch(r"[^|]+\|\d+/\d+/\d+/\d+\|\d+\|\d+\|", line):
            continue  # of several clusters each has a heading
        _, state, megabytes, used, _ = line.split("|")
        _, idle, _, whole = map(int, state.split("/"))
        cpus, free = cpus + whole, free + idle
        memory, allocated = memory + int(megabytes), allocated + int(used)
    return Room(cpus, memory // 1024, free, max(0, memory - allocated) // 1024)


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
