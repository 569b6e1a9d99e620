"""A run that one program began is found again by another: jobs, outcomes, gaps, and what a journal kept."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import (
    JobDeletedError,
    NotFoundError,
    NotSubmittedError,
    ProminenceExecutor,
    Resources,
    RunExistsError,
    RunNotFoundError,
)
from prominence_executor.local import LocalService
from prominence_executor.run.journal import names_kept
from prominence_executor.run.names import ArrayRange, CallRange, array_name, job_name, parse_array_name, parse_job_name

pytestmark = pytest.mark.once

Until = Callable[..., None]


def square(number: int) -> int:
    return number * number


def fails(number: int) -> None:
    print("about to fail")
    raise LookupError(number)


def waits_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.02)
    return "went on"


@pytest.fixture
def run_id() -> str:
    return f"run-{uuid.uuid4()}"


def attach(service: LocalService, run_id: str, **options: object) -> ProminenceExecutor:
    return ProminenceExecutor.attach(run_id, service.url, service.token, poll_interval=(0.05, 0.5), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("calls", [(7, 1, 1), (7, 5, 1), (0, 1, 3), (10, 90, 2)])
def test_a_jobs_name_tells_its_calls(calls: tuple[int, int, int]) -> None:
    assert parse_job_name("a.1", job_name("a.1", CallRange(*calls))) == calls


def test_an_arrays_name_tells_the_calls_of_its_jobs() -> None:
    span = ArrayRange(7, 30, 10, 2)
    name = array_name("a.1", span)
    assert parse_array_name("a.1", name) == span
    assert [parse_job_name("a.1", f"{name}/pxcall/{n}") for n in range(3)] == [(7, 10, 2), (17, 10, 2), (27, 4, 2)]
    assert span.jobs() == [(7, 10, 2), (17, 10, 2), (27, 4, 2)]


@pytest.mark.parametrize(
    "name", ["", "other/1", "run", "run/", "run/x", "run/1-", "run/1.", "run/1/2", "runs/1", "run.1-0.1.1/pxcall/0"]
)
def test_other_names_are_no_jobs_of_the_run(name: str) -> None:
    assert parse_job_name("run", name) is None


def test_an_ended_run_is_found_twice_by_its_id_alone(service: LocalService, run_id: str) -> None:
    with ProminenceExecutor(service.url, service.token, run_id=run_id) as executor:
        list(executor.map(square, range(5), chunksize=2))
        executor.submit(fails, 9)
    for _ in range(2):
        with attach(service, run_id) as again:
            futures = again.futures()
            assert [future.result(30) for future in futures[:5]] == [0, 1, 4, 9, 16]
            assert isinstance(futures[5].exception(30), LookupError)
            assert "in fails" in str(futures[5].exception().__cause__)  # type: ignore[union-attr]
            assert futures[5].stdout() == "about to fail\n"
            assert len(futures) == 6


def test_a_live_run_is_read_and_cancelled_from_elsewhere(
    service: LocalService, run_id: str, tmp_path: Path, until: Until
) -> None:
    with ProminenceExecutor(service.url, service.token, run_id=run_id, poll_interval=(0.05, 0.5)) as executor:
        gate = tmp_path / "gate"
        running, waiting = (
            executor.submit(waits_for, str(gate)),
            executor.with_options(resources=None).submit(square, 3),
        )
        until(lambda: waiting.done() and running.running())
        with attach(service, run_id) as other:
            there = other.futures()
            until(there[0].running)
            assert there[1].result(30) == 9
            assert not there[0].cancel()
            assert there[0].terminate()
            assert isinstance(there[0].exception(30), JobDeletedError)
        assert isinstance(running.exception(30), JobDeletedError)


@pytest.mark.slow
def test_what_is_not_there_is_said(
    service: LocalService, run_id: str, tmp_path: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    gate = tmp_path / "gate"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, max_workers=1) as executor:
        first, second = executor.submit(waits_for, str(gate)), executor.submit(square, 2)
        until(first.running)
        assert second.cancel()
        gate.touch()
        assert executor.submit(square, 3).result(30) == 9
    with caplog.at_level(logging.WARNING, "prominence_executor"), attach(service, run_id) as again:
        assert [type(future.exception(30)) for future in again.futures()] == [type(None), NotSubmittedError, type(None)]
    assert "1 of them were not submitted" in caplog.text
    assert "only a journal could tell whether there were more after call 2" in caplog.text


def test_a_journal_that_is_not_there_is_said_while_the_run_goes_on_since_its_path_may_be_wrong(
    service: LocalService, run_id: str, tmp_path: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    gate, wrong = tmp_path / "gate", tmp_path / "jurnal"
    said = f"there is no journal {wrong} (it is removed when all calls are sent)"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, journal=tmp_path / "journal") as executor:
        until(executor.submit(waits_for, str(gate)).running)
        with attach(service, run_id, journal=wrong) as again:
            assert said in caplog.text
            gate.touch()
            again.futures()[0].result(30)
    caplog.clear()
    with attach(service, run_id, journal=wrong) as again:
        again.futures()[0].result(30)
    assert said not in caplog.text
    assert not wrong.exists()


def test_an_unknown_run_is_a_clear_error(service: LocalService) -> None:
    with pytest.raises(RunNotFoundError, match="no-such-run") as caught:
        attach(service, "no-such-run")
    assert isinstance(caught.value, NotFoundError)


def test_jobs_of_others_that_carry_the_label_are_not_believed(service: LocalService, run_id: str) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        executor.submit(square, 2).result(30)
        description = {
            "name": f"{run_id}/0",
            "tasks": [{"image": "any", "runtime": "singularity", "cmd": "true"}],
            "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1},
            "labels": {"pxrun": run_id},
        }
        executor.client.create_job(description)
    with pytest.raises(RunNotFoundError, match="not made by an executor"):
        attach(service, run_id)


def test_an_id_that_was_used_is_refused_and_attach_is_named(service: LocalService, run_id: str) -> None:
    with ProminenceExecutor(service.url, service.token, run_id=run_id) as executor:
        executor.submit(square, 2).result(30)
    with pytest.raises(RunExistsError, match=r"attach\("):
        ProminenceExecutor(service.url, service.token, run_id=run_id)


@pytest.mark.parametrize("wrong", ["", "a b", "a/b", "x" * 101])
def test_an_id_is_checked(wrong: str, service: LocalService) -> None:
    with pytest.raises(ValueError, match="run_id"):
        ProminenceExecutor(service.url, service.token, run_id=wrong)


@pytest.mark.slow
def test_an_attached_executor_submits_only_after_a_takeover(service: LocalService, run_id: str) -> None:
    with ProminenceExecutor(service.url, service.token, run_id=run_id) as executor:
        list(executor.map(square, range(3)))
    with attach(service, run_id) as reading, pytest.raises(RuntimeError, match="takeover=True"):
        reading.submit(square, 1)
    with attach(service, run_id, takeover=True) as owning:
        assert owning.submit(square, 11).result(30) == 121
    with attach(service, run_id) as again:
        assert [future.result(30) for future in again.futures()] == [0, 1, 4, 121]


@pytest.mark.slow
def test_of_several_attempts_the_last_counts(service: LocalService, run_id: str, tmp_path: Path) -> None:
    def crashes_once(number: int) -> int:
        if number == 1 and not marker.exists():
            marker.touch()
            os._exit(3)
        return number

    marker = tmp_path / "crashed"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, retries=1) as executor:
        assert list(executor.map(crashes_once, range(4), chunksize=4)) == [0, 1, 2, 3]
    with attach(service, run_id) as again:
        assert [future.result(30) for future in again.futures()] == [0, 1, 2, 3]
        assert [future.attempts for future in again.futures()] == [1, 2, 2, 2]


CLIENT = """
import sys, time
from prominence_executor import ProminenceExecutor

