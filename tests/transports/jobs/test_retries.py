"""Retries, initializers, and calls that are taken out of a chunk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import (
    CallCrashedError,
    InitializerError,
    JobDeletedError,
    ProminenceExecutor,
    ProminenceFuture,
    RemotePicklingError,
)
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
Make = Callable[..., ProminenceExecutor]

state: dict[str, Any] = {}


def mark(path: str) -> None:
    """One line in a file for each time that this ran."""
    with open(path, "a") as file:
        file.write("x")


def crashes_first(path: str, number: int, last: int = 1) -> int:
    """Ends its process as long as the file has not grown, if it is call 2."""
    if number == 2:
        mark(path)
        if os.path.getsize(path) <= last:
            os._exit(3)
    return number * 10


def job_dies_first(path: str) -> str:
    """Takes the whole job down, so that it leaves nothing."""
    mark(path)
    if os.path.getsize(path) == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def raises(path: str) -> None:
    mark(path)
    raise ArithmeticError("on purpose")


def set_up(path: str, value: int) -> None:
    mark(path)
    state["value"] = value


def use(number: int) -> tuple[int, int]:
    return state["value"], number


def cannot() -> None:
    raise ConnectionError("no licence server")


def waits_for(path: str) -> bool:
    while not Path(path).exists():
        time.sleep(0.02)
    return True


def in_one_job(executor: ProminenceExecutor, fn: Callable[..., Any], *calls: tuple[Any, ...]) -> list[ProminenceFuture]:  # type: ignore[type-arg]
    return executor._submit(executor._function(fn), [(call, {}) for call in calls])


@pytest.fixture
def make(service: LocalService) -> Iterator[Make]:
    made: list[ProminenceExecutor] = []

    def executor(**options: Any) -> ProminenceExecutor:
        made.append(ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options))
        return made[-1]

    yield executor
    for each in made:
        each.shutdown(cancel_futures=True)


def test_a_job_that_left_nothing_is_sent_again_and_counted(make: Make, tmp_path: Path) -> None:
    future = make(retries=1).submit(job_dies_first, str(tmp_path / "runs"))
    assert future.result(30) == "done"
    assert future.attempts == 2


def test_without_retries_the_first_job_counts(make: Make, tmp_path: Path) -> None:
    future = make().submit(job_dies_first, str(tmp_path / "runs"))
    assert future.exception(30) is not None
    assert future.attempts == 1
    assert (tmp_path / "runs").read_text() == "x"


def test_a_call_that_raised_is_never_repeated(make: Make, tmp_path: Path) -> None:
    future = make(retries=3).submit(raises, str(tmp_path / "runs"))
    assert isinstance(future.exception(30), ArithmeticError)
    assert future.attempts == 1
    assert (tmp_path / "runs").read_text() == "x"


def test_the_call_that_ended_a_chunk_goes_alone_and_costs_no_other(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    futures = in_one_job(make(retries=1), crashes_first, *[(path, number, 99) for number in range(5)])
    error = futures[2].exception(30)
    assert isinstance(error, CallCrashedError)
    assert [future.result(30) for future in futures if future is not futures[2]] == [0, 10, 30, 40]
    assert [future.attempts for future in futures] == [1, 1, 2, 2, 2]
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_deleted_job_is_sent_again_but_a_terminated_one_is_not(make: Make, tmp_path: Path, until: Until) -> None:
    executor, gate = make(retries=1), tmp_path / "gate"
    deleted, terminated = executor.submit(waits_for, str(gate)), executor.submit(waits_for, str(gate))
    until(lambda: deleted.running() and terminated.running())
    job_id = deleted.job_id
    assert job_id is not None
    assert terminated.terminate()
    executor.client.delete_job(job_id)
    until(lambda: deleted.attempts == 2 and terminated.done())
    gate.touch()
    assert deleted.result(30)
    with pytest.raises(JobDeletedError, match="terminate"):
        terminated.result(30)
    assert terminated.attempts == 1


def test_retries_can_be_chosen_for_some_calls_and_are_checked(make: Make, tmp_path: Path) -> None:
    executor = make()
    assert executor.with_options(retries=2).submit(job_dies_first, str(tmp_path / "runs")).result(30) == "done"
    for wrong in (-1, 1.5):
        with pytest.raises(ValueError, match="retries"):
            executor.with_options(retries=wrong)  # type: ignore[arg-type]


def test_an_initializer_runs_once_in_each_job_and_shares_its_globals(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    executor = make(initializer=set_up, initargs=(str(path), 7))
    assert list(executor.map(use, range(5), chunksize=3)) == [(7, number) for number in range(5)]
    assert path.read_text() == "xx"


def test_an_initializer_that_raises_breaks_the_futures_of_its_job(make: Make) -> None:
    executor = make(initializer=cannot, retries=2)
    for future in in_one_job(executor, use, (1,), (2,)):
        with pytest.raises(BrokenExecutor, match="no licence server") as caught:
            future.result(30)
        assert isinstance(caught.value, InitializerError)
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert "cannot" in str(caught.value.__cause__.__cause__)  # the remote traceback
        assert future.attempts == 1


def test_an_initializer_is_checked(make: Make) -> None:
    with pytest.raises(TypeError, match="callable"):
        make(initializer=5)
    future = make(initializer=(lambda lock: None), initargs=(iter([1]),)).submit(use, 1)
    assert not isinstance(future.exception(30), RemotePicklingError)


def test_a_cancelled_call_of_a_chunk_not_yet_sent_is_taken_out(make: Make, tmp_path: Path, until: Until) -> None:
    executor, gate = make(max_workers=1), tmp_path / "gate"
    blocking = executor.submit(waits_for, str(gate))
    until(blocking.running)
    paths = [tmp_path / str(number) for number in range(4)]
    futures = in_one_job(executor, mark, *[(str(path),) for path in paths])
    assert futures[1].cancel()
    assert futures[3].cancel()
    gate.touch()
    assert [future.cancelled() or future.result(30) for future in futures] == [None, True, None, True]
    assert [path.exists() for path in paths] == [True, False, True, False]
