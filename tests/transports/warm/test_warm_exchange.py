"""What the scheduler of warm workers makes of what it is told; its threads have ended, so that nothing else happens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from warm_world import MemoryService, Pool

from prominence_executor import JobDeletedError
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.options import Options
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.slots import Slots
from prominence_executor.transports.jobs.table import JobTable
from prominence_executor.transports.warm.events import BatchUnstored, CourierCreated, WorkerCreated
from prominence_executor.transports.warm.messages import Ended, Report
from prominence_executor.transports.warm.options import WarmOptions
from prominence_executor.transports.warm.scheduler import Scheduler
from prominence_executor.transports.warm.state import Worker


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with Pool(MemoryService(), WarmOptions(max_workers=4)) as pool:
        pool._warm.close(False)
        yield pool._warm._scheduler


def chunk_of(scheduler: Scheduler, *, is_open: bool = True) -> Chunk:
    def make(first: int) -> list[Chunk]:
        calls: list[ProminenceFuture[Any]] = [ProminenceFuture(first)]
        payload = Payload(Blob([b"f"]), [Blob([b"a"])])
        return [Chunk(scheduler._registry.run_id, first, calls, Options(), payload, None)]  # type: ignore[arg-type]

    [chunk] = scheduler._registry.admit(1, make) if is_open else make(10_000)
    return chunk


def worker_of(scheduler: Scheduler, *chunks: Chunk) -> Worker:
    worker = scheduler._state.workers[1] = Worker(1, Options(), began=0.0, job_id=5)
    worker.begin("nonce", math.inf, time.monotonic())
    if chunks:
        worker.take(chunks)
    return worker


def test_a_result_keeps_its_place_until_it_was_read_though_its_batch_goes_on(scheduler: Scheduler) -> None:
    worker = worker_of(scheduler, chunk_of(scheduler), chunk_of(scheduler))
    worker.result_place = "place"
    ended = Ended(0, b"", {"name": "place", "size": 9, "sha256": "", "at": 0, "length": 9, "printed": 0})
    report = Report("nonce", 1, math.inf, 3, False, True, False, 1, (), (ended,))
    ran, items = scheduler._exchange._handle_report(worker, report)
    assert (ran.place, len(items)) == ("place", 1)
    assert worker.result_place is None


def test_what_was_heard_before_the_last_look_is_looked_for_again_by_the_next_round(scheduler: Scheduler) -> None:
    exchange = scheduler._exchange
    exchange._read_at = before = time.monotonic()
    assert not exchange.hear({}, before - 1.0)
    assert exchange._read_at == before, "it has made a request, where nobody expects that the service is away"
    assert exchange.hear({}, before + 1.0)


def test_a_worker_that_was_started_again_while_its_batch_could_not_be_stored_is_used_again(
    scheduler: Scheduler,
) -> None:
    worker = worker_of(scheduler, chunk_of(scheduler))
    worker.chunks = {}  # they wait again
    worker.begin("another", math.inf, time.monotonic())
    assert not worker.is_idle
    scheduler._exchange.unsent(BatchUnstored(1, "nonce"))
    assert (worker.is_idle, worker.batch) == (True, 0)


def test_what_was_ended_or_closed_meanwhile_has_no_job_of_its_own(scheduler: Scheduler) -> None:
    sent: list[Chunk] = []
    scheduler._overflow = sent.append
    wanted, ended, closed = chunk_of(scheduler), chunk_of(scheduler), chunk_of(scheduler, is_open=False)
    [future] = ended.calls
    ended.terminated = True
    for chunk in (wanted, ended, closed):
        scheduler._state.queue[chunk] = None
        scheduler._state.large.add(chunk)
    scheduler._places.fail("it is away")
    scheduler._mind_large()
    assert sent == [wanted]
    assert isinstance(future.exception(0), JobDeletedError)
    assert not scheduler._state.queue


def test_a_chunk_that_was_closed_on_its_way_to_a_job_does_not_wait_for_room_forever(scheduler: Scheduler) -> None:
    registry = ChunkRegistry("run")
    table = JobTable(registry, Slots(registry, 4), reads_only=False)
    chunk = chunk_of(scheduler)
    table.track(chunk)
    assert table.claim(False).waiting == 1
    assert not table.wait_for_room(chunk)
    assert table.claim(False).waiting == 0


def test_a_courier_is_too_young_to_be_deleted_for_as_long_as_it_runs(scheduler: Scheduler) -> None:
    assert scheduler.stop_young() == set()
    scheduler._courier.created(CourierCreated(7))
    assert scheduler.stop_young() == {7}
    assert scheduler.left() == [7]


def test_a_worker_whose_job_is_taken_while_the_run_ends_is_too_young_to_be_deleted(scheduler: Scheduler) -> None:
    scheduler.post(WorkerCreated(1, 7, time.monotonic()))
    assert scheduler.left() == [7]
    assert scheduler.stop_young() == {7}
