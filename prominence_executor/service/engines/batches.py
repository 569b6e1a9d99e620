"""Batches on disk: which tickets were submitted together, and under which number. Written before anything is submitted.

So a service that is killed at any moment knows afterwards what may be on its way, and asks for it by name.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..node.ticket import Places, got, put
from ..state.directory import write_whole
from .system import Batch, Shape

ENGINE_LABEL = "pxengine"


@dataclass
class Stored:
    """A batch as it is stored. `id`: its number; None while it is not known to be submitted."""

    name: str
    shape: Shape
    tickets: list[str]
    jobs: list[int]
    id: str | None = None


@dataclass(frozen=True)
class Program:
    """The node's program, and what it is started by."""

    python: str
    path: Path
    containers: str
    """"process" or "real"."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return what it is started by. It needs what comes with Python alone, and udocker only for containers."""
        return self.python, "-S" if self.containers == "process" else "-s", str(self.path)


class Batches:
    """The batches of one service. For one thread."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def prefix(self) -> str:
        """Return how the names of this service's batches begin; other services of the same user have others."""
        path = self._places.root / "id"
        if not path.exists():
            write_whole(path, os.urandom(4).hex().encode())
        return f"px-{path.read_text()}-"

    def stored(self) -> Iterator[Stored]:
        """Read what an earlier service has left."""
        for path in sorted(self._places.batches.glob("*.json")):
            document = got(path)
            if document is not None:
                yield _read(document)

    def keep(self, batch: Stored) -> None:
        """Store a batch, or that it has a number now."""
        put(self._path(batch.name), asdict(batch))

    def remove(self, name: str) -> None:
        """Forget a batch of which no ticket is left."""
        self._path(name).unlink(missing_ok=True)

    def described(self, batch: Stored, program: Program) -> Batch:
        """Return a batch as a batch system is told it."""
        command = (*program.words, "run", str(self._places.directory), batch.name)
        needs = self._places.root, Path(program.python), program.path
        return Batch(batch.name, batch.shape, len(batch.tickets), command, needs)

    def _path(self, name: str) -> Path:
        return self._places.batches / f"{name}.json"


def _read(document: dict[str, Any]) -> Stored:
    shape = dict(document["shape"])
    shape["options"] = tuple((name, value) for name, value in shape["options"])
    return Stored(**{**document, "shape": Shape(**shape)})


def options_of(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what a job's label says to the batch system. Raises ValueError with a sentence when it says nothing."""
    text = labels.get(ENGINE_LABEL)
    if text is None:
        return ()
    try:
        said = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if all(isinstance(value, str) for value in said.values()):
            return tuple(sorted(said.items()))
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"the label {ENGINE_LABEL} is not what the engine is to be told")


def grouped(wanted: list[tuple[Shape, str, int]], largest: int) -> list[tuple[Shape, list[str], list[int]]]:
    """Return shapes, tickets and jobs that are submitted together: those of one shape, at most so many. Pure."""
    by_shape: dict[Shape, list[tuple[str, int]]] = {}
    for shape, ticket, job in wanted:
        by_shape.setdefault(shape, []).append((ticket, job))
    return [
        (shape, [ticket for ticket, _ in part], [job for _, job in part])
        for shape, members in by_shape.items()
        for start in range(0, len(members), largest)
        for part in [members[start : start + largest]]
    ]
