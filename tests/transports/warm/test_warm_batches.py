"""What is decided about warm workers, without any: which to start and to end, which batch goes where, what is lost."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor import JobFailedError, ServiceError, ServiceUnavailableError
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.payload.modules import ModuleZip
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.options import Options
from prominence_executor.transports.warm import batches
from prominence_executor.transports.warm.batches import Fate
from prominence_executor.transports.warm.options import WarmOptions
from prominence_executor.transports.warm.state import Kind, PoolState, Worker
from prominence_executor.transports.warm.workers import compare, watch_pause

NOW = 1000.0
KINDS = [Options(), Options(env={"KIND": "other"})]


def chunk_of(
    first: int = 0, size: int = 1, weight: int = 10, losses: int = 0, kind: int = 0, modules: ModuleZip | None = None
) -> Chunk:
    calls: list[ProminenceFuture[Any]] = [ProminenceFuture(first + n) for n in range(size)]
    payload = Payload(Blob([b"f"]), [Blob([bytes(weight)]) for _ in range(size)], modules)
    return Chunk("run", first, calls, KINDS[kind], payload, None, losses=losses)  # type: ignore[arg-type]


def worker_of(number: int, form: str = "idle", kind: int = 0, **facts: Any) -> Worker:
    worker = Worker(number, KINDS[kind], began=NOW - 60, job_id=100 + number, **facts)
    if form != "starting":
        worker.begin("nonce", facts.get("total", math.inf), NOW - 50)
        worker.seen = NOW - 1
    if form == "busy":
        worker.take([chunk_of(10_000 + number)])
        worker.sending = False
    worker.sending = form == "sending"
    return worker


def state_of(workers: list[Worker], chunks: list[Chunk], target: int = 0, seconds: float | None = None) -> PoolState:
    state = PoolState(target, {worker.number: worker for worker in workers}, seconds=seconds, eventful_at=NOW)
    for chunk in chunks:
        state.queue[chunk] = None
    return state


chunks_drawn = st.lists(
    st.builds(
        lambda size, weight, losses, kind: (size, weight, losses, kind),
        st.integers(1, 5),
        st.sampled_from([0, 100, 20_000, 60_000]),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 0, 1]),
    ),
    max_size=40,
).map(lambda drawn: [chunk_of(10 * n, *facts) for n, facts in enumerate(drawn)])
workers_drawn = st.lists(
    st.tuples(st.sampled_from(["idle", "idle", "busy", "starting", "sending"]), st.sampled_from([0, 0, 1])), max_size=8
).map(lambda drawn: [worker_of(n + 1, form, kind) for n, (form, kind) in enumerate(drawn)])
states = st.builds(
    state_of, workers_drawn, chunks_drawn, st.integers(0, 8), st.none() | st.sampled_from([1e-6, 0.01, 0.1, 10.0])
)


# -- batches -----------------------------------------------------------------------------------------------------------


@given(states)
def test_no_chunk_is_dealt_twice_or_to_a_worker_that_cannot_take_it(state: PoolState) -> None:
    waiting = list(state.queue)
    dealt = batches.dispatch_batches(state, NOW)
    chunks = [chunk for batch in dealt for chunk, _ in batch.parts]
    assert len(set(chunks)) == len(chunks)
    assert set(chunks) <= set(waiting)
    assert list(state.queue) == waiting  # it decides, and does nothing
    assert len({batch.worker for batch in dealt}) == len(dealt)
    for worker, parts in dealt:
        assert parts
        assert worker.is_idle
        assert all(batches.can_run(state, worker, chunk, NOW) for chunk, _ in parts)
        order = [waiting.index(chunk) for chunk, _ in parts]
        assert order == sorted(order)


@given(states)
def test_a_batch_is_one_chunk_or_keeps_within_its_bounds(state: PoolState) -> None:
    most = 1 if state.seconds is None else max(1, int(batches.BATCH_SECONDS / state.seconds))
    for _, parts in batches.dispatch_batches(state, NOW):
        if len(parts) > 1:
            sizes = [blob.size + 100 for _, payload in parts for blob in payload.arguments if blob is not None]
            assert sum(sizes) <= batches.BATCH_SIZE
            assert sum(chunk.size for chunk, _ in parts) <= most
            assert not any(chunk.losses for chunk, _ in parts)


@given(states)
def test_an_idle_worker_stays_so_only_if_it_can_run_nothing_of_what_is_left(state: PoolState) -> None:
    dealt = batches.dispatch_batches(state, NOW)
    left = state.queue.keys() - {chunk for batch in dealt for chunk, _ in batch.parts}
    busy = {batch.worker for batch in dealt}
    for worker in state.idle():
        if worker not in busy:
            assert not any(batches.can_run(state, worker, chunk, NOW) for chunk in left)


def test_short_calls_are_shared_among_idle_workers() -> None:
    state = state_of([worker_of(n) for n in (1, 2, 3, 4)], [chunk_of(n) for n in range(40)], seconds=0.001)
    assert [len(parts) for _, parts in batches.dispatch_batches(state, NOW)] == [10, 10, 10, 10]
    state = state_of([worker_of(1)], [chunk_of(n) for n in range(40)], seconds=0.05)
    assert [len(parts) for _, parts in batches.dispatch_batches(state, NOW)] == [5]


def test_where_requests_take_long_batches_do_but_not_very_long() -> None:
    def dealt(took: float, *, listening: bool = False) -> int:
        state = state_of([worker_of(1)], [chunk_of(n) for n in range(100)], seconds=0.05)
        state.took, state.listening = took, listening
        [batch] = batches.dispatch_batches(state, NOW)
        return len(batch.parts)

    assert dealt(0.012) == dealt(0.1, listening=True) == 5
    assert dealt(0.1) == 16
    assert dealt(5.0) == 40


def test_a_worker_near_the_end_of_its_walltime_is_given_no_call_that_needs_more() -> None:
    late = worker_of(1)
    late.batch, late.total, late.until = 3, 600.0, NOW + 5.0
    chunk = chunk_of()
    state = state_of([late], [chunk], seconds=1.0)
    assert len(batches.dispatch_batches(state, NOW)) == 1
    state.needs[chunk] = 6.0
    assert batches.dispatch_batches(state, NOW) == []
    late.batch = 0  # it has just started, and no other has more time
    assert len(batches.dispatch_batches(state, NOW)) == 1


def test_large_modules_are_only_for_workers_that_came_with_them() -> None:
    modules = ModuleZip(bytes(batches.MODULES_SIZE + 1), "digest", frozenset())
    state = state_of([worker_of(1), worker_of(2, modules=modules)], [chunk_of(modules=modules)])
    [batch] = batches.dispatch_batches(state, NOW)
    assert batch.worker.number == 2


def test_what_was_let_go_a_moment_ago_is_not_dealt() -> None:
    gone, chunk = chunk_of(0), chunk_of(1)
    gone.release()
    [batch] = batches.dispatch_batches(state_of([worker_of(1)], [gone, chunk]), NOW)
    assert [dealt for dealt, _ in batch.parts] == [chunk]


@given(st.lists(st.integers(0, 20), unique=True), st.data())
def test_what_is_queued_again_comes_first_and_in_its_order(numbers: list[int], data: st.DataObject) -> None:
    chunks = [chunk_of(n) for n in numbers]
    back = data.draw(st.lists(st.sampled_from(chunks), unique=True)) if chunks else []
    state = state_of([], chunks)
    for chunk in back:
        state.queue.pop(chunk)
    state.requeue(back)
    assert list(state.queue) == [*back, *(chunk for chunk in chunks if chunk not in back)]


# -- workers -----------------------------------------------------------------------------------------------------------


@given(states, st.integers(1, 8), st.floats(0, 40))
def test_there_are_never_more_workers_than_wanted_at_most(state: PoolState, most: int, idle: float) -> None:
    state.workers = dict(list(state.workers.items())[:most])
    state.target = min(state.target, most)
    for worker in state.workers.values():
        worker.idle_since = NOW - idle
    plan = batches.plan_workers(state, WarmOptions(max_workers=most), NOW)
    assert plan.start >= 0
    assert len(state.workers) - len(plan.end) + plan.start <= most
    assert len(set(plan.end)) == len(plan.end)
    assert all(worker.is_idle for worker in plan.end)
    first = list(state.queue)[:most]  # of a long queue only those that could have a worker each are looked at
    assert not any(batches.can_run(state, worker, chunk, NOW) for worker in plan.end for chunk in first)
    if state.queue and plan.kind is not None and len(state.workers) < most:
        # A chunk that no worker can run has one started.
        unserved = [
            chunk
            for chunk in first
            if not any(batches.can_run(state, worker, chunk, NOW) for worker in state.workers.values())
        ]
        assert plan.start > 0 or not unserved


def test_no_worker_is_started_before_it_is_known_what_calls_want() -> None:
    assert batches.plan_workers(state_of([], [], target=3), WarmOptions(), NOW).start == 0
    plan = batches.plan_workers(state_of([], [chunk_of(kind=1)], target=3), WarmOptions(), NOW)
    assert (plan.start, plan.kind) == (3, Kind(KINDS[1], None))


def test_short_calls_need_few_workers() -> None:
    chunks = [chunk_of(n) for n in range(100)]
    assert batches.plan_workers(state_of([], chunks), WarmOptions(max_workers=50), NOW).start == 50
    assert batches.plan_workers(state_of([], chunks, seconds=0.005), WarmOptions(max_workers=50), NOW).start == 2


def test_workers_of_another_kind_make_room_when_nothing_else_can_run() -> None:
    workers = [worker_of(1), worker_of(2)]
    plan = batches.plan_workers(state_of(workers, [chunk_of(kind=1)]), WarmOptions(max_workers=2), NOW)
    assert (len(plan.end), plan.start, plan.kind) == (1, 1, Kind(KINDS[1], None))


def test_idle_workers_retire_down_to_those_that_are_wanted() -> None:
    workers = [worker_of(n) for n in (1, 2, 3)] + [worker_of(4, "busy")]
    for worker in workers:
        worker.idle_since = NOW - 10
    state, options = state_of(workers, [], target=2), WarmOptions(idle_timeout=5)
    assert [worker.number for worker in batches.retire(state, options, NOW)] == [1, 2]
    assert batches.retire(state, WarmOptions(idle_timeout=20), NOW) == []
    state.shrinks = True
    assert [worker.number for worker in batches.retire(state, WarmOptions(idle_timeout=20), NOW)] == [1, 2]


def test_looks_are_frequent_while_work_flows_and_none_is_needed_without_workers() -> None:
    assert batches.pause(state_of([], []), NOW) is None
    assert batches.pause(state_of([worker_of(1)], []), NOW) == 5.0
    assert 0 < (batches.pause(state_of([], [chunk_of()]), NOW) or 0) <= 0.05
    busy = state_of([worker_of(1, "busy")], [])
    assert batches.pause(busy, NOW) == batches.SHORTEST
    assert batches.pause(busy, NOW + 10) == 0.5
    assert batches.pause(busy, NOW + 1000) == 1.0
    busy.took = 0.016  # of a service that is far, or has much to do
    assert batches.pause(busy, NOW) == 0.008
    busy.took = 30.0
    assert batches.pause(busy, NOW) == 1.0
    assert batches.pause(state_of([worker_of(1, "starting")], []), NOW) == 3.0


# -- what is lost ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "losses", "most", "fate"),
    [
        (1, 1, 3, Fate.AGAIN),
        (5, 1, 3, Fate.AGAIN),
        (1, 2, 3, Fate.AGAIN),
        (5, 2, 3, Fate.SPLIT),
        (1, 3, 3, Fate.GIVEN_UP),
        (1, 1, 1, Fate.GIVEN_UP),
    ],
)
def test_a_chunk_that_costs_workers_is_split_and_then_given_up(size: int, losses: int, most: int, fate: Fate) -> None:
    chunk = chunk_of(size=size)
    assert batches.fate_of(chunk, losses, most) is fate
    chunk.terminated = True
    assert batches.fate_of(chunk, losses, most) is Fate.TERMINATED


def test_a_job_that_may_exist_is_looked_for_and_one_that_cannot_is_not() -> None:
    sent, unsent = ServiceUnavailableError("no answer"), ServiceUnavailableError("refused", request_sent=False)
    assert batches.is_doubtful(sent, 0)
    assert not batches.is_doubtful(unsent, 0)
    assert not batches.is_doubtful(ServiceError("its own", 500), 3)
    assert not batches.is_doubtful(JobFailedError("ended"), 0)
    assert not batches.ends_calls(JobFailedError("ended"), 2)
    assert batches.ends_calls(JobFailedError("ended"), 3)
    assert batches.ends_calls(OSError("no such image"), 0)


def job(number: int, job_id: int) -> dict[str, Any]:
    return {"id": job_id, "name": f"run.w{number}", "status": "running"}


def test_a_list_of_jobs_tells_who_is_gone_found_and_nobodys() -> None:
    here, gone, silent = worker_of(1), worker_of(2), worker_of(3, "busy")
    silent.seen = NOW - 100
    doubted, late, on_its_way = (worker_of(n, "starting") for n in (4, 5, 6))
    for worker, since in ((doubted, 1.0), (late, 4.0), (on_its_way, None)):
        worker.job_id = None
        worker.doubted = None if since is None else NOW - since
    state = state_of([here, gone, silent, doubted, late, on_its_way], [])
    state.job_ids = {101, 102, 103}
    state.eventful_at = NOW - 100
    jobs = [job(1, 101), job(3, 103), job(4, 204), job(6, 206), job(2, 202), job(9, 209)]
    compared = compare(state, {one["id"]: one for one in jobs}, "run", range(1, 7), NOW)
    assert compared.found == {4: 204}
    assert compared.given_up == [late]
    assert compared.gone == [gone]
    assert compared.strays == [202]  # number 9 is another program's
    assert compared.silent == [silent]


def test_the_jobs_are_looked_at_less_often_when_nothing_happens() -> None:
    state = state_of([worker_of(1)], [])
    assert watch_pause(state, NOW) == 1.0
    assert watch_pause(state, NOW + 100) == 10.0
    assert watch_pause(state, NOW + 1000) == 30.0
    state.workers[1].job_id = None
    assert watch_pause(state, NOW + 1000) == 1.0
