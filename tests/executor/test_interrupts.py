"""Who interrupts a program: Ctrl-C and its own ``sys.exit`` do, the ``sys.exit`` of one of its calls does not."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import calls
import pytest
from calls import Gate
from paths import SUPPORT
from proxy import FaultProxy, hang

from prominence_executor import JobDeletedError, ProminenceClient, ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.runs import cancel_run

pytestmark = pytest.mark.once

Until = Callable[..., None]


@pytest.fixture(params=["processes", "ours", "lazy", "leaving", "view", "warm"])
def make(request: pytest.FixtureRequest, service: LocalService) -> Callable[[], Executor]:
    """Makes an executor to whose block an exception comes: Python's own, and ours."""

    def ours(**options: Any) -> ProminenceExecutor:
        return ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.2), **options)

    makers: dict[str, Callable[[], Executor]] = {
        "processes": lambda: ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("forkserver")),
        "ours": ours,
        "lazy": lambda: ours(lazy=True),
        "leaving": lambda: ours(on_interrupt="leave"),
        "view": lambda: ours().with_options(labels={"kind": "view"}),
        "warm": lambda: ours(workers="warm", max_workers=4),
    }
    return makers[request.param]


def by_result(pool: Executor, kind: type[BaseException]) -> None:
    pool.submit(calls.fail, kind, 3).result(60)


def by_map(pool: Executor, kind: type[BaseException]) -> None:
    list(pool.map(calls.fail, [kind], [3]))


def by_exception(pool: Executor, kind: type[BaseException]) -> None:
    error = pool.submit(calls.fail, kind, 3).exception(60)
    assert error is not None
    raise error from None  # so that its cause does not tell any more whose it is


def by_raising_again(pool: Executor, kind: type[BaseException]) -> None:
    try:
        by_result(pool, kind)
    except BaseException as error:
        raise error from ValueError("another cause")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("way", [by_result, by_map, by_exception, by_raising_again])
def test_what_a_call_raised_ends_no_other_call(
    make: Callable[[], Executor],
    tmp_path: Path,
    until: Until,
    kind: type[BaseException],
    way: Callable[[Executor, type[BaseException]], None],
) -> None:
    gate = Gate(tmp_path)
    with pytest.raises(kind) as caught:
        with make() as pool:
            other = pool.submit(gate.hold, "other")
            until(other.running)
            try:
                way(pool, kind)
            finally:
                gate.open()
    assert caught.value.args == (3,)
    assert other.done()  # as with every executor, leaving the block has waited for it
    assert other.result() == "other"


def test_map_unordered_and_a_chunk_are_no_other(service: LocalService, tmp_path: Path, until: Until) -> None:
    gate = Gate(tmp_path)
    with pytest.raises(SystemExit), ProminenceExecutor(service.url, service.token) as executor:
        other = executor.submit(gate.hold, "other")
        until(other.running)
        try:
            list(executor.map_unordered(calls.fail, [SystemExit] * 2, range(2), chunksize=2))
        finally:
            gate.open()
    assert other.result(0) == "other"


def interrupted(folder: str, number: int) -> None:
    (Path(folder) / str(number)).touch()
    raise KeyboardInterrupt


