"""`starmap`, ``return_exceptions`` and `submit_many`: the relatives of `map`; and `Warm`, settings of warm workers."""

from __future__ import annotations

import concurrent.futures
import math
import os
import queue
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from prominence_executor import CallCrashedError, ProminenceExecutor, ProminenceFuture, Resources, Warm
from prominence_executor.local import LocalService


def power(base: int, exponent: int) -> int:
    return int(base**exponent)


def odd_only(number: int) -> int:
    if number == 2:
        raise LookupError("two")
    if number == 4:
        sys.exit(4)
    if number == 6:
        raise TimeoutError("the call's own")
    return number


def stops(number: int) -> int:
    raise StopIteration(number)


def finds_nothing(number: int) -> int:
    return queue.Queue[int]().get_nowait()


def crashes_at_one(number: int) -> int:
    if number == 1:
        os._exit(3)
    return number


def total(array: numpy.ndarray, factor: int) -> float:
    return float(array.sum()) * factor


def slow(number: int) -> int:
    time.sleep(number)
    return number


@pytest.fixture(scope="module", params=["jobs", "warm"])
def either(request: pytest.FixtureRequest, service: LocalService) -> Iterator[ProminenceExecutor]:
    workers = Warm(max_workers=2) if request.param == "warm" else None
    with ProminenceExecutor(service.url, service.token, workers=workers, poll_interval=(0.05, 0.5)) as executor:
        yield executor


def test_starmap_gives_each_call_the_elements_of_one_element(either: ProminenceExecutor) -> None:
    pairs = [(2, 5), (3, 2), (10, 3)]
    assert list(either.starmap(power, pairs)) == [32, 9, 1000]
    assert list(either.starmap(power, (iter(pair) for pair in pairs), chunksize=2)) == [32, 9, 1000]
    assert list(either.starmap(power, [])) == []


def test_starmap_takes_the_options_of_map(executor: ProminenceExecutor) -> None:
    taken: list[int] = []

    def pairs() -> Iterator[tuple[int, int]]:
        for number in range(1_000_000):
            taken.append(number)
            yield number, 2

    results = executor.starmap(power, pairs(), buffersize=2)
    assert taken == [0, 1]
    assert [next(results), next(results)] == [0, 1]
    assert len(taken) == 4
    results.close()
    assert list(executor.starmap(power, [(2, 2)] * 12, chunksize="auto")) == [4] * 12
    with pytest.raises(TypeError):
        executor.starmap(power, [1])  # type: ignore[list-item]


@pytest.mark.parametrize("chunksize", [1, 3])
def test_exceptions_may_come_in_the_places_of_results(either: ProminenceExecutor, chunksize: int) -> None:
    results = list(either.map(odd_only, range(1, 8), chunksize=chunksize, return_exceptions=True))
    assert results[::2] == [1, 3, 5, 7]
    assert [type(error) for error in results[1::2]] == [LookupError, SystemExit, TimeoutError]
    assert "odd_only" in str(getattr(results[1], "__cause__", None))
    unordered = either.map_unordered(odd_only, [1, 2], return_exceptions=True)
    assert {type(result) for result in unordered} == {int, LookupError}
    (stopped,) = either.starmap(stops, [(7,)], return_exceptions=True)
    assert isinstance(stopped, StopIteration)
    with pytest.raises(LookupError):
        list(either.map(odd_only, [2], return_exceptions=False))
    with pytest.raises(queue.Empty):
        next(either.map(finds_nothing, [1]))


def test_what_the_platform_did_to_a_call_is_returned_as_well(executor: ProminenceExecutor) -> None:
    first, second, third = executor.map(crashes_at_one, range(3), return_exceptions=True)
    assert (first, third) == (0, 2)
    assert isinstance(second, CallCrashedError)


def test_a_map_that_returns_exceptions_still_times_out_and_names_cancelled_calls(executor: ProminenceExecutor) -> None:
    with pytest.raises(concurrent.futures.TimeoutError):
        next(executor.map(slow, [2], timeout=0.01, return_exceptions=True))
    waiting = executor.with_options(resources=Resources(cpus=1000))
    results = waiting.map(odd_only, [1, 3], return_exceptions=True)
    for future in executor.futures():
        future.cancel()
    assert [type(result) for result in results] == [concurrent.futures.CancelledError] * 2


def test_many_calls_are_submitted_at_once_and_come_back_as_futures(either: ProminenceExecutor) -> None:
    futures = either.submit_many(power, range(7), [2] * 7, chunksize=3)
    assert all(isinstance(future, ProminenceFuture) for future in futures)
    assert [future.result() for future in futures] == [n * n for n in range(7)]
    again = either.submit_many(odd_only, (n for n in range(4)))
    assert set(concurrent.futures.as_completed(again)) == set(again)
    assert [type(future.exception()) for future in again] == [type(None), type(None), LookupError, type(None)]
    assert either.submit_many(power, [], []) == []


