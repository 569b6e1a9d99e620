"""Cancelling calls that run, and tasks of asyncio that await them: what the future is then, what becomes of the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from calls import Gate

from prominence_executor import JobDeletedError, ProminenceExecutor, ProminenceFuture
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
Make = Callable[..., ProminenceExecutor]


@pytest.fixture(params=[None, "warm"], ids=["jobs", "warm"])
def make(request: pytest.FixtureRequest, service: LocalService) -> Iterator[Make]:
    made: list[ProminenceExecutor] = []

    def executor(**options: Any) -> ProminenceExecutor:
        made.append(
            ProminenceExecutor(
                service.url, service.token, poll_interval=(0.05, 0.5), workers=request.param, max_workers=1, **options
            )
        )
        return made[-1]

    yield executor
    for each in made:
        each.shutdown(cancel_futures=True)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


def started(executor: ProminenceExecutor, gate: Gate, until: Until) -> ProminenceFuture[str]:
    future = executor.submit(gate.hold, "held")
    until(lambda: gate.begun() and future.running())
    return future


def next_call_runs(executor: ProminenceExecutor) -> bool:
    """Of one worker, or job, at a time: so the cancelled call is over."""
    return executor.submit(pow, 2, 3).result(60) == 8


def test_by_default_a_running_call_is_not_cancelled(make: Make, gate: Gate, until: Until) -> None:
    future = started(make(), gate, until)
    assert not future.cancel()
    assert future.running()
    gate.open()
    assert future.result(30) == "held"
    assert not future.cancel()


def test_a_running_call_is_cancelled_where_that_is_wanted(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)
    future = started(executor, gate, until)
    called: list[bool] = []
    future.add_done_callback(lambda done: called.append(done.cancelled()))
    waiting = threading.Event()
    found: list[Any] = []

    def wait_for_it() -> None:
        waiting.set()
        found.append(wait([future], timeout=30, return_when=FIRST_COMPLETED).done)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    waiting.wait()
    assert future.cancel()
    assert (future.cancelled(), future.done(), future.running(), called) == (True, True, False, [True])
    assert future.cancel()
    thread.join(30)
    assert found == [{future}]
    assert list(as_completed([future], timeout=5)) == [future]
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask(5)
    assert not future.set_running_or_notify_cancel()
    assert future.history[-1].end == "cancelled"
    assert next_call_runs(executor)
    assert called == [True]


def test_a_call_that_is_done_is_not_cancelled(make: Make) -> None:
    executor = make(cancel_running=True)
    future = executor.submit(pow, 2, 3)
    assert future.result(30) == 8
    assert not future.cancel()
    assert future.result() == 8


def test_terminate_still_ends_a_call_with_an_error(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)
    future = started(executor, gate, until)
    assert future.terminate()
    with pytest.raises(JobDeletedError):
        future.result(30)
    assert next_call_runs(executor)


def test_the_job_of_a_chunk_goes_on_until_all_of_its_calls_are_cancelled(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)
    futures = executor.submit_many(gate.hold, ["a", "b"], chunksize=2)
    until(lambda: gate.begun() and futures[0].running())
    assert futures[0].cancel()
    gate.open()
    assert futures[1].result(30) == "b"
    assert futures[0].cancelled()


def test_all_calls_of_a_chunk_can_be_cancelled(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)
    futures = executor.submit_many(gate.hold, ["a", "b"], chunksize=2)
    until(lambda: gate.begun() and futures[0].running())
    assert [future.cancel() for future in futures] == [True, True]
    assert next_call_runs(executor)
    assert gate.begun() == {"a"}


def test_shutdown_that_cancels_futures_ends_what_runs(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)
    future = started(executor, gate, until)
    executor.shutdown(cancel_futures=True)
    assert future.cancelled()


def test_a_cancelled_task_of_asyncio_cancels_its_call(make: Make, gate: Gate, until: Until) -> None:
    executor = make(cancel_running=True)

    async def main(in_executor: bool) -> None:
        gate_name = f"held-{in_executor}"
        if in_executor:
            awaitable: Any = asyncio.get_running_loop().run_in_executor(executor, gate.hold, gate_name)
        else:
            awaitable = asyncio.wrap_future(executor.submit(gate.hold, gate_name))
        (future,) = executor.futures()

        async def ask() -> str:
            answer: str = await awaitable
            return answer

        task = asyncio.ensure_future(ask())
        while not (future.running() and gate_name in gate.begun()):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)  # the loop tells the call's future in its next turn
        assert future.cancelled()

    for in_executor in (False, True):
        asyncio.run(asyncio.wait_for(main(in_executor), 60))
        assert next_call_runs(executor)


def test_a_time_out_of_asyncio_cancels_a_call_that_waits(make: Make, gate: Gate, until: Until) -> None:
    """Without ``cancel_running``, too: it has not begun."""
    executor = make()
    running = started(executor, gate, until)

    async def main() -> None:
        future = executor.submit(gate.hold, "never")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.1)
        await asyncio.sleep(0)
        assert future.cancelled()

    asyncio.run(main())
    assert running.running()
    gate.open()
    assert running.result(30) == "held"
    assert next_call_runs(executor)
    assert gate.begun() == {"held"}


def test_an_attached_program_can_cancel_what_runs(service: LocalService, gate: Gate, until: Until) -> None:
    executor = ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5))
    future = started(executor, gate, until)
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, cancel_running=True) as again:
        (same,) = again.futures()
        until(same.running)
        assert same.cancel()
        assert same.cancelled()
    assert isinstance(future.exception(30), JobDeletedError)
    executor.shutdown()
