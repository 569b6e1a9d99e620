"""What a batch system is to the service: an interface of a few verbs, and what is said through it. Decides nothing.

`BatchEngine` puts tickets, claims and outcomes around it; an adapter knows the system's commands and words alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .base import Limits, Room


class SystemAway(Exception):
    """The batch system gave no answer, or is busy: what was asked may have happened, and is worth another try."""


class SystemFull(Exception):
    """The batch system has surely not taken a batch, but would take a smaller one, or this one later."""


class SystemRefuses(Exception):
    """The batch system will never do that; the text says why."""


@dataclass(frozen=True)
class Shape:
    """What each job of one batch asks for."""

    cpus: int
    """Of each node."""
    memory: int
    """GB of each node."""
    nodes: int
    disk: int
    """GB of each node."""
    seconds: float
    """Of walltime."""
    priority: int
    options: tuple[tuple[str, str], ...] = ()
    """What the user says to the batch system, as names and values."""


@dataclass(frozen=True)
class Batch:
    """Jobs of one shape that are submitted together: the script is told which of them it is."""

    name: str
    shape: Shape
    size: int
    command: tuple[str, ...]
    """What runs one job; its number, from 0, is added."""
    needs: tuple[Path, Path, Path]
    """What a node must see for that: a folder of the service's directory, Python, and the program."""


@dataclass(frozen=True)
class Waiting:
    """Not begun; the reason is the batch system's own word. `in_vain`: it will not begin by itself."""

    reason: str = ""
    in_vain: bool = False


@dataclass(frozen=True)
class Running:
    """Begun on a node."""

    node: str = ""


@dataclass(frozen=True)
class Gone:
    """Ended. The cause is "" when nobody knows it, else one of `ends.CAUSES`."""

    cause: str = ""
    detail: str = ""


State = Waiting | Running | Gone
Place = tuple[str, int]  # the name of a batch, and the number of a job in it


class BatchSystem(Protocol):
    """Every method may be called from any thread, blocks for some seconds at most, and may raise SystemAway."""

    id_variable: str
    """In which a job is told its number."""
    batch_variable: str
    """In which one of a batch of several is told the number of its batch."""
    passed: tuple[str, ...]
    """Beginnings of variables that a job's tasks need when it has several nodes."""
    on_node: tuple[str, ...]
    """Words that run others on one node of the job that they are in: {node} is its number, {cpus} what it has there."""

    def limits(self) -> Limits:
        """Return what it has. Raises RuntimeError when it cannot be used as it was asked to."""

    def room(self) -> Room:
        """Return how much there is, and how much of it is free."""

    def check(self, shape: Shape) -> None:
        """Raise SystemRefuses for what can be seen never to run. For the engine's thread."""

    def submit(self, batch: Batch) -> str:
        """Submit a batch; return its number. Raises SystemRefuses and SystemFull."""

    def poll(self, prefix: str) -> Mapping[Place, State]:
        """Return the states of all jobs of batches whose names begin so, those that ended lately included."""

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs that are there."""

    def find_by_name(self, names: Iterable[str]) -> dict[str, str]:
        """Return the numbers of the batches of these names that are there."""

    def why_gone(self, job_id: str) -> str:
        """Return why a job is gone, as one of `ends.CAUSES`, or "" when that is not known any more."""

    def numbers(self, place: Place, batch_id: str, size: int) -> str:
        """Return what `cancel` and `why_gone` call one job of a batch of so many."""

    def environment(self) -> dict[str, str]:
        """Return what its commands see: nothing of the job in which the service itself may run."""

    def exec_command(self, job_id: str, argv: Sequence[str]) -> list[str] | None:
        """Return what runs words on the first node of a running job, or None where that cannot be."""
