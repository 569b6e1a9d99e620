"""A run with warm workers is found again by another program: what came of its calls, and what is still to come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import (
    JobDeletedError,
    NotSubmittedError,
    ProminenceClient,
    ProminenceExecutor,
    RunExistsError,
    WorkerLostError,
)
from prominence_executor.local import LocalService
from prominence_executor.remote.wire import sign, split, verify
from prominence_executor.transports.warm.mailboxes import join, outcomes_in, without_outcomes

pytestmark = pytest.mark.once

Until = Callable[..., None]

PROGRAM = """
import os, sys, time
from pathlib import Path
from prominence_executor import ProminenceExecutor
url, token, run_id, journal, gate, on_interrupt = sys.argv[1:]
def waits(number):
    print("waits", number)
    while not Path(gate).exists():
        time.sleep(0.02)
    return -number
with ProminenceExecutor(url, token, run_id=run_id, workers="warm", max_workers=2, journal=journal or None,
                        on_interrupt=on_interrupt) as executor:
    assert list(executor.map(lambda number: number * number, range(200))) == [n * n for n in range(200)]
    try:
        executor.submit(lambda: 1 / 0).result()
    except ZeroDivisionError:
        pass
    waiting = [executor.submit(waits, number) for number in range(10)]
    while sum(future.running() for future in waiting) < 2:
        time.sleep(0.02)
    print("ready", flush=True)
    time.sleep(60)
"""


class Begun:
    """Another program's run, and what it had to do with its files."""

    def __init__(self, service: LocalService, directory: Path, journal: bool, on_interrupt: str = "delete") -> None:
        self.service = service
        self.run_id = f"run-{uuid.uuid4()}"
        self.gate = directory / "gate"
        self.journal = directory / "journal" if journal else None
        arguments = [service.url, service.token, self.run_id, str(self.journal or ""), str(self.gate), on_interrupt]
        self.program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.program.stdout
        assert self.program.stdout.readline() == "ready\n", self.program.communicate()[1]

    def end(self, number: int = signal.SIGKILL) -> str:
        """End the program by a signal; returns what it has written to its standard error."""
        self.program.send_signal(number)
        return self.program.communicate(timeout=30)[1]

    def client(self) -> ProminenceClient:
        return ProminenceClient(self.service.url, self.service.token)

    def attach(self, **options: Any) -> ProminenceExecutor:
        if self.journal is not None:
            options["journal"] = self.journal
        return ProminenceExecutor.attach(self.run_id, self.service.url, self.service.token, **options)


@pytest.fixture
def begin(service: LocalService, tmp_path: Path) -> Iterator[Callable[..., Begun]]:
    begun: list[Begun] = []

    def start(**options: Any) -> Begun:
        begun.append(Begun(service, tmp_path, **options))
        return begun[-1]

    yield start
    for one in begun:
        one.gate.touch()
        if one.program.poll() is None:
            one.end()
        with ProminenceExecutor.attach(one.run_id, service.url, service.token, takeover=True):
            pass  # which ends what is left of it


def test_what_a_killed_program_had_is_found_again(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=False)
    begun.end()
    with begun.attach(takeover=True) as again:
        futures = again.futures()
        assert [future.result(30) for future in futures[:200]] == [n * n for n in range(200)]
        assert isinstance(futures[200].exception(30), ZeroDivisionError)
        begun.gate.touch()
        rest = futures[201:]
        errors = [future.exception(60) for future in rest]
        results = [-number for number, error in enumerate(errors) if error is None]
        assert len(results) >= 2
        assert {type(error) for error in errors if error is not None} <= {NotSubmittedError, WorkerLostError}
        assert [future.result() for future, error in zip(rest, errors, strict=True) if error is None] == results
        assert rest[0].stdout() == "waits 0\n"


def test_with_a_journal_nothing_is_lost(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=True)
    begun.end()
    begun.gate.touch()
    with begun.attach(workers="warm") as again:
        rest = again.futures()[201:]
        assert [future.result(60) for future in rest] == [-number for number in range(10)]
    assert begun.journal is not None
    assert not begun.journal.exists()


def test_a_lost_worker_costs_nothing_with_a_journal_and_is_said_without(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=True)
    begun.end()
    with begun.attach() as again:
        workers = [job["id"] for job in again.client.list_jobs(constraint=("pxwarm", begun.run_id))]
        again.client.delete_jobs(workers)
        begun.gate.touch()
        rest = again.futures()[201:]
        assert [future.result(60) for future in rest] == [-number for number in range(10)]


def test_a_worker_that_is_lost_without_a_journal_is_said(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=False)
    begun.end()
    with begun.attach(takeover=True) as again:
        rest = again.futures()[201:]
        again.client.delete_jobs([job["id"] for job in again.client.list_jobs(constraint=("pxwarm", begun.run_id))])
        errors = {type(future.exception(60)) for future in rest}
        assert WorkerLostError in errors
        assert errors <= {WorkerLostError, NotSubmittedError}
        assert again.submit(pow, 2, 5).result(60) == 32


