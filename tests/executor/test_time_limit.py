"""A call that takes longer than its time limit is ended with all that it has started; all others go on."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import JobError, ProminenceExecutor, ProminenceFuture, Resources, Retry, TimeLimitExceededError
from prominence_executor.local import LocalService
from prominence_executor.run.plain_options import options_from, plain_options

pytestmark = pytest.mark.once

Until = Callable[..., None]
LIMIT = 1.0  # seconds that calls have which are to take longer
state: dict[str, int] = {}


def set_up(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    state["process"] = os.getpid()


def hang_at(bad: int, number: int) -> tuple[int, bool]:
    print("number", number)
    if number == bad:
        print("it hangs", file=sys.stderr)
        time.sleep(600)
    return number, state.get("process") == os.getpid()


def hang_with_children(path: str) -> None:
    """Ignores every signal that can be ignored; so do its children, of which two leave its group, and one loses it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    pids = []
    for new_session in (False, True):
        sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        pids.append(subprocess.Popen(sleeper, start_new_session=new_session).pid)
    orphan = "import os, time; os.setsid(); print(os.getpid(), flush=True); os.close(1); time.sleep(600)"
    command = f"{sys.executable} -S -c '{orphan}' &"
    lost = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True)
    pids.append(int(lost.stdout))
    Path(path).write_text(json.dumps([os.getpid(), *pids]))
    while True:
        time.sleep(600)


