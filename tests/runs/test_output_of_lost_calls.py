"""What a call has printed whose process crashed beside others: its own part alone, for its future and from outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from prominence_executor import CallCrashedError, ProminenceClient, ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.runs import read_calls, run_state


def speak(number: int) -> int:
    print(f"out {number}")
    print(f"err {number}", file=sys.stderr)
    if number in (2, 5):
        os.write(1, b"last words\n")
        os._exit(3)
    return number


@pytest.fixture
def executor(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        yield executor


def printed(client: ProminenceClient, run_id: str, calls: set[int]) -> dict[int, list[tuple[str, bytes, int | None]]]:
    found = read_calls(client, run_state(client, run_id), calls)
    return {call: [(piece.stream, piece.content, piece.call) for piece in pieces] for call, pieces in found.items()}


def test_a_warm_call_that_crashed_has_its_own_output_alone(
    executor: ProminenceExecutor, until: Callable[..., None]
) -> None:
    futures = [executor.submit(speak, number) for number in range(4)]  # each in a message of its own, or together
    assert isinstance(futures[2].exception(60), CallCrashedError)
    assert [futures[number].result(60) for number in (0, 1, 3)] == [0, 1, 3]
    for number, future in enumerate(futures):
        words = "last words\n" * (number == 2)
        assert (future.stdout(), future.stderr()) == (f"out {number}\n{words}", f"err {number}\n")
    until(lambda: 3 in printed(executor.client, executor.run_id, {3}))  # a worker reports before it prints outcomes
    found = printed(executor.client, executor.run_id, {2, 3})
    assert found[2] == [("stdout", b"out 2\nlast words\n", 2), ("stderr", b"err 2\n", 2)]
    assert found[3] == [("stdout", b"out 3\n", 3), ("stderr", b"err 3\n", 3)]


def test_so_has_one_that_crashed_in_the_middle_of_a_chunk(executor: ProminenceExecutor) -> None:
    futures = executor.submit_many(speak, range(4, 8), chunksize=4)
    after = executor.submit(speak, 8)
    assert isinstance(futures[1].exception(60), CallCrashedError)
    assert (futures[0].result(60), after.result(60)) == (4, 8)
    assert [future.stdout() for future in (*futures[:2], after)] == ["out 4\n", "out 5\nlast words\n", "out 8\n"]
    assert [future.stderr() for future in (*futures[:2], after)] == ["err 4\n", "err 5\n", "err 8\n"]
    assert printed(executor.client, executor.run_id, {1})[1][0] == ("stdout", b"out 5\nlast words\n", 1)


def test_a_call_that_crashed_in_a_job_with_others_has_its_own_output_alone(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        futures = executor.submit_many(speak, range(1, 4), chunksize=3)
        assert isinstance(futures[1].exception(60), CallCrashedError)
        assert [future.stdout() for future in futures[:2]] == ["out 1\n", "out 2\nlast words\n"]
