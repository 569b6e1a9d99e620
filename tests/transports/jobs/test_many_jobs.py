"""Tens of thousands of jobs: what is done about all of them takes a time that grows as their number, not its square."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from prominence_executor import ProminenceFuture
from prominence_executor.executor import interrupt
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.options import Options
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.slots import Slots
from prominence_executor.transports.jobs.array import MOST, Array
from prominence_executor.transports.jobs.delete import Deleter
from prominence_executor.transports.jobs.table import JobTable

MANY = 20_000


class Later(Executor):
    """Does what it was given when it is told to."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks.append(fn)
        return Future()


@contextmanager
def in_seconds(most: float) -> Iterator[None]:
    """The time of this thread alone, which other processes do not make longer."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < most


def many() -> tuple[ChunkRegistry, JobTable, list[Chunk]]:
    registry, nowhere, options = ChunkRegistry("run"), SimpleNamespace(discard=lambda chunk: None), Options()
    table = JobTable(registry, Slots(registry, None), reads_only=False)
    made = [Chunk("run", n, [ProminenceFuture(n)], options, None, nowhere) for n in range(MANY)]
    return registry, table, registry.admit(MANY, lambda first: made)


@pytest.mark.parametrize("in_arrays", [True, False])
def test_so_many_that_are_cancelled_at_once_are_deleted_together(in_arrays: bool) -> None:
    _, table, chunks = many()
    for chunk in chunks:
        table.accepted(chunk, chunk.first)
    for number in range(0, MANY if in_arrays else 0, MOST):
        array = Array.of(chunks[number : number + MOST])
        table.put_into(array)
        array.workflow_id = number
    gone: dict[str, list[Any]] = {"jobs": [], "workflows": []}
    client = SimpleNamespace(
        list_jobs=lambda **_: [], delete_jobs=gone["jobs"].extend, delete_workflow=gone["workflows"].append
    )
    context: Any = SimpleNamespace(client=client, run_id="run")
    pool, closed = Later(), list[Chunk]()
    deleter = Deleter(context, table, lambda: pool, close=closed.append, look_soon=lambda: None)
    for chunk in chunks:
        deleter.delete(chunk)
    [delete_together] = pool.tasks
    with in_seconds(0.5):
        delete_together()
    assert len(gone["jobs"]) == (0 if in_arrays else MANY)
    assert len(gone["workflows"]) == (MANY // MOST if in_arrays else 0)
    assert len(closed) == MANY


def test_an_interruption_looks_through_so_many_jobs_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, _, _ = many()

    def await_end(context: Any, ended: threading.Event, look: Any) -> None:
        with in_seconds(0.5):
            look()

    monkeypatch.setattr(interrupt, "await_end", await_end)
    context: Any = SimpleNamespace(lasts=True, run_id="run")
    said = interrupt.delete(context, registry.chunks, threading.Event())
    assert said == "its 20000 outstanding calls were given up, and their jobs deleted"
