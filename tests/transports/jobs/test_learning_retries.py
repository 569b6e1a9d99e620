"""Retries that learn: what the next attempt asks for, after what, how soon; and what is known of the attempts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import (
    Attempt,
    CallCrashedError,
    JobDeletedError,
    JobFailedError,
    OutOfMemoryError,
    ProminenceExecutor,
    ProminenceFuture,
    Resources,
    Retry,
    TimeLimitExceededError,
    WalltimeExceededError,
)
from prominence_executor.run.advice import advice
from prominence_executor.run.options import Options
from prominence_executor.run.plain_options import options_from, plain_options
from prominence_executor.run.retry import Again, groups, resources_after
from prominence_executor.service import LocalService, Platform

pytestmark = pytest.mark.once

Until = Callable[..., None]
Make = Callable[..., ProminenceExecutor]
LARGE = 1_500_000_000  # bytes: more than a job of 1 GB may use, less than one of 2


class NoLicence(Exception):
    pass


class NoLicenceToday(NoLicence):
    pass


def mark(path: str) -> int:
    """Return how often this ran."""
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def use_memory(size: int) -> int:
    """Takes the memory, and keeps it until the service has had the time to see that."""
    content = b"x" * size
    time.sleep(1.5)
    return len(content)


def use_memory_if(bad: int, number: int) -> int:
    return use_memory(LARGE) if number == bad else number


def killed_until(path: str, last: int) -> int:
    """Ends as the kernel ends a process that takes too much."""
    ran = mark(path)
    if ran <= last:
        os.kill(os.getpid(), signal.SIGKILL)
    return ran


def killed_at(bad: int, number: int) -> int:
    if number == bad and os.environ["PROMINENCE_MEMORY"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(os.environ["PROMINENCE_MEMORY"])


def raises_until(path: str, last: int, kind: type[BaseException] = NoLicenceToday) -> int:
    ran = mark(path)
    if ran <= last:
        raise kind(ran)
    return ran


def raises_once_if_odd(folder: str, number: int) -> int:
    if mark(f"{folder}/{number}") == 1 and number % 2:
        raise NoLicence(number)
    return number


def takes_long_once(path: str) -> int:
    ran = mark(path)
    time.sleep(600 if ran == 1 else 0)
    return ran


@pytest.fixture
def make(service: LocalService) -> Iterator[Make]:
    made: list[ProminenceExecutor] = []

    def executor(**options: Any) -> ProminenceExecutor:
        made.append(ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options))
        return made[-1]

    yield executor
    for each in made:
        each.shutdown(cancel_futures=True)


def asked(future: ProminenceFuture[Any]) -> list[int]:
    return [attempt.resources.json()["memory"] for attempt in future.history]


def ends(future: ProminenceFuture[Any]) -> list[str]:
    return [attempt.end for attempt in future.history]


# -- decisions ---------------------------------------------------------------------------------------------------------


def test_a_retry_is_checked() -> None:
    assert Retry() == Retry(3, 2.0, None, 1.5, None, (), 0.0, 2.0)
    wrong: list[dict[str, Any]] = [
        {"max_retries": -1}, {"max_retries": 1.5}, {"max_retries": True}, {"memory_factor": 0.5},
        {"walltime_factor": float("nan")}, {"backoff": 0}, {"max_memory": 0}, {"max_walltime": 1.5}, {"delay": -1},
        {"delay": float("inf")}, {"retry_on": "OSError"}, {"retry_on": (OSError, 5)}, {"retry_on": int},
    ]  # fmt: skip
    for values in wrong:
        with pytest.raises(ValueError, match=f"Retry: {next(iter(values))} must be"):
            Retry(**values)
    for value in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="retries must be 0 or more, or a Retry"):
            Options().changed(retries=value)
    assert [Retry(delay=2).pause(attempt) for attempt in (1, 2, 3)] == [2, 4, 8]
    assert [Retry(backoff=backoff).pause(5000) for backoff in (1, 2, 2.5)] == [0, 0, 0]


def test_after_out_of_memory_more_memory_is_asked_for_and_after_walltime_more_time() -> None:
    retry, one = Retry(max_memory=6, max_walltime=100), Resources(memory=1, walltime=45)

    def after(error: BaseException, resources: Resources = one, *, retries: int | Retry = retry) -> Resources | None:
        return resources_after(retries, resources, error, is_culprit=True)

    assert after(OutOfMemoryError()) == Resources(memory=2, walltime=45)
    assert after(OutOfMemoryError(), Resources(memory=4)) == Resources(memory=6)
    assert after(OutOfMemoryError(), Resources(memory=6)) is None
    assert after(OutOfMemoryError(), Resources(memory=3), retries=Retry(memory_factor=1.5)) == Resources(memory=5)
    assert after(OutOfMemoryError(), Resources(memory=9), retries=Retry(memory_factor=1.01)) == Resources(memory=10)
    assert after(OutOfMemoryError(), Resources(memory=6), retries=Retry(6, 1)) == Resources(memory=6)
    assert after(OutOfMemoryError(), Resources(memory=1_000_000), retries=Retry(memory_factor=1e300)) is None
    each = Resources(cpus=2, memory_per_cpu=2)
    assert after(OutOfMemoryError(), each) == Resources(cpus=2, memory_per_cpu=3)
    assert after(WalltimeExceededError()) == Resources(memory=1, walltime=68)
    assert after(WalltimeExceededError(), Resources(walltime=90)) == Resources(walltime=100)
    assert after(WalltimeExceededError(), Resources(walltime=100)) is None
    assert after(JobFailedError()) == one
    assert resources_after(retry, one, OutOfMemoryError(), is_culprit=False) == one
    for error in (OutOfMemoryError(), WalltimeExceededError(), JobDeletedError()):
        assert after(error, retries=1) == one


def test_what_a_call_raises_is_a_reason_only_if_it_is_named() -> None:
    one = Resources(memory=1)

    def after(error: BaseException, *kinds: type[BaseException]) -> Resources | None:
        return resources_after(Retry(retry_on=kinds), one, error, is_culprit=True)

    assert after(NoLicence()) is None
    assert after(NoLicenceToday(), KeyError, NoLicence) == one
    assert after(SystemExit(1), SystemExit) == one
    assert after(MemoryError()) is None
    assert after(MemoryError(), MemoryError) == Resources(memory=2)
    assert after(TimeLimitExceededError()) is None
    assert after(TimeLimitExceededError(), TimeLimitExceededError) == one


def test_calls_that_follow_one_another_and_ask_for_the_same_go_together() -> None:
    one, two = Resources(memory=1), Resources(memory=2)

    def grouped(after: dict[int, Resources], alone: int | None = None, cancelled: int = -1) -> list[list[int]]:
        found = groups(after, alone=alone, cancelled=lambda position: position == cancelled, delay=1.5)
        assert all(isinstance(group, Again) and group.delay == 1.5 for group in found)
        return [group.positions for group in found]

    assert grouped({}) == []
    assert grouped(dict.fromkeys(range(4), one)) == [[0, 1, 2, 3]]
    assert grouped(dict.fromkeys(range(4), one), alone=1) == [[0], [1], [2, 3]]
    assert grouped({0: one, 1: two, 2: two}) == [[0], [1, 2]]
    assert grouped({0: one, 2: one, 3: one}) == [[0], [2, 3]]
    assert grouped({0: one, 2: one}, cancelled=1) == [[0, 2]]


def test_the_advice_says_what_was_asked_for_and_used_and_what_to_change() -> None:
    job = {"execution": {"tasks": [{"maxResidentSetSizeKB": 1_473_720, "wallTimeUsage": 59.8}]}}
    said = advice(OutOfMemoryError(), Resources(memory=1), 0, 1, job)
    assert said == (
        "It had asked for memory=1 (GB); as far as the service tells, 1.5 GB were in use at once. Ask for more, "
        "resources=Resources(memory=2), or let further attempts do so, retries=Retry()."
    )
    said = advice(OutOfMemoryError(), Resources(memory=4), Retry(max_memory=4), 3, None)
    assert said == (
        "It had asked for memory=4 (GB), in attempt 3. Its Retry allows no more: raise max_memory, or let the call "
        "need less."
    )
    said = advice(WalltimeExceededError(), Resources(walltime=1), Retry(max_retries=1), 2, job)
    assert "walltime=1 (minute), in attempt 2; as far as the service tells, its task took 1.0 minutes" in said
    assert "Resources(walltime=2), or raise max_retries" in said
    assert advice(CallCrashedError(), Resources(), 0, 1, job) == ""
    strange = {"execution": {"tasks": [{"maxResidentSetSizeKB": "much", "wallTimeUsage": "long"}]}}
    assert "as far as the service tells" not in advice(OutOfMemoryError(), Resources(), 0, 1, strange)
    assert "as far as the service tells" not in advice(WalltimeExceededError(), Resources(), 0, 1, strange)


def test_a_journal_keeps_a_retry_and_names_what_this_program_does_not_have(caplog: pytest.LogCaptureFixture) -> None:
    retry = Retry(5, 1.5, 64, 2.0, 600, (NoLicence, OSError), 1.5, 3.0)
    options = Options().changed(retries=retry)
    assert options_from(plain_options(options)) == options
    assert options_from(plain_options(Options().changed(retries=2))).retries == 2
    plain = plain_options(options)
    plain["retries"]["retry_on"] += ["no_such_module:Error", "os:path", f"{__name__}:No.Such"]  # type: ignore[index]
    assert options_from(plain) == options
    for name in ("no_such_module:Error", "os:path", "No.Such"):
        assert name in caplog.text


# -- attempts ----------------------------------------------------------------------------------------------------------


def has_memory(gigabytes: float) -> bool:
    try:
        found = next(
            line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration):
        return False
    return int(found.split()[1]) * 1024 > gigabytes * 1e9


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, "warm"])
@pytest.mark.skipif(not has_memory(3), reason="the machine has no 3 GB to spare")
def test_a_call_that_was_killed_for_its_memory_has_twice_as_much_the_next_time(workers: Any) -> None:
    with (
        LocalService(cpus=2, memory=8, platform=Platform(memory_enforced=True)) as service,
        ProminenceExecutor(
            service.url, service.token, poll_interval=(0.05, 0.5), workers=workers, resources=Resources(memory=1)
        ) as executor,
    ):
        future = executor.with_options(retries=Retry(max_retries=2)).submit(use_memory, LARGE)
        assert future.result(100) == LARGE
        assert future.attempts == 2
        first, second = future.history
        assert (first.resources.memory, second.resources.memory) == (1, 2)
        assert (first.end, second.end) == ("OutOfMemoryError", "result")
        assert isinstance(first.error, OutOfMemoryError)
        assert first.job_id != second.job_id == future.job_id
        assert second.seconds is not None
        assert second.seconds > 1.5
        if workers is None:
            bounded = executor.with_options(retries=Retry(max_memory=1)).submit(use_memory, LARGE)
            error = bounded.exception(100)
            assert isinstance(error, OutOfMemoryError)
            assert bounded.attempts == 1
            assert "It had asked for memory=1 (GB)" in str(error)
            assert "raise max_memory" in str(error)


@pytest.mark.parametrize("workers", [None, "warm"])
def test_memory_doubles_up_to_the_bound_and_the_error_advises(make: Make, tmp_path: Path, workers: Any) -> None:
    executor = make(retries=Retry(max_retries=5, max_memory=3), resources=Resources(memory=1), workers=workers)
    learns, fails = tmp_path / "learns", tmp_path / "fails"
    good, bad = executor.submit(killed_until, str(learns), 2), executor.submit(killed_until, str(fails), 99)
    assert good.result(60) == 3
    assert asked(good) == [1, 2, 3]
    assert ends(good) == ["OutOfMemoryError", "OutOfMemoryError", "result"]
    error = bad.exception(60)
    assert isinstance(error, OutOfMemoryError)
    assert asked(bad) == [1, 2, 3]
    assert bad.attempts == 3
    assert "asked for memory=3 (GB), in attempt 3" in error.advice
    assert "raise max_memory" in str(error)
    assert bad.history[-1] == Attempt(
        bad.job_id, Resources(memory=3), bad.history[-1].seconds, "OutOfMemoryError", error
    )


def test_an_int_repeats_with_the_same_and_the_error_says_what_would_help(make: Make, tmp_path: Path) -> None:
    future = make(retries=1, resources=Resources(memory=1)).submit(killed_until, str(tmp_path / "runs"), 9)
    error = future.exception(60)
    assert asked(future) == [1, 1]
    assert future.attempts == 2
    assert isinstance(error, OutOfMemoryError)
    assert "asked for memory=1 (GB), in attempt 2" in str(error)
    assert "retries=Retry()" in str(error)


def test_of_a_chunk_the_call_that_was_killed_alone_asks_for_more(make: Make) -> None:
    executor = make(retries=Retry(), resources=Resources(memory=1))
    futures = executor.submit_many(killed_at, [2] * 5, range(5), chunksize=5)
    assert [future.result(60) for future in futures] == [1, 1, 2, 1, 1]
    assert [future.attempts for future in futures] == [1, 1, 2, 2, 2]
    assert futures[3].job_id == futures[4].job_id != futures[2].job_id


@pytest.mark.parametrize("workers", [None, "warm"])
def test_what_is_named_is_repeated_and_other_exceptions_are_not(make: Make, tmp_path: Path, workers: Any) -> None:
    executor = make(retries=Retry(max_retries=2, retry_on=(NoLicence, SystemExit)), workers=workers)
    paths = [str(tmp_path / name) for name in "abcd"]
    named = executor.submit(raises_until, paths[0], 1)
    leaves = executor.submit(raises_until, paths[1], 1, SystemExit)
    other = executor.submit(raises_until, paths[2], 1, KeyError)
    always = executor.submit(raises_until, paths[3], 9)
    assert (named.result(60), leaves.result(60)) == (2, 2)
    assert ends(named) == ["NoLicenceToday", "result"]
    assert isinstance(named.history[0].error, NoLicenceToday)
    assert "raises_until" in str(named.history[0].error.__cause__)
    assert isinstance(other.exception(60), KeyError)
    assert other.attempts == 1
    error = always.exception(60)
    assert isinstance(error, NoLicenceToday)
    assert error.args == (3,)
    assert [len(Path(path).read_text()) for path in paths] == [2, 2, 1, 3]


@pytest.mark.parametrize("workers", [None, "warm"])
def test_of_a_chunk_only_the_calls_that_raised_go_again(make: Make, tmp_path: Path, workers: Any) -> None:
    executor = make(retries=Retry(retry_on=NoLicence), workers=workers)
    futures = executor.submit_many(raises_once_if_odd, [str(tmp_path)] * 6, range(6), chunksize=6)
    assert [future.result(60) for future in futures] == list(range(6))
    assert [future.attempts for future in futures] == [1, 2] * 3
    assert [len((tmp_path / str(number)).read_text()) for number in range(6)] == [1, 2] * 3


@pytest.mark.slow
def test_after_its_walltime_a_call_has_more_time(tmp_path: Path) -> None:
    options: dict[str, Any] = {"retries": Retry(max_retries=1, max_walltime=2), "resources": Resources(walltime=1)}
    with (
        LocalService(cpus=2, memory=8, seconds_per_minute=4) as hasty,
        ProminenceExecutor(hasty.url, hasty.token, poll_interval=(0.05, 0.5), **options) as executor,
    ):
        future = executor.submit(takes_long_once, str(tmp_path / "runs"))
        assert future.result(240) == 2
        assert [attempt.resources.walltime for attempt in future.history] == [1, 2]
        assert ends(future) == ["WalltimeExceededError", "result"]


# -- pauses ------------------------------------------------------------------------------------------------------------


def waits_for_another(future: ProminenceFuture[Any]) -> bool:
    return future.attempts == 2 and not future.done() and future.job_id is None


def test_the_next_attempt_waits_for_its_time_and_no_thread_with_it(make: Make, tmp_path: Path) -> None:
    executor = make(retries=Retry(retry_on=NoLicence, delay=0.5, backoff=2))
    began = time.monotonic()
    futures = [executor.submit(raises_until, str(tmp_path / str(number)), 2) for number in range(3)]
    assert [future.result(60) for future in futures] == [3, 3, 3]
    assert time.monotonic() - began >= 1.5  # 0.5 and 1
    assert executor.submit(pow, 2, 3).result(30) == 8


def test_a_pause_ends_with_shutdown_that_cancels_and_the_failure_stands(
    make: Make, tmp_path: Path, until: Until
) -> None:
    executor = make(retries=Retry(retry_on=NoLicence, delay=3600))
    future = executor.submit(raises_until, str(tmp_path / "runs"), 1)
    until(lambda: waits_for_another(future))
    assert future.status() == "unsent"
    assert future.stdout() == ""
    assert not future.cancel() or future.cancelled()  # it may never have been seen to run
    executor.shutdown(cancel_futures=True)
    assert future.cancelled() or isinstance(future.exception(0), NoLicenceToday)


def test_a_pause_ends_with_terminate(make: Make, tmp_path: Path, until: Until) -> None:
    executor = make(retries=Retry(retry_on=NoLicence, delay=3600))
    future = executor.submit(raises_until, str(tmp_path / "runs"), 1)
    until(lambda: waits_for_another(future))
    assert future.terminate()
    assert future.cancelled() or isinstance(future.exception(5), JobDeletedError)
    executor.shutdown()


def test_a_pause_ends_with_cancel_where_calls_that_run_are_cancelled(make: Make, tmp_path: Path, until: Until) -> None:
    executor = make(retries=Retry(retry_on=NoLicence, delay=3600), cancel_running=True)
    future = executor.submit(raises_until, str(tmp_path / "runs"), 1)
    until(lambda: waits_for_another(future))
    assert future.cancel()
    assert future.cancelled()
    executor.shutdown()
    assert (tmp_path / "runs").read_text() == "x"


def test_a_call_that_fails_after_shutdown_does_not_wait(make: Make, tmp_path: Path, until: Until) -> None:
    executor = make(retries=Retry(retry_on=NoLicence, delay=3600))
    gate = tmp_path / "gate"
    future = executor.submit(fails_when, str(gate))
    until(future.running)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.touch()
    assert isinstance(future.exception(30), NoLicence)


def fails_when(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)
    raise NoLicence


def test_an_attached_program_goes_on_with_a_retry_of_the_journal(service: LocalService, tmp_path: Path) -> None:
    journal, nobody = tmp_path / "journal", "http://127.0.0.1:9/prominence/v1"
    retry = Retry(retry_on=NoLicence, max_memory=2)
    first = ProminenceExecutor(
        nobody, service.token, journal=journal, on_interrupt="leave", retries=retry, resources=Resources(memory=1)
    )
    first.submit(raises_until, str(tmp_path / "raises"), 1)
    first.submit(killed_until, str(tmp_path / "killed"), 1)
    first._run.interrupt()  # as Ctrl-C in the with block does
    first.shutdown()
    with ProminenceExecutor.attach(first.run_id, service.url, service.token, journal=journal) as again:
        futures = again.futures()
        assert [future.result(60) for future in futures] == [2, 2]
        assert [asked(future) for future in futures] == [[1, 1], [1, 2]]
    assert not journal.exists()


def test_the_history_of_a_call_without_a_job_is_empty() -> None:
    assert ProminenceFuture().history == ()