url, token, lines, run_id, journal, number = sys.argv[1:]

def work(number):
    with open(lines, "a") as file:
        file.write(f"{number}\\n")
    return number * number

executor = ProminenceExecutor(url, token, run_id=run_id, journal=journal or None)
for number in range(int(number)):
    executor.submit(work, number)
    if number == 0:
        print("begun", flush=True)
executor.shutdown()
"""


@pytest.mark.parametrize(
    ("journal", "number", "seconds"),
    [("", 60, 0.8), ("kept", 60, 0.8), ("kept", 30, 0.0), pytest.param("", 150, 2.0, marks=pytest.mark.slow)],
)
def test_after_a_kill_every_accepted_call_has_one_result_and_a_journal_submits_the_rest(
    journal: str, number: int, seconds: float, service: LocalService, run_id: str, tmp_path: Path, until: Until
) -> None:
    lines, path = tmp_path / "lines", str(tmp_path / "journal") if journal else ""
    arguments = [service.url, service.token, str(lines), run_id, path, str(number)]
    client = subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE)
    assert client.stdout is not None
    with client, client.stdout:
        assert client.stdout.readline() == b"begun\n"
        if not journal:
            until(lines.exists)  # of what the service has not accepted nobody knows
        time.sleep(seconds)
        client.kill()
    with attach(service, run_id, journal=path or None) as again:
        futures = again.futures()
        outcomes = [future.exception(60) for future in futures]
        ran = [future.result() for future, error in zip(futures, outcomes, strict=True) if error is None]
    assert all(isinstance(error, NotSubmittedError) for error in outcomes if error)
    assert ran == [n * n for n, error in enumerate(outcomes) if error is None]
    times = Counter(lines.read_text().split())
    assert set(times.values()) == {1}
    assert len(times) == len(ran)
    if journal:
        assert not any(outcomes)
        assert not os.path.exists(path)
        assert not list(tmp_path.glob("journal*"))


def test_interrupted_in_a_map_a_program_leaves_its_jobs_and_the_rest_in_the_journal(
    service: LocalService, run_id: str, tmp_path: Path
) -> None:
    program = """