def test_with_leave_a_map_that_a_calls_interruption_ends_cancels_what_has_not_started(
    service: LocalService, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        with ProminenceExecutor(service.url, service.token, on_interrupt="leave", max_workers=1) as executor:
            list(executor.map(interrupted, [str(tmp_path)] * 5, range(5)))
    assert len(list(tmp_path.iterdir())) <= 2  # the second may have begun by then


def test_a_call_of_another_executor_and_an_exit_of_ones_own_do_interrupt(
    service: LocalService, tmp_path: Path, until: Until
) -> None:
    gate = Gate(tmp_path)
    with ProminenceExecutor(service.url, service.token) as another:
        error = another.submit(calls.fail, SystemExit, 3).exception(60)
    for raised in (error, SystemExit(3)):
        assert isinstance(raised, SystemExit)
        with pytest.raises(SystemExit), ProminenceExecutor(service.url, service.token) as executor:
            running = executor.submit(gate.hold, "running")
            until(running.running)
            raise raised
        assert isinstance(running.exception(0), JobDeletedError)


def test_an_exit_in_answer_to_a_calls_exit_is_the_programs_own(
    service: LocalService, tmp_path: Path, until: Until
) -> None:
    gate = Gate(tmp_path)
    with pytest.raises(SystemExit), ProminenceExecutor(service.url, service.token) as executor:
        running = executor.submit(gate.hold, "running")
        until(running.running)
        try:
            by_result(executor, SystemExit)
        except SystemExit as error:
            raise SystemExit(4) from error
    assert isinstance(running.exception(0), JobDeletedError)


PROGRAM = """
import signal, sys, time

import calls
from calls import Gate
from prominence_executor import ProminenceExecutor

url, token, folder, how = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
executor = ProminenceExecutor(url, token, poll_interval=(0.05, 0.2))
held = executor.submit(Gate(folder).hold, "held")
while not held.running():
    time.sleep(0.02)
print(held.job_id, flush=True)
if how == "an error without with":
    raise ValueError("its own")
with executor:
    if how == "a call's exit":
        executor.submit(sys.exit, 7).result()
"""


class Program:
    """The program above, and what has come of its job."""

    def __init__(self, service: LocalService, gate: Gate, how: str) -> None:
        self._service = service
        command = [sys.executable, "-c", PROGRAM, service.url, service.token, str(gate.folder), how]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.job_id = int(self.process.stdout.readline())

    def end(self) -> tuple[int, str, str]:
        """Its exit code, what it said, and the status of its job."""
        said = self.process.communicate(timeout=60)[1]
        with ProminenceClient(self._service.url, self._service.token) as client:
            return self.process.returncode, said, client.describe_job(self.job_id)["status"]


@pytest.fixture
def start(service: LocalService, tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def program(how: str) -> Program:
        started.append(Program(service, Gate(tmp_path), how))
        return started[-1]

    yield program
    Gate(tmp_path).open()
    for each in started:
        with suppress(ProcessLookupError):
            each.process.kill()
        each.process.communicate()


def test_a_program_ends_with_the_exit_code_of_its_call_when_the_others_have_ended(
    start: Callable[[str], Program], tmp_path: Path
) -> None:
    program = start("a call's exit")
    time.sleep(2)  # the call ends meanwhile, and the program waits for the other one
    assert program.process.poll() is None
    Gate(tmp_path).open()
    code, said, status = program.end()
    assert (code, status) == (7, "completed"), said


@pytest.mark.parametrize("how", ["a call's exit", "its end"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_at_the_end_of_the_block_and_deletes_the_jobs(
    start: Callable[[str], Program], how: str, number: signal.Signals, code: int
) -> None:
    program = start(how)
    time.sleep(2)  # the program waits by now; there is nothing of it to be seen
    program.process.send_signal(number)
    found, said, status = program.end()
    assert (found, status) == (code, "deleted"), said
    assert "interrupted: its 1 outstanding calls were given up, and their jobs deleted" in said


@pytest.mark.slow
def test_a_program_that_ends_by_an_error_without_with_says_what_it_still_waits_for(
    start: Callable[[str], Program], tmp_path: Path
) -> None:
    program = start("an error without with")
    assert program.process.stderr is not None
    for line in program.process.stderr:
        if "end waits for" in line:
            break
    assert re.search(r"waits for 1 calls of run \S+; Ctrl-C ends that, and deletes their jobs$", line)
    Gate(tmp_path).open()
    code, said, status = program.end()
    assert (code, said, status) == (1, "", "completed")


FORKING = """
import os, sys, time
from prominence_executor import ProminenceExecutor

with ProminenceExecutor(sys.argv[1], sys.argv[2]) as executor:
    future = executor.submit(pow, 2, 5)
    if not (child := os.fork()):
        sys.exit(3)
    began = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, time.monotonic() - began < 10, future.result())
"""


def test_a_forked_child_that_exits_inside_the_block_leaves_the_jobs_to_its_parent(service: LocalService) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, service.url, service.token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("3 True 32\n", "", 0)


@pytest.mark.parametrize("options", [{}, {"workers": "warm"}], ids=["jobs", "warm"])
@pytest.mark.parametrize("is_frozen", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["refuses", "silent"])
def test_an_interrupt_does_not_wait_for_a_service_that_is_away_and_says_what_is_left_there(
    service: LocalService,
    tmp_path: Path,
    until: Until,
    capsys: pytest.CaptureFixture[str],
    is_frozen: bool,
    options: dict[str, Any],
) -> None:
    gate = Gate(tmp_path)
    with FaultProxy(service.url) as proxy:
        executor = ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.2), **options)
        held = executor.submit(gate.hold, "held")
        until(held.running)
        if is_frozen:
            proxy.inject(hang())
        else:
            proxy.refuse()
        began = time.monotonic()
        executor._run.interrupt()  # as Ctrl-C in the with block does
        executor.shutdown()
        seconds = time.monotonic() - began
    gate.open()
    said = capsys.readouterr().err
    assert "the service does not answer" in said
    assert f"prominence-executor cancel {executor.run_id}" in said
    assert seconds < (9 if is_frozen else 5)
    with ProminenceClient(service.url, service.token) as client:
        cancel_run(client, executor.run_id)


def test_a_second_interrupt_waits_for_nothing_and_says_what_is_left(
    service: LocalService, tmp_path: Path, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(tmp_path)
    with FaultProxy(service.url) as proxy:
        executor = ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.2))
        held = executor.submit(gate.hold, "held")
        until(held.running)
        proxy.inject(hang())
        again = threading.Timer(0.5, _thread.interrupt_main)
        again.start()
        began = time.monotonic()
        executor._run.interrupt()
        seconds = time.monotonic() - began
        executor.shutdown()
    gate.open()
    said = capsys.readouterr().err
    assert "Ctrl-C came again: what the service has of it, up to 1 calls, is left there" in said
    assert f"prominence-executor cancel {executor.run_id}" in said
    assert seconds < 4  # the service is silent for 5 before that is believed
    with ProminenceClient(service.url, service.token) as client:
        cancel_run(client, executor.run_id)