def test_interrupted_with_leave_its_workers_stay(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=True, on_interrupt="leave")
    said = begun.end(signal.SIGINT)
    assert "warm workers are left at the service with" in said
    assert "are in the journal" in said
    begun.gate.touch()
    with begun.attach() as again:
        assert [future.result(60) for future in again.futures()[201:]] == [-number for number in range(10)]


def test_workers_that_are_left_end_when_they_have_done_what_they_have(
    begin: Callable[..., Begun], until: Until
) -> None:
    begun = begin(journal=True, on_interrupt="leave")
    begun.end(signal.SIGINT)

    def active() -> list[str]:
        with begun.client() as client:
            return [job["name"] for job in client.list_jobs(constraint=("pxwarm", begun.run_id))]

    assert active()  # each still has a call
    begun.gate.touch()
    until(lambda: not active())  # though they were to wait for minutes without a program
    with begun.attach(workers="warm", takeover=True) as again:
        assert [future.result(60) for future in again.futures()[201:]] == [-number for number in range(10)]


def test_interrupted_its_workers_are_deleted(begin: Callable[..., Begun], service: LocalService) -> None:
    begun = begin(journal=False)
    said = begun.end(signal.SIGINT)
    assert "their jobs deleted" in said
    with ProminenceExecutor(service.url, service.token) as other:
        assert other.client.list_jobs(constraint=("pxwarm", begun.run_id)) == []
        assert other.client.kv_list(f"pxwarm/{begun.run_id}") == []


def test_one_that_is_attached_ends_a_call_and_leaves_the_workers(begin: Callable[..., Begun], until: Until) -> None:
    begun = begin(journal=False)
    with begun.attach() as reader:
        running = [future for future in reader.futures()[201:] if not future.done()]
        until(lambda: any(future.running() for future in running), 30)
        victim = next(future for future in running if future.running())
        assert not victim.cancel()
        assert victim.terminate()
        with pytest.raises(JobDeletedError, match="terminate"):
            victim.result(30)
        for future in running:
            future.cancel() or future.terminate()
    assert begun.program.poll() is None
    with pytest.raises(RunExistsError):
        ProminenceExecutor(begun.service.url, begun.service.token, run_id=begun.run_id)
    assert len(begun.attach().client.list_jobs(constraint=("pxwarm", begun.run_id))) >= 1


def test_who_takes_over_has_workers_of_its_own_and_ends_all(begin: Callable[..., Begun]) -> None:
    begun = begin(journal=False)
    begun.end()
    begun.gate.touch()
    with begun.attach(takeover=True, workers="warm") as again:
        assert list(again.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        assert min(worker.number for worker in again.workers()) > 2
        client = again.client
        kept = client.kv_list
        assert kept(f"pxwarm/{begun.run_id}")
    with ProminenceExecutor(begun.service.url, begun.service.token) as other:
        assert other.client.kv_list(f"pxwarm/{begun.run_id}") == []
        assert other.client.list_jobs(constraint=("pxwarm", begun.run_id)) == []


def test_a_run_that_has_ended_has_its_outcomes(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        large = os.urandom(300_000)
        assert executor.submit(bytes, large[:90_000]).result(30) == large[:90_000]
        assert executor.submit(os.urandom, 200_000).result(30).__len__() == 200_000
        time.sleep(0.1)
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as again:
        assert [len(future.result(30)) for future in again.futures()] == [90_000, 200_000]


def test_messages_come_whole_or_not_at_all() -> None:
    body = os.urandom(50_000)
    text = sign({"a": 1}, body, b"key", "purpose")
    values = {f"/box/{part}": value for part, value in enumerate(split(text, "7"))}
    assert len(values) > 2
    assert max(map(len, values.values())) < 15_967
    assert join(values) == {"box": ("7", text)}
    assert verify(text, b"key", "purpose") == ({"a": 1}, body)
    for key in values:
        assert join({k: value for k, value in values.items() if k != key}) == {}
        assert join({**values, key: "8" + values[key][1:]}) == {}
    for wrong in ((b"other", "purpose"), (b"key", "other")):
        with pytest.raises(ValueError, match="not signed"):
            verify(text, *wrong)


def test_what_calls_print_is_no_outcome() -> None:
    line = b"\x1e" + sign({"chunks": [{"job": 3, "size": 2}]}, b"ab", b"key", "stdout").encode() + b"\n"
    forged = b"\x1e" + sign({"chunks": [{"job": 3, "size": 2}]}, b"ab", b"other", "stdout").encode() + b"\n"
    content = b"said" + line + b"more\n\x1eabc\n\x1e\n" + forged
    assert list(outcomes_in(content, b"key")) == [({"job": 3, "size": 2}, b"ab")]
    assert without_outcomes(b"said" + line + b"more\n") == b"saidmore\n"