def slow_to_load(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class SlowArgument:
    """Takes its time to be unpickled, and, as a result, to be pickled."""

    def __reduce__(self) -> Any:
        if state.get("slow"):
            time.sleep(1.2 * LIMIT)
        return slow_to_load, (1.2 * LIMIT,)


def slow_around(argument: object) -> Any:
    state["slow"] = 1
    return SlowArgument()


def raises_time_out() -> None:
    raise TimeoutError("the call's own")


def writes(name: str) -> None:
    Path(name).write_text("so far")
    time.sleep(600)


def hang_until(path: str) -> str:
    with open(path, "a") as file:
        file.write("x")
    if len(Path(path).read_text()) < 2:
        time.sleep(600)
    return "done"


def in_one_job(executor: ProminenceExecutor, fn: Callable[..., Any], *calls: Any) -> list[ProminenceFuture[Any]]:
    return executor.submit_many(fn, calls, chunksize=len(calls))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


@pytest.fixture(params=[None, "warm"], ids=["jobs", "warm"])
def make(request: pytest.FixtureRequest, service: LocalService) -> Iterator[Callable[..., ProminenceExecutor]]:
    made: list[ProminenceExecutor] = []

    def executor(**options: Any) -> ProminenceExecutor:
        most = {"max_workers": 1} if request.param else {}
        options = {"poll_interval": (0.05, 0.5), "workers": request.param, **most, **options}
        made.append(ProminenceExecutor(service.url, service.token, **options))
        return made[-1]

    yield executor
    for each in made:
        each.shutdown(cancel_futures=True)


Make = Callable[..., ProminenceExecutor]


def test_a_call_that_hangs_is_ended_and_says_what_it_was_and_printed(make: Make) -> None:
    executor = make()
    future = executor.with_options(time_limit=LIMIT).submit(partial(hang_at, 7), 7)
    error = future.exception(30)
    assert isinstance(error, TimeLimitExceededError)
    assert isinstance(error, JobError)
    assert not isinstance(error, TimeoutError)
    assert f"call {future.index} of the run, " in str(error)
    assert "test_time_limit.hang_at, was ended at its time limit of 1 s" in str(error)
    assert (error.limit, error.job_id, error.stdout, error.stderr) == (LIMIT, future.job_id, "number 7\n", "it hangs\n")
    assert "number 7" in str(error)
    assert future.stdout() == "number 7\n"
    (attempt,) = future.history
    assert attempt.end == "TimeLimitExceededError"
    assert attempt.seconds is not None
    assert attempt.seconds >= LIMIT
    assert executor.submit(pow, 2, 3).result(30) == 8


def test_the_other_calls_of_its_chunk_go_on_in_a_new_process(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "initialized"
    executor = make(initializer=set_up, initargs=(str(path),), time_limit=LIMIT)
    futures = in_one_job(executor, partial(hang_at, 2), 0, 1, 2, 3, 4)
    for number, future in enumerate(futures):
        if number != 2:
            assert future.result(30) == (number, True)
            assert future.stdout() == f"number {number}\n"
    error = futures[2].exception(30)
    assert isinstance(error, TimeLimitExceededError)
    assert error.stdout == "number 2\n"
    assert path.read_text() == "xx"
    assert len({future.job_id for future in futures}) == 1
    assert [future.attempts for future in futures] == [1] * 5


def test_several_calls_of_a_chunk_and_the_last_one_may_hang(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "initialized"
    executor = make(initializer=set_up, initargs=(str(path),), time_limit=LIMIT)
    futures = executor.submit_many(hang_at, [0, 9, 2], [0, 1, 2], chunksize=3)
    assert [type(future.exception(30)) for future in futures] == [
        TimeLimitExceededError,
        type(None),
        TimeLimitExceededError,
    ]
    assert path.read_text() == "xx"  # nothing is left for a third process


@pytest.mark.slow
def test_what_it_has_started_is_ended_wherever_it_went(make: Make, tmp_path: Path, until: Until) -> None:
    path = tmp_path / "pids"
    future = make(time_limit=5.0).submit(hang_with_children, str(path))
    assert isinstance(future.exception(30), TimeLimitExceededError)
    pids = json.loads(path.read_text())
    assert len(pids) == 4
    until(lambda: not any(map(is_alive, pids)))


def test_loading_the_arguments_and_storing_the_result_do_not_count(make: Make) -> None:
    future = make(time_limit=LIMIT).submit(slow_around, SlowArgument())
    assert future.result(30) == 1.2 * LIMIT


def test_a_call_that_keeps_within_its_limit_has_its_result_or_its_own_exception(make: Make) -> None:
    executor = make(time_limit=60)
    assert executor.submit(pow, 2, 3).result(30) == 8
    with pytest.raises(TimeoutError, match="the call's own"):
        executor.submit(raises_time_out).result(30)
    assert list(executor.map(abs, range(-3, 3), chunksize=3)) == [3, 2, 1, 0, 1, 2]


def test_a_limit_is_no_reason_for_another_attempt_unless_it_is_named(make: Make, tmp_path: Path) -> None:
    plain, learns = tmp_path / "plain", tmp_path / "learns"
    executor = make(time_limit=LIMIT)
    futures = [
        executor.with_options(retries=2).submit(hang_until, str(plain)),
        executor.with_options(retries=Retry(retry_on=TimeLimitExceededError)).submit(hang_until, str(learns)),
    ]
    assert isinstance(futures[0].exception(30), TimeLimitExceededError)
    assert futures[1].result(30) == "done"
    assert (plain.read_text(), learns.read_text()) == ("x", "xx")
    assert [attempt.end for attempt in futures[1].history] == ["TimeLimitExceededError", "result"]


def test_it_has_the_files_that_it_wrote_until_then(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, outputs=["*.txt"], time_limit=LIMIT) as executor:
        futures = in_one_job(executor, writes, "a.txt", "b.txt")
        for future, name in zip(futures, ("a.txt", "b.txt"), strict=True):
            assert isinstance(future.exception(30), TimeLimitExceededError)
            assert {key: path.read_text() for key, path in future.files.items()} == {name: "so far"}


@pytest.mark.slow
def test_calls_of_an_array_have_their_limit(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, time_limit=LIMIT, poll_interval=(0.05, 0.5)) as executor:
        futures = executor.submit_many(partial(hang_at, 5), range(22))
        ends = [type(future.exception(60)).__name__ for future in futures]
    assert ends == ["NoneType"] * 5 + ["TimeLimitExceededError"] + ["NoneType"] * 16


def test_an_attached_program_learns_of_it(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, time_limit=LIMIT) as executor:
        wait_for = executor.submit(partial(hang_at, 1), 1).exception(30)
        assert isinstance(wait_for, TimeLimitExceededError)
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as again:
        (found,) = again.futures()
        error = found.exception(30)
        assert isinstance(error, TimeLimitExceededError)
        assert (error.limit, error.stdout, str(error)) == (LIMIT, "number 1\n", str(wait_for))


def test_the_journal_keeps_the_limit(service: LocalService, tmp_path: Path) -> None:
    journal, nobody = tmp_path / "journal", "http://127.0.0.1:9/prominence/v1"
    executor = ProminenceExecutor(nobody, service.token, journal=journal, on_interrupt="leave", time_limit=LIMIT)
    executor.submit(partial(hang_at, 3), 3)
    executor._run.interrupt()  # as Ctrl-C in the with block does
    executor.shutdown()
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, journal=journal) as again:
        assert isinstance(again.futures()[0].exception(30), TimeLimitExceededError)


def test_limits_are_checked_and_not_for_mpi(executor: ProminenceExecutor) -> None:
    for wrong in (0, -1, math.nan, True, "1"):
        with pytest.raises(ValueError, match="time_limit"):
            executor.with_options(time_limit=wrong)  # type: ignore[arg-type]
    limited = executor.with_options(time_limit=5)
    with pytest.raises(ValueError, match="time_limit: calls of task_type 'openmpi'.*walltime"):
        limited.with_options(task_type="openmpi")
    free = limited.with_options(time_limit=math.inf)
    assert free._options == executor._options
    assert free.with_options(task_type="openmpi", resources=Resources(nodes=2))._options.time_limit is None
    assert options_from(plain_options(limited._options)) == limited._options
    assert "time_limit" not in plain_options(free._options)


def test_the_error_is_pickled_whole() -> None:
    error = TimeLimitExceededError("too long", job_id=3, stderr="e")
    error.limit, error.stdout, error.advice = 2.5, "o", "less"
    again = pickle.loads(pickle.dumps(error))
    assert (again.limit, again.stdout, again.advice, str(again)) == (2.5, "o", "less", str(error))
