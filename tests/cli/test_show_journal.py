"""`show RUN --journal FILE`: which calls only the run's journal has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peer import TOKEN, unused_port

from prominence_executor import ProminenceExecutor
from prominence_executor.cli import main
from prominence_executor.cli.terminal import ranges
from prominence_executor.local import LocalService
from prominence_executor.run.names import CallRange
from prominence_executor.runs import CallEnd, JobInfo, JournalKept, RunState, only_kept

Until = Callable[..., None]


@pytest.fixture(autouse=True)
def variables(service: LocalService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", service.token)


def copied(journal: Path) -> Path:
    """A copy of a journal as it is now, as if its program had been killed."""
    copy = journal.with_name("copy")
    for suffix in ("", "-wal"):
        if (part := Path(f"{journal}{suffix}")).exists():
            Path(f"{copy}{suffix}").write_bytes(part.read_bytes())
    return copy


def test_show_names_the_calls_that_only_the_journal_has(
    service: LocalService, until: Until, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    executor = ProminenceExecutor(service.url, service.token, journal=journal, max_workers=1, poll_interval=(0.05, 0.2))
    blocking = executor.submit(time.sleep, 60)
    waiting = [executor.submit(time.sleep, 0) for _ in range(4)]
    until(blocking.running)
    assert main(["show", executor.run_id, "--journal", str(journal)]) == 0
    shown = capsys.readouterr()
    assert "journal" not in shown.out
    assert shown.err == "the program that began the run goes on, and holds the journal\n"
    copy = str(copied(journal))
    assert main(["show", executor.run_id, "--journal", copy]) == 0
    assert "\nin the journal alone, as far as the service shows: calls 1-4 (4)\n" in capsys.readouterr().out
    assert main(["show", executor.run_id, "--journal", copy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["only_in_journal"] == [1, 2, 3, 4]
    assert main(["show", executor.run_id, "--json"]) == 0
    assert "only_in_journal" not in json.loads(capsys.readouterr().out)
    assert main(["show", "another", "--journal", copy]) != 0
    assert "is one of run" in capsys.readouterr().err
    assert main(["show", executor.run_id, "--journal", str(tmp_path / "none")]) == 0
    assert "there is no journal" in capsys.readouterr().err
    for call in waiting:
        call.cancel()
    blocking.terminate()
    executor.shutdown()


def test_show_knows_a_run_that_the_service_has_never_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    url = f"http://127.0.0.1:{unused_port()}/v1"
    with ProminenceExecutor(url, TOKEN, journal=journal, service_timeout=0.1) as executor:
        future = executor.submit(abs, -1)
        copy = str(copied(journal))
        assert future.exception(60) is not None
    assert main(["show", executor.run_id, "--journal", copy]) == 0
    assert capsys.readouterr().out == (
        f"run {executor.run_id}: the service has no jobs of it\n"
        "in the journal alone, as far as the service shows: call 0\n"
    )
    assert main(["show", executor.run_id]) != 0


def test_a_further_attempt_may_be_in_the_journal_alone() -> None:
    job = JobInfo(1, "run-0.0/pxcall", "completed", run_id="run", calls=range(3))
    kept = JournalKept((CallRange(0, 1, 1), CallRange(1, 2, 2), CallRange(7, 2, 1)))
    end = CallEnd(8, "result", 5)
    assert only_kept(kept, RunState("run", (job,), ()), [end]) == [1, 2, 7]


def test_calls_are_named_in_rows() -> None:
    assert ranges([7]) == "call 7"
    assert ranges([1, 2, 3, 7, 9, 10]) == "calls 1-3, 7, 9-10 (6)"
    assert ranges(range(0, 100, 2)) == "calls 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ... (50)"