import sys, time
from prominence_executor import ProminenceExecutor
url, token, run_id, journal = sys.argv[1:]
with ProminenceExecutor(url, token, run_id=run_id, journal=journal, max_workers=4, on_interrupt="leave") as executor:
    for result in executor.map(lambda number: time.sleep(0.3) or number, range(12)):
        print(result, flush=True)
"""
    arguments = [service.url, service.token, run_id, str(tmp_path / "journal")]
    client = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        client.send_signal(signal.SIGINT)
        said = client.stderr.read()
    assert client.returncode
    assert f"attach('{run_id}', journal=...)" in said
    assert "are in the journal" in said
    with attach(service, run_id, journal=tmp_path / "journal") as again:
        assert [future.result(30) for future in again.futures()] == list(range(12))


@pytest.mark.slow
def test_a_journal_is_one_runs_and_one_programs(
    service: LocalService, run_id: str, tmp_path: Path, until: Until
) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    options = {"journal": journal, "max_workers": 1, "on_interrupt": "leave", "poll_interval": (0.05, 0.5)}
    executor = ProminenceExecutor(service.url, service.token, run_id=run_id, **options)  # type: ignore[arg-type]
    futures = [executor.submit(waits_for, str(gate)) for _ in range(3)]
    until(futures[0].running)
    assert journal.stat().st_mode & 0o777 == 0o600
    for use in (
        attach,
        lambda service, run_id, journal: ProminenceExecutor(service.url, service.token, journal=journal),
    ):
        with pytest.raises(RunExistsError, match="in use"):
            use(service, run_id, journal=journal)
    executor._run.interrupt()  # as Ctrl-C in the with block does
    executor.shutdown()
    with pytest.raises(RunExistsError, match="attach"):
        ProminenceExecutor(service.url, service.token, journal=journal)
    with pytest.raises(ValueError, match=run_id):
        attach(service, "another", journal=journal)
    gate.touch()
    with attach(service, run_id, journal=journal) as again:
        assert [future.result(30) for future in again.futures()] == ["went on"] * 3
    assert not journal.exists()
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(ValueError, match="not a journal"):
        ProminenceExecutor(service.url, service.token, journal=tmp_path / "text")


def test_a_journal_survives_options_modules_and_initializers(
    service: LocalService, run_id: str, tmp_path: Path, until: Until
) -> None:
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    executor = ProminenceExecutor(
        service.url, service.token, run_id=run_id, journal=journal, max_workers=1, on_interrupt="leave",
        initializer=os.putenv, initargs=("PX_MARK", "set"), poll_interval=(0.05, 0.5),
    )  # fmt: skip
    blocking = executor.submit(waits_for, str(gate))
    until(blocking.running)
    executor.with_options(env={"PX_ENV": "seen"}, labels={"kind": "second"}).submit(subprocess.getoutput, "env")
    executor._run.interrupt()
    executor.shutdown()
    gate.touch()
    with attach(service, run_id, journal=journal) as again:
        printed = again.futures()[1].result(30)
    assert "PX_MARK=set" in printed
    assert "PX_ENV=seen" in printed


@pytest.mark.parametrize("calls", [1, 2, 30])  # of 30, an array is made
@pytest.mark.parametrize("options", [{}, {"workers": "warm"}], ids=["jobs", "warm"])
def test_an_interrupt_loses_nothing_that_was_on_its_way_to_a_service_that_is_away(
    calls: int, options: dict[str, Any], tmp_path: Path
) -> None:
    nobody, began = "http://127.0.0.1:9/prominence/v1", time.monotonic()
    for moment in (0, 0.001, 0.003, 0.006, 0.01, 0.02):  # seconds: not begun, being described, being sent
        journal = tmp_path / f"after {moment}"
        executor = ProminenceExecutor(nobody, "token", journal=journal, on_interrupt="leave", **options)
        for _ in range(calls):
            executor.submit(square, 3)
        time.sleep(moment)
        executor._run.interrupt()  # as Ctrl-C in the with block does
        executor.shutdown()
        owner, names = names_kept(journal)
        assert (owner, len(names)) == (executor.run_id, calls)
    assert time.monotonic() - began < 25  # nor is it asked for half a minute whether it is there again


def test_a_journal_survives_resources_of_which_a_default_gives_way(service: LocalService, tmp_path: Path) -> None:
    journal, nobody = tmp_path / "journal", "http://127.0.0.1:9/prominence/v1"
    resources = Resources(cpus_range=(1, 2), memory_per_cpu=1)
    executor = ProminenceExecutor(nobody, service.token, journal=journal, on_interrupt="leave", resources=resources)
    executor.submit(square, 3)
    executor._run.interrupt()  # as Ctrl-C in the with block does
    executor.shutdown()
    with attach(service, executor.run_id, journal=journal) as again:
        assert again.futures()[0].result(30) == 9
        (listed,) = again.client.list_jobs(constraint=("pxrun", executor.run_id), all=True)
        described = again.client.describe_job(listed["id"])
    assert described["resources"]["cpusRange"] == [1, 2]
    assert described["resources"]["memoryPerCpu"] == 1