@pytest.mark.once
def test_many_calls_travel_together(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        futures = executor.submit_many(power, range(90), [1] * 90, chunksize=3)
        assert [future.result() for future in futures] == list(range(90))
        sent = executor.client.requests_sent
    assert sent["POST /jobs"] + sent["POST /workflows"] <= 3
    assert sent["POST /data/upload"] <= 4  # one for each array; two, if this thread was too slow for one batch


def test_what_many_calls_share_is_pickled_and_uploaded_once(service: LocalService) -> None:
    array = numpy.ones(200_000)
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        futures = executor.submit_many(total, [array] * 6, range(6), chunksize=2)
        assert [future.result() for future in futures] == [200_000.0 * n for n in range(6)]
        uploads = executor.client.requests_sent["POST /data/upload"]
        executor.purge(0)
    assert uploads <= 2  # the array, and what an array of jobs shares


def test_numbers_are_known_before_anything_is_sent_and_a_refusal_sends_nothing(executor: ProminenceExecutor) -> None:
    seen: list[int] = []

    def note(futures: object) -> None:
        assert not executor.client.requests_sent["POST /jobs"]
        seen.extend(future.index for future in futures)  # type: ignore[attr-defined]

    futures = executor.submit_many(power, [1, 2], [1, 2], before_sending=note)
    assert seen == [future.index for future in futures] == [0, 1]

    def refuse(futures: object) -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        executor.submit_many(power, [3], [3], before_sending=refuse)
    assert [future.result() for future in futures] == [1, 4]


def test_submit_many_checks_its_chunksize(executor: ProminenceExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.submit_many(power, [1], [1], chunksize=0)
    with pytest.raises(TypeError, match="chunksize"):
        executor.submit_many(power, [1], [1], chunksize=2.5)  # type: ignore[arg-type]


# -- the settings of warm workers --------------------------------------------------------------------------------------


def test_settings_of_warm_workers_say_the_same_as_the_keywords(service: LocalService) -> None:
    settings = Warm(min_workers=1, idle_timeout=60, max_attempts=5, max_requests_per_second=50)
    with (
        ProminenceExecutor(service.url, service.token, max_workers=3, workers=settings) as grouped,
        ProminenceExecutor(
            service.url,
            service.token,
            max_workers=3,
            workers="warm",
            min_workers=1,
            idle_timeout=60,
            max_attempts=5,
            max_requests_per_second=50,
        ) as keywords,
    ):
        assert grouped._run.settings == keywords._run.settings
        assert grouped._max_workers == keywords._max_workers == 3
    with ProminenceExecutor(service.url, service.token, workers=Warm(max_workers=2)) as executor:
        assert executor._max_workers == 2
        assert executor.submit(power, 2, 3).result() == 8
        executor.scale(2)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"max_workers": 0}, "greater than 0"),
        ({"min_workers": -1}, "min_workers must be 0 to"),
        ({"max_workers": 2, "min_workers": 3}, "0 to max_workers, 2"),
        ({"idle_timeout": 0}, "idle_timeout must be above 0"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"max_requests_per_second": -1}, "max_requests_per_second must be above 0"),
    ],
)
def test_settings_of_warm_workers_are_checked(given: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Warm(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint):
        ProminenceExecutor("http://127.0.0.1:9", "t", workers="warm", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"max_workers": 2.5}, {"max_workers": 2.5, "workers": "warm"}, {"max_workers": math.inf, "workers": "warm"},
        {"workers": Warm(max_workers=1.5)}, {"workers": Warm(min_workers=0.5)},  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_number_of_workers_is_whole(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="workers must be a whole number"):
        ProminenceExecutor("http://127.0.0.1:9", "t", **given)


def test_a_whole_number_of_workers_may_be_a_float() -> None:
    most: Any = 2.0
    with ProminenceExecutor("http://127.0.0.1:9", "t", workers="warm", max_workers=most) as executor:
        warm = executor._run.settings.warm
        assert warm is not None
        assert isinstance(warm.max_workers, int)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"max_workers": 3, "workers": Warm(max_workers=4)}, "given twice"),
        ({"idle_timeout": 3, "workers": Warm()}, "idle_timeout"),
        ({"max_workers": 3, "workers": Warm(min_workers=4)}, "0 to max_workers, 3"),
        ({"workers": Warm(min_workers=9)}, "0 to max_workers, 8"),
        ({"workers": "hot"}, "'warm', Warm"),
    ],
)
def test_settings_in_two_places_must_agree(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ProminenceExecutor("http://127.0.0.1:9", "t", **given)  # type: ignore[arg-type]
