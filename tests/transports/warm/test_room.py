"""Calls with jobs of their own beside warm workers: who makes room for whom, and who counts against max_workers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.options import Options
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.slots import Claim, Slots
from prominence_executor.transports.warm.batches import workers_needed
from prominence_executor.transports.warm.options import WarmOptions
from prominence_executor.transports.warm.room import may_be_dealt_to, room_for, surplus
from prominence_executor.transports.warm.state import PoolState, Room, Worker


def write(text: str) -> int:
    """A call that needs a job of its own: it writes a file that is to come back."""
    return Path("out.txt").write_text(text)


def square(n: int) -> int:
    return n * n


def state_of(idle: int, starting: int = 0, queued: int = 0, first: int = 0, room: Room | None = None) -> PoolState:
    state = PoolState(0, room=room)
    for number in range(1, idle + starting + 1):
        worker = state.workers[number] = Worker(number, Options(), began=0.0, job_id=number)
        if number <= idle:
            worker.begin("nonce", math.inf, 0.0)
    for number in range(queued):
        calls: list[ProminenceFuture[Any]] = [ProminenceFuture(first + number)]
        payload = Payload(Blob([b"f"]), [Blob([b"a"])])
        state.queue[Chunk("run", first + number, calls, Options(), payload, None)] = None  # type: ignore[arg-type]
    return state


@pytest.mark.parametrize(
    ("queued", "most", "claim", "room"),
    [
        (0, 4, Claim(waiting=1, first=9), Room(3, 1)),
        (0, 4, Claim(jobs=3, idle=1), Room(1, 1)),
        (0, 4, Claim(jobs=3, waiting=50, first=9), Room(0, 50)),
        (5, 4, Claim(jobs=3, waiting=50, first=9), Room(1, 50)),  # calls that wait for a worker keep one
        (5, 1, Claim(waiting=1, first=9), Room(1, 1)),  # of a single place, the oldest call has it
        (5, 1, Claim(waiting=1, first=-1), Room(0, 1)),
        (5, None, Claim(jobs=30, waiting=1), Room(8, 1)),  # nothing bounds the jobs
    ],
)
def test_what_jobs_leave_to_workers(queued: int, most: int | None, claim: Claim, room: Room) -> None:
    options = WarmOptions(max_workers=most or 8)
    assert room_for(state_of(2, queued=queued), options, most, claim) == room


@pytest.mark.parametrize(
    ("state", "numbers"),
    [
        (state_of(2, room=Room(1, 0)), [1]),
        (state_of(2, starting=2, room=Room(3, 0)), [3]),  # who has not begun goes first
        (state_of(2, starting=6, room=Room(8, 1)), [3, 4, 5, 6, 7, 8, 1]),  # the service has fewer places
        (state_of(3, room=Room(8, 1)), [1]),
        (state_of(3, room=None), []),
    ],
)
def test_who_makes_room(state: PoolState, numbers: list[int]) -> None:
    assert [worker.number for worker in surplus(state, needed=0)] == numbers


def test_a_job_that_begins_late_ends_one_idle_worker_and_not_one_after_the_other() -> None:
    state = state_of(3, room=Room(8, 1))
    state.yielded = 1
    assert surplus(state, needed=0) == []


def test_what_can_only_run_after_a_courier_keeps_no_idle_worker_that_is_in_its_way() -> None:
    state = state_of(1, queued=1, room=Room(8, 1))
    state.large.update(state.queue)
    assert (workers_needed(state), workers_needed(state, soon=False)) == (0, 0)  # the courier goes first
    state.coming = True
    assert (workers_needed(state), workers_needed(state, soon=False)) == (1, 0)
    assert [worker.number for worker in surplus(state, needed=0, soon=1)] == [1]
    behind = state_of(0, starting=1, queued=1, room=Room(8, 1))
    assert surplus(behind, needed=0, soon=1) == []  # it waits behind the courier
    state.stores = True
    assert workers_needed(state, soon=False) == 1


def test_who_is_to_make_room_is_given_nothing() -> None:
    state = state_of(2, room=Room(1, 1))
    assert [worker.number for worker in may_be_dealt_to(state, state.idle())] == [2]
    state = state_of(1, starting=1, room=Room(1, 1))
    assert [worker.number for worker in may_be_dealt_to(state, state.idle())] == [1]


def test_jobs_and_workers_share_the_places() -> None:
    slots = Slots(ChunkRegistry("run"), 3)
    slots.claim = lambda look: Claim(jobs=1)
    assert slots.take(5) == 2
    assert not slots.allow(1, 0)
    slots.publish(1, None)
    assert slots.allow(1, 0)
    slots.publish(0, 7)
    assert slots.allow(1, 9)
    assert not slots.allow(2, 9), "a call that waits for a worker would wait for the end of all jobs"
    assert Slots(ChunkRegistry("run"), None).allow(1000, 0)


def most_active(executor: ProminenceExecutor, futures: list[Any]) -> int:
    """How many jobs the service had at most until the futures were done."""
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, sum(job["status"] in ("idle", "running") for job in executor.client.list_jobs()))
        time.sleep(0.05)
    return most


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_with_a_job_of_its_own_has_room_at_once(service: LocalService, tmp_path: Path, workers: int) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=workers, idle_timeout=300, outputs_dir=tmp_path
    ) as executor:
        assert list(executor.map(square, range(20)))[-1] == 19 * 19
        own = executor.with_options(outputs=["out.txt"])
        futures = [own.submit(write, "four"), executor.submit(square, 3)]
        most = most_active(executor, futures)
        assert [future.result(60) for future in futures] == [4, 9]
        assert most <= workers + 1  # a worker that was told to end may take a moment
        assert list(executor.map(square, range(20)))[-1] == 19 * 19  # and a worker is there again


def test_neither_kind_of_calls_keeps_the_other_one_out(service: LocalService, tmp_path: Path) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=1, idle_timeout=300, outputs_dir=tmp_path
    ) as executor:
        own = executor.with_options(outputs=["out.txt"])
        futures = [
            future for n in range(2) for future in (executor.submit(square, n), own.submit(write, "x" * n + "y"))
        ]
        assert [future.result(60) for future in futures] == [0, 1, 1, 2]


def test_room_is_made_where_the_service_has_fewer_places_than_max_workers(
    service: LocalService, tmp_path: Path
) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", min_workers=4, idle_timeout=300, outputs_dir=tmp_path
    ) as executor:
        assert list(executor.map(square, range(20)))[-1] == 19 * 19
        assert executor.with_options(outputs=["out.txt"]).submit(write, "four").result(60) == 4
