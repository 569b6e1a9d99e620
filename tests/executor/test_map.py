"""`map` and `map_unordered`: buffers, what becomes of calls that nobody waits for, and what is kept in memory."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.executor.results import Results
from prominence_executor.local import LocalService
from prominence_executor.run.future import ProminenceFuture

Until = Callable[..., None]


class Marked:
    """Something that can be referred to weakly."""

    def __init__(self, number: int) -> None:
        self.number = number


def square(number: int) -> int:
    return number * number


def sleepy(number: int) -> int:
    time.sleep(2.5 if number == 0 else 0)
    return number


def waits_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.02)
    return path


def fails_at_two(number: int) -> int:
    if number == 2:
        raise LookupError("two")
    return number


def active_jobs(executor: ProminenceExecutor) -> int:
    return len(executor.client.list_jobs(constraint=("pxrun", executor.run_id)))


@pytest.fixture
def one_slot(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, max_workers=1, poll_interval=(0.05, 0.5)) as executor:
        yield executor


def test_a_buffer_makes_an_endless_generator_possible(executor: ProminenceExecutor) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = executor.map(square, numbers(), buffersize=3)
    assert taken == [0, 1, 2]
    assert next(results) == 0
    assert taken == [0, 1, 2, 3]
    assert [next(results) for _ in range(3)] == [1, 4, 9]
    assert len(taken) == 7
    results.close()
    assert list(results) == []


def test_a_buffer_counts_chunks(executor: ProminenceExecutor) -> None:
    numbers = iter(range(100))
    results = executor.map(square, numbers, chunksize=4, buffersize=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert next(numbers) == 8
    assert next(results) == 9  # the first chunk is handed out, the third submitted
    assert next(numbers) == 13
    results.close()


def test_a_buffer_larger_than_the_iterable_is_no_problem(executor: ProminenceExecutor) -> None:
    assert list(executor.map(square, range(3), buffersize=50)) == [0, 1, 4]
    assert list(executor.map(square, [], buffersize=1)) == []
    assert list(executor.map(square, buffersize=1)) == []


def test_a_chunksize_is_an_integer_of_whatever_kind(executor: ProminenceExecutor) -> None:
    for wrong in (1.5, 2.0, None):
        with pytest.raises(TypeError, match=f"chunksize must be an integer, not {wrong}"):
            executor.map(square, [1], chunksize=wrong)  # type: ignore[call-overload]
    assert list(executor.map(square, [2, 3], chunksize=numpy.int64(2))) == [4, 9]


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_the_arguments_are_checked_at_once(name: str, executor: ProminenceExecutor) -> None:
    call = getattr(executor, name)
    for wrong in ({"chunksize": 0}, {"chunksize": -3}, {"buffersize": 0}, {"buffersize": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            call(square, [1], **wrong)
    with pytest.raises(TypeError, match="buffersize"):
        call(square, [1], buffersize=1.5)


def test_unordered_results_come_as_they_are_there(executor: ProminenceExecutor) -> None:
    results = executor.map_unordered(sleepy, range(4), buffersize=4)
    assert sorted(got := list(results)) == [0, 1, 2, 3]
    assert got[-1] == 0


def test_an_unordered_map_times_out_and_raises_what_a_call_raised(executor: ProminenceExecutor) -> None:
    results = executor.map_unordered(fails_at_two, [2])
    with pytest.raises(LookupError, match="two"):
        next(results)
    assert list(results) == []
    with pytest.raises(concurrent.futures.TimeoutError):
        next(executor.map_unordered(sleepy, [0], timeout=0.01))


def test_closing_cancels_what_has_not_started(one_slot: ProminenceExecutor, tmp_path: Path, until: Until) -> None:
    gates = [str(tmp_path / str(number)) for number in range(4)]
    results = one_slot.map(waits_for, gates)
    until(lambda: active_jobs(one_slot) == 1)
    until(lambda: any(future.running() for future in one_slot.futures()))
    results.close()
    assert [future.cancelled() for future in one_slot.futures()] == [False]  # the one that runs
    Path(gates[0]).touch()
    one_slot.shutdown()
    assert not Path(gates[1]).exists()


def test_losing_a_begun_iterator_cancels_and_losing_an_untouched_one_does_not(
    one_slot: ProminenceExecutor, tmp_path: Path
) -> None:
    touched = [tmp_path / f"a{number}" for number in range(3)]
    one_slot.map(Path.touch, touched)
    gate = tmp_path / "gate"
    results = one_slot.map(waits_for, [str(tmp_path), *[str(gate)] * 3])
    assert next(results) == str(tmp_path)
    del results
    gc.collect()
    gate.touch()  # at most the one that is already running needs it
    one_slot.shutdown()
    assert all(path.exists() for path in touched)
    assert one_slot.client.requests_sent["POST /jobs"] <= 5


def test_an_exception_from_a_map_cancels_the_rest(one_slot: ProminenceExecutor) -> None:
    results = one_slot.map(fails_at_two, [0, 1, 2, *range(3, 40)])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(LookupError):
        next(results)
    assert list(results) == []
    one_slot.shutdown()
    assert one_slot.client.requests_sent["POST /jobs"] < 10


@pytest.mark.parametrize("name", ["map", "map_unordered"])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_no_reference_is_kept_to_a_result_that_was_handed_out(
    name: str, chunksize: int, executor: ProminenceExecutor, until: Until
) -> None:
    results = getattr(executor, name)(Marked, range(6), chunksize=chunksize)
    for _ in range(6):
        result = next(results)
        gone = weakref.ref(result)
        del result
        until(lambda gone=gone: gone() is None, 3)


def test_a_future_of_a_chunk_does_not_keep_the_results_of_the_others(
    executor: ProminenceExecutor, until: Until
) -> None:
    results = executor.map(Marked, range(3), chunksize=3)
    first, second, third = results._outstanding
    gone = weakref.ref(first.result())
    assert second.result().number == 1
    results.close()
    del first
    until(lambda: gone() is None, 3)
    assert third.result().number == 2


def test_the_buffer_stops_with_the_executor(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        results = executor.map(square, itertools.count(), buffersize=2)
    with pytest.raises(RuntimeError, match="shutdown"):
        next(results)


@pytest.mark.parametrize("leaves", [True, False])
def test_interrupted_in_its_wait_it_leaves_or_cancels_what_it_waits_for(leaves: bool) -> None:
    futures: list[ProminenceFuture[int]] = [ProminenceFuture(number) for number in range(3)]
    chunks = iter([futures[:1], futures[1:]])
    results = Results(lambda: next(chunks, []), ordered=True, buffersize=2, timeout=None, leaves=leaves)
    main = threading.main_thread().ident or 0
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    del results
    assert [future.cancelled() for future in futures] == [not leaves] * 3
