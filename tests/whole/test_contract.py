"""One contract, four executors: what code relies on in ``concurrent.futures``, asked of all of them alike.

Where Python's own executors differ, the suite asks what all three keep, and leaves the rest to other files:

                                threads                processes                ours
    what goes to a call         the object itself      its pickle               its pickle (by value if need be)
    where an exception tells    in its own traceback   in its cause, as text    in its cause, as text
    its __cause__               stays                  becomes text             follows the remote traceback
    seen as running             when it runs           one call early           when the service says so
    told of a cancellation
      callbacks, result()       at once                at once                  at once
      wait(), as_completed()    at the call's turn     at the call's turn       at once
    chunksize of map            ignored                checked; one failure     checked; each call has
                                                       fails the chunk          its own outcome
    a crash of a call           ends the program       breaks the executor      is that call's alone
"""

from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import operator
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import calls
import pytest
from calls import Adder, Gate, Overheated, Withdrawn

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.service import Platform

Until = Callable[..., None]
Make = Callable[[int], Executor]
PATIENCE = 30.0  # seconds in which everything here must have happened


@pytest.fixture(scope="module")
def real() -> Iterator[LocalService]:
    """A service as quirky as the real one, and nearly as slow."""
    with LocalService(cpus=8, memory=64, platform=Platform.measured("create_seconds=0.1,job_seconds=0.2")) as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask each executor. A job on Slurm takes a second: with PROMINENCE_CONTRACT=all jobs there are asked all, too."""
    if "new" not in metafunc.fixturenames:
        return
    on_slurm = ["slurm-warm"]
    if "make" in metafunc.fixturenames or os.environ.get("PROMINENCE_CONTRACT") == "all":
        on_slurm.append("slurm")
    slow = [pytest.param(kind, marks=(pytest.mark.slow, pytest.mark.once)) for kind in on_slurm]
    kinds = ["threads", "processes", "ours", "warm", pytest.param("real", marks=pytest.mark.slow), *slow]
    metafunc.parametrize("new", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def new(request: pytest.FixtureRequest, service: LocalService) -> Make:
    """Makes an executor with so many workers."""
    kind, where = {"real": ("ours", "real"), "slurm": ("ours", "on_slurm"), "slurm-warm": ("warm", "on_slurm")}.get(
        request.param, (request.param, None)
    )
    if where is not None:
        service = request.getfixturevalue(where)
    makers: dict[str, Make] = {
        "threads": ThreadPoolExecutor,
        # Not forked from a process with threads; its workers are, from a server that has none.
        "processes": lambda n: ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("forkserver")),
        "ours": lambda n: ProminenceExecutor(service.url, service.token, max_workers=n, poll_interval=(0.05, 0.2)),
        "warm": lambda n: ProminenceExecutor(service.url, service.token, max_workers=n, workers="warm"),
    }
    return makers[kind]


@pytest.fixture(scope="module")
def pool(new: Make) -> Iterator[Executor]:
    """An executor for all tests that do not end it."""
    with new(4) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture
def make(new: Make, gate: Gate) -> Iterator[Make]:
    """Makes executors that are ended with the test; calls at the gate do not stand in their way."""
    made: list[Executor] = []

    def remembered(workers: int) -> Executor:
        made.append(new(workers))
        return made[-1]

    yield remembered
    gate.open()
    for executor in made:
        executor.shutdown(cancel_futures=True)


def occupy(executor: Executor, gate: Gate, until: Until) -> list[Future[str]]:
    """Four calls for one worker: the first runs, the last surely does not (two may wait in the pipe to a process)."""
    held = [executor.submit(gate.hold, name) for name in ("first", "next", "third", "last")]
    until(lambda: held[0].running() and gate.begun() == {"first"})
    return held


# -- results and exceptions --------------------------------------------------------------------------------------------


def test_a_result_comes_back_again_and_again(pool: Executor) -> None:
    future = pool.submit(calls.itself, {"a": [1, 2.5, None, b"x"]})
    assert isinstance(future, Future)
    assert future.result(PATIENCE) == {"a": [1, 2.5, None, b"x"]}
    assert future.result() is future.result(timeout=0)
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def test_none_and_an_exception_that_is_returned_are_results(pool: Executor) -> None:
    nothing, error = pool.submit(calls.nothing), pool.submit(calls.itself, ValueError("only returned"))
    assert nothing.result(PATIENCE) is None
    assert isinstance(error.result(PATIENCE), ValueError)
    assert nothing.exception() is error.exception() is None


def test_everything_callable_can_be_called(pool: Executor) -> None:
    cases: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
        (Adder(5).add, (1,), 6),
        (Adder(5), (1,), 6),
        (Adder, (5,), Adder(5)),
        (Adder.of_two, (1,), 3),
        (Adder.of_three, (1,), 4),
        (functools.partial(calls.applied, pow, 2), (10,), 1024),
        (operator.itemgetter(1), ("abc",), "b"),
        (max, (3, 7, 5), 7),  # like the next three without a signature that `inspect` could find
        (dict, ([("a", 1)],), {"a": 1}),
        (iter, ([],), None),
        ("a-b".split, ("-",), ["a", "b"]),
    ]
    submitted = [pool.submit(function, *arguments) for function, arguments, _ in cases]
    for future, (function, _, expected) in zip(submitted, cases, strict=True):
        result = future.result(PATIENCE)
        assert list(result) == [] if function is iter else result == expected


def test_any_name_works_as_a_keyword(pool: Executor) -> None:
    names = ["fn", "self", "args", "kwargs", "func", "function", "executor", "future", "timeout", "call", "chunksize"]
    given = {name: number for number, name in enumerate(names)}
    assert pool.submit(calls.keywords, **given).result(PATIENCE) == given


def test_a_large_argument_and_a_large_result_arrive(pool: Executor) -> None:
    content = bytes(range(256)) * 12_000
    assert pool.submit(calls.mirrored, content).result(PATIENCE) == content[::-1]


def test_an_exception_comes_back_as_itself_and_says_where_it_was_raised(pool: Executor) -> None:
    future = pool.submit(calls.fail, Overheated, 3695.0, "wall")
    with pytest.raises(Overheated) as caught:
        future.result(PATIENCE)
    assert caught.value is future.exception()
    assert (caught.value.kelvin, caught.value.where, caught.value.args) == (3695.0, "wall", (3695.0, "wall"))
    text = "".join(traceback.format_exception(caught.value))
    assert "calls.py" in text
    assert "in fail\n" in text


@pytest.mark.parametrize(
    ("function", "between"),
    [(calls.fail_from_another, "direct cause"), (calls.fail_while_handling, "During handling")],
)
def test_what_an_exception_was_raised_from_is_told(pool: Executor, function: Callable[[], None], between: str) -> None:
    error = pool.submit(function).exception(PATIENCE)
    assert isinstance(error, Overheated)
    text = "".join(traceback.format_exception(error))
    assert "KeyError: 'plasma'" in text
    assert between in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no exception groups")
def test_a_group_of_exceptions_comes_back_with_its_members(pool: Executor) -> None:
    error: Any = pool.submit(calls.fail_together).exception(PATIENCE)
    assert type(error).__name__ == "ExceptionGroup"
    assert error.message == "two of them"
    first, second = error.exceptions
    assert (type(first), first.where, first.__notes__) == (Overheated, "wall", ["in shot 81942"])
    assert repr(second) == "KeyError('plasma')"


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Withdrawn, StopIteration, futures.CancelledError]
)
def test_exceptions_that_mean_something_else_here_are_the_calls_own(pool: Executor, kind: type[BaseException]) -> None:
    future = pool.submit(calls.fail, kind, 3)
    error = future.exception(PATIENCE)
    assert type(error) is kind
    assert error.args == (3,)
    assert not future.cancelled()


def test_endless_recursion_is_an_exception(pool: Executor) -> None:
    assert isinstance(pool.submit(calls.recurse).exception(PATIENCE), RecursionError)


def test_a_result_that_is_not_there_in_time_is_a_timeout_and_the_future_stays(pool: Executor, gate: Gate) -> None:
    future = pool.submit(gate.hold, "late")
    for ask in (future.result, future.exception):
        with pytest.raises(futures.TimeoutError):
            ask(timeout=0.05)
    gate.open()
    assert future.result(PATIENCE) == "late"


def test_a_crash_is_a_runtime_error(make: Make) -> None:
    executor = make(1)
    if isinstance(executor, ThreadPoolExecutor):
        return  # there it is the end of this program
    assert isinstance(executor.submit(os._exit, 3).exception(PATIENCE), RuntimeError)


def test_calls_of_a_loop_start_in_their_order(make: Make) -> None:
    executor = make(1)
    began = [future.result(PATIENCE) for future in [executor.submit(time.time) for _ in range(7)]]
    assert began == sorted(began)


# -- states and cancelling ---------------------------------------------------------------------------------------------


def test_a_future_is_pending_then_running_then_done(make: Make, gate: Gate, until: Until) -> None:
    first, *following, last = occupy(make(1), gate, until)
    for future, running in ((first, True), (last, False)):
        assert (future.running(), future.done(), future.cancelled()) == (running, False, False)
    gate.open()
    assert [future.result(PATIENCE) for future in (first, *following, last)] == ["first", "next", "third", "last"]
    assert (last.running(), last.done(), last.cancelled()) == (False, True, False)


def test_what_runs_or_is_done_cannot_be_cancelled(make: Make, gate: Gate, until: Until) -> None:
    first, *_ = occupy(make(1), gate, until)
    assert first.cancel() is False
    assert first.running()
    gate.open()
    assert first.result(PATIENCE) == "first"
    assert first.cancel() is False
    assert not first.cancelled()


def test_cancelling_what_waits_tells_everyone_and_it_never_runs(make: Make, gate: Gate, until: Until) -> None:
    executor = make(1)
    *_, last = occupy(executor, gate, until)
    called: list[Future[str]] = []
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            last.result(PATIENCE)
        except BaseException as error:  # noqa: BLE001  looked at below
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    last.add_done_callback(called.append)
    assert last.cancel() is True
    asking.join(PATIENCE)
    assert [type(error) for error in raised] == [futures.CancelledError]
    assert called == [last]
    assert last.cancel() is True  # again
    assert (last.cancelled(), last.done(), last.running()) == (True, True, False)
    for ask_again in (last.result, last.exception):
        with pytest.raises(futures.CancelledError):
            ask_again(timeout=0)
    gate.open()
    assert futures.wait([last], PATIENCE).done == {last}
    assert list(futures.as_completed([last], PATIENCE)) == [last]
    executor.shutdown()
    assert gate.begun() == {"first", "next", "third"}
    assert called == [last]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_once_in_their_order_with_the_future(pool: Executor, gate: Gate, until: Until) -> None:
    future = pool.submit(gate.hold, "it")
    called: list[tuple[int, Future[str], bool]] = []
    for number in range(3):
        future.add_done_callback(lambda f, n=number: called.append((n, f, f.done())))  # type: ignore[misc]
    assert called == []
    gate.open()
    until(lambda: len(called) == 3)
    assert called == [(number, future, True) for number in range(3)]
    future.add_done_callback(lambda f: called.append((3, f, f.done())))  # done: called before this returns
    assert called[3:] == [(3, future, True)]


def test_an_exception_in_a_callback_costs_neither_the_others_nor_the_executor(
    pool: Executor, gate: Gate, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    future = pool.submit(gate.hold, "it")
    called: list[Future[str]] = []
    future.add_done_callback(lambda f: 1 // 0)
    future.add_done_callback(called.append)
    gate.open()
    until(lambda: called == [future])
    future.add_done_callback(lambda f: 1 // 0)
    assert [record.message for record in caplog.records if "exception calling callback" in record.message]
    assert pool.submit(calls.square, 3).result(PATIENCE) == 9


def test_a_callback_may_submit(pool: Executor, until: Until) -> None:
    second: list[Future[int]] = []
    first = pool.submit(calls.square, 2)
    first.add_done_callback(lambda f: second.append(pool.submit(calls.square, f.result())))
    until(lambda: second)
    assert second[0].result(PATIENCE) == 16


# -- waiting for several -----------------------------------------------------------------------------------------------


def test_wait_returns_at_what_it_was_asked_for(pool: Executor, gate: Gate) -> None:
    held: Future[Any] = pool.submit(gate.hold, "held")
    quick: Future[Any] = pool.submit(calls.square, 2)
    assert futures.wait([held, quick], PATIENCE, futures.FIRST_COMPLETED) == ({quick}, {held})
    failed: Future[Any] = pool.submit(calls.fail, Overheated, 1.0, "wall")
    assert failed in futures.wait([held, failed], PATIENCE, futures.FIRST_EXCEPTION).done
    assert held in futures.wait([held, quick, failed], 0.05, futures.ALL_COMPLETED).not_done
    gate.open()
    assert futures.wait([held, quick, failed], PATIENCE, futures.ALL_COMPLETED) == ({held, quick, failed}, set())


def test_as_completed_yields_each_once_as_it_ends(pool: Executor, gate: Gate) -> None:
    held: Future[Any] = pool.submit(gate.hold, "held")
    several: list[Future[Any]] = [held, *(pool.submit(calls.square, x) for x in range(2))]
    ending = futures.as_completed(several, PATIENCE)
    assert {next(ending), next(ending)} == set(several[1:])
    with pytest.raises(futures.TimeoutError):
        list(futures.as_completed([held], 0.05))
    gate.open()
    assert list(ending) == [held]


def test_asyncio_awaits_results_and_exceptions(pool: Executor) -> None:
    async def main() -> tuple[object, object, object]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            loop.run_in_executor(pool, calls.square, 4),
            asyncio.wrap_future(pool.submit(calls.square, 5)),
            loop.run_in_executor(pool, calls.fail, Overheated, 1.0, "wall"),
            return_exceptions=True,
        )

    sixteen, twenty_five, error = asyncio.run(main())
    assert (sixteen, twenty_five) == (16, 25)
    assert isinstance(error, Overheated)


def test_cancelling_what_asyncio_awaits_cancels_the_call(make: Make, gate: Gate, until: Until) -> None:
    *_, last = occupy(make(1), gate, until)

    async def main() -> None:
        awaited = asyncio.wrap_future(last)
        awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited

    asyncio.run(main())
    assert last.cancelled()


# -- map ---------------------------------------------------------------------------------------------------------------


def test_map_keeps_the_order_and_ends_with_the_shortest(pool: Executor) -> None:
    assert list(pool.map(calls.square, range(5))) == [0, 1, 4, 9, 16]
    assert list(pool.map(pow, [2, 3, 4], iter([3, 2]))) == [8, 9]


def test_map_of_nothing_is_empty(pool: Executor) -> None:
    assert list(pool.map(calls.square)) == list(pool.map(calls.square, [])) == list(pool.map(pow, [], [1])) == []


@pytest.mark.parametrize("chunksize", [2, 100])
def test_map_in_chunks_gives_the_same(pool: Executor, chunksize: int) -> None:
    assert list(pool.map(calls.square, range(5), chunksize=chunksize)) == [0, 1, 4, 9, 16]


def test_a_chunksize_below_one_is_refused_by_those_that_make_chunks(pool: Executor) -> None:
    if isinstance(pool, ThreadPoolExecutor):
        assert list(pool.map(calls.square, [3], chunksize=0)) == [9]
        return
    for chunksize in (0, -1):
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(calls.square, [3], chunksize=chunksize)


def test_map_reads_its_iterables_at_once_and_passes_on_what_they_raise(pool: Executor) -> None:
    read: list[int] = []

    def numbers(*, fail: bool = False) -> Iterator[int]:
        for number in range(2):
            read.append(number)
            yield number
        if fail:
            raise Overheated(1.0, "argument")

    results = pool.map(calls.square, numbers())
    assert read == [0, 1]
    assert list(results) == [0, 1]
    with pytest.raises(Overheated, match="argument"):
        pool.map(calls.square, numbers(fail=True))


def test_maps_iterator_raises_an_exception_in_its_place_and_ends(pool: Executor) -> None:
    results = pool.map(functools.partial(calls.fail_at, 2), range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(Overheated, match="divertor"):
        next(results)
    assert list(results) == []


def test_a_call_that_raises_stopiteration_does_not_pass_for_the_end_of_map(pool: Executor) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(pool.map(calls.fail, [StopIteration]))


def test_maps_timeout_counts_from_the_call_and_cancels_what_has_not_started(
    make: Make, gate: Gate, until: Until
) -> None:
    executor = make(1)
    results = executor.map(gate.hold, "abcdef", timeout=0.5)
    until(lambda: gate.begun() == {"a"})
    began = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        next(results)
    assert time.monotonic() - began < 0.6
    gate.open()
    executor.shutdown()
    assert {"a"} <= gate.begun() < set("abcdef")


# -- the executor's life -----------------------------------------------------------------------------------------------


def test_max_workers_is_a_positive_number(pool: Executor, new: Make) -> None:
    assert isinstance(pool._max_workers, int)  # type: ignore[attr-defined]  # dask, joblib and tqdm read it
    assert pool._max_workers > 0  # type: ignore[attr-defined]
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            new(wrong)


def test_eight_threads_may_submit_at_once(pool: Executor) -> None:
    together = threading.Barrier(8)

    def submit(x: int) -> Future[int]:
        together.wait(PATIENCE)
        return pool.submit(calls.square, x)

    with ThreadPoolExecutor(8) as threads:
        submitted = list(threads.map(submit, range(8)))
    assert len(set(submitted)) == 8
    assert [future.result(PATIENCE) for future in submitted] == [x * x for x in range(8)]


def test_shutdown_waits_for_what_runs_and_what_waits(make: Make, gate: Gate, until: Until) -> None:
    executor = make(1)
    held = occupy(executor, gate, until)
    waiting = threading.Thread(target=executor.shutdown)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    gate.open()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert all(future.done() for future in held)
    assert [future.result() for future in held] == ["first", "next", "third", "last"]


def test_shutdown_without_wait_returns_and_the_futures_still_end(make: Make, gate: Gate, until: Until) -> None:
    executor = make(1)
    held = occupy(executor, gate, until)
    executor.shutdown(wait=False)
    assert not held[0].done()
    gate.open()
    assert [future.result(PATIENCE) for future in held] == ["first", "next", "third", "last"]


@pytest.mark.parametrize("wait", [False, True])
def test_cancel_futures_spares_what_runs(make: Make, gate: Gate, until: Until, wait: bool) -> None:
    executor = make(1)
    first, *_, last = occupy(executor, gate, until)
    ending = threading.Thread(target=functools.partial(executor.shutdown, wait=wait, cancel_futures=True))
    ending.start()
    until(last.cancelled)
    assert first.running()
    gate.open()
    ending.join(PATIENCE)
    assert not ending.is_alive()
    assert first.result(PATIENCE) == "first"
    assert "last" not in gate.begun()


@pytest.mark.parametrize("used", [False, True])
def test_after_shutdown_nothing_is_taken(make: Make, used: bool) -> None:
    executor = make(1)
    submitted = [executor.submit(calls.square, 2)] if used else []
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(calls.square, [1])
    assert [future.result(PATIENCE) for future in submitted] == [4] * used
    executor.shutdown()  # again


def test_the_end_of_a_with_block_waits(make: Make, gate: Gate, until: Until) -> None:
    with make(1) as executor:
        future = executor.submit(gate.hold, "it")
        until(gate.begun)
        opening = threading.Timer(0.1, gate.open)
        opening.start()
    assert future.done()
    assert future.result() == "it"
    opening.join()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.square, 1)


def test_a_with_block_that_raises_waits_too(make: Make, gate: Gate, until: Until) -> None:
    opening = threading.Timer(0.1, gate.open)
    with pytest.raises(Overheated), make(1) as executor:
        future = executor.submit(gate.hold, "it")
        until(gate.begun)
        opening.start()
        raise Overheated(1.0, "block")
    assert future.result(timeout=0) == "it"
    opening.join()


def test_a_forgotten_executor_ends_its_calls_and_its_threads(new: Make, gate: Gate, until: Until) -> None:
    before = set(threading.enumerate())
    executor = new(1)
    held = occupy(executor, gate, until)
    assert set(threading.enumerate()) - before
    del executor
    gc.collect()
    gate.open()
    assert [future.result(PATIENCE) for future in held] == ["first", "next", "third", "last"]
    until(lambda: set(threading.enumerate()) <= before)
