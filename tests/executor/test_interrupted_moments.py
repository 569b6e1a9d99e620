"""Ctrl-C at any moment of a submission: nothing hangs, and a journal neither loses a call nor has it twice."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from calls import Gate

from prominence_executor import ProminenceError, ProminenceExecutor, ProminenceFuture
from prominence_executor.local import LocalService
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.journal import Journal, names_kept
from prominence_executor.run.objects import Objects
from prominence_executor.run.parts import put_in_parts
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.uploads import UploadCache
from prominence_executor.service import Platform

pytestmark = pytest.mark.once

NOBODY = "http://127.0.0.1:9/prominence/v1"


def first(number: int, waits_for: object = None) -> int:
    return number


@pytest.fixture
def at_call() -> Iterator[Callable[[str, int], None]]:
    """Has the main thread interrupted when a function of this name is called for the n-th time."""

    def arm(name: str, count: int) -> None:
        left = [count]

        def look(frame: Any, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_qualname.endswith(name):
                left[0] -= 1
                if not left[0]:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(look)

    yield arm
    sys.setprofile(None)


def ends(executor: ProminenceExecutor) -> bool:
    """Wait for an executor's end; False when it does not come."""
    thread = threading.Thread(target=executor.shutdown, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the names of functions in frames")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("moment", ["Run._start", "ChunkRegistry.admit", "Run._keep", ".submit", "Thread.start"])
@pytest.mark.parametrize("kind", ["jobs", "warm", "dependent"])
def test_a_submission_that_is_interrupted_does_not_keep_the_run_from_ending(
    kind: str, moment: str, count: int, at_call: Callable[[str, int], None], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    options: dict[str, Any] = {"workers": "warm"} if kind == "warm" else {}
    executor = ProminenceExecutor(NOBODY, "token", journal=journal, on_interrupt="leave", **options)
    never: Future[int] = Future()
    arguments = [never] * 5 if kind == "dependent" else range(5)
    if moment == ".submit":
        moment = {"jobs": "JobTransport", "warm": "WarmPool", "dependent": "Dependents"}[kind] + moment
    got: list[Any] = []
    try:
        with executor:
            at_call(moment, count)
            got = executor.submit_many(first, range(5), arguments)
            sys.setprofile(None)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.setprofile(None)
    assert ends(executor)
    handed_over = got or moment.endswith(".submit")
    assert not handed_over or _kept(journal) == (executor.run_id, 5)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_with_leave_a_map_that_is_interrupted_keeps_its_calls(kind: type[BaseException], tmp_path: Path) -> None:
    def stop(number: int, frame: object) -> None:
        raise kind

    before = signal.signal(signal.SIGALRM, stop)
    journal = tmp_path / "journal"
    executor = ProminenceExecutor(NOBODY, "token", journal=journal, on_interrupt="leave")
    try:
        with pytest.raises(kind), executor:
            results = executor.map(first, range(5))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            list(results)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ends(executor)
    assert _kept(journal) == (executor.run_id, 5)


def test_calls_that_are_divided_are_in_the_journal_once_at_every_moment(tmp_path: Path) -> None:
    executor = ProminenceExecutor(NOBODY, "token")
    executor.submit_many(first, range(6), chunksize=6)
    (model,) = executor._run.registry.chunks()
    payload, options, transport = model.payload, model.options, model.transport
    executor._run.interrupt()

    class LeftMeanwhile(ChunkRegistry):
        """It opens the parts, of which one is cancelled; and the run is left before the journal hears of them."""

        def replace(self, chunk: Chunk, make: Callable[[], list[Chunk]]) -> list[Chunk]:
            made = super().replace(chunk, make)
            self.fail(ProminenceError("left"))
            return made

    registry, journal = LeftMeanwhile("run"), Journal.create(tmp_path / "journal", "run", bytes(32))
    calls: list[ProminenceFuture[Any]] = [ProminenceFuture(n) for n in range(6)]
    (chunk,) = registry.admit(6, lambda number: [Chunk("run", number, calls, options, payload, transport)])
    journal.put(chunk)

    def make() -> list[Chunk]:
        made = [chunk.part(range(at, at + 2), range(at, at + 2), 1, transport) for at in (0, 2, 4)]
        calls[2].cancel()
        calls[3].cancel()
        return made

    parts, failed = put_in_parts(journal, registry, chunk, make)
    assert (len(parts), failed) == (3, None)
    assert put_in_parts(journal, registry, chunk, make) == ([], None)  # it is over
    assert {kept.name for kept in journal.kept(Objects(UploadCache()))} == {"run/0-1", "run/4-5"}
    journal.close()


def test_what_is_in_an_array_of_the_service_is_not_said_to_be_unsent(
    tmp_path: Path, until: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Platform(workflow_pace=1, workflow_starts=60)  # it has the array, and none of its jobs yet
    with LocalService(tmp_path / "service", platform=slow) as service:
        with pytest.raises(KeyboardInterrupt):
            with ProminenceExecutor(service.url, service.token, on_interrupt="leave") as executor:
                executor.submit_many(first, range(30), [None] * 30)
                chunks = executor._run.registry.chunks()
                until(lambda: all(chunk.sent_at for chunk in chunks))
                raise KeyboardInterrupt
        said = capsys.readouterr().err
    assert "30 outstanding jobs are left at the service" in said
    assert "had not been sent" not in said


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the names of functions in frames")
def test_an_attachment_that_is_interrupted_follows_nothing_any_longer(
    service: LocalService, at_call: Callable[[str, int], None], tmp_path: Path, until: Callable[..., None]
) -> None:
    gate = Gate(tmp_path)
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.2)) as executor:
        future = executor.submit(gate.hold, "held")
        until(future.running)
        before = set(threading.enumerate())
        at_call("JobTransport.adopt", 1)
        with pytest.raises(KeyboardInterrupt):
            ProminenceExecutor.attach(executor.run_id, service.url, service.token, poll_interval=(0.05, 0.2))
        until(lambda: not [thread for thread in threading.enumerate() if thread not in before])
        assert not future.done()
        gate.open()
        assert future.result(60) == "held"


def _kept(journal: Path) -> tuple[str, int]:
    run_id, names = names_kept(journal)
    return run_id, len(names)
