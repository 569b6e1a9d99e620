"""The file of a journal: whose it is, and what becomes of a run when it has been cut."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from concurrent.futures import Future
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from variables import unmeasured

from prominence_executor import ProminenceExecutor, ProminenceFuture
from prominence_executor.local import LocalService
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.payload.pickling import ObjectRef
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.journal import Journal, names_kept
from prominence_executor.run.objects import Objects
from prominence_executor.run.options import Options
from prominence_executor.run.uploads import UploadCache

NOBODY = "http://127.0.0.1:9/prominence/v1"


def modes(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(f"{path.name}*")}


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The journal of a program that has been interrupted before its one call was sent."""
    path = tmp_path / "journal"
    executor = ProminenceExecutor(NOBODY, "token", name="left", journal=path, on_interrupt="leave")
    executor.submit(pow, 2, 2)
    with pytest.raises(KeyboardInterrupt):
        with executor:
            raise KeyboardInterrupt
    executor.shutdown()
    return path


def test_a_journal_is_private_whatever_it_was(tmp_path: Path, left: Path) -> None:
    os.chmod(left, 0o644)
    journal = Journal.open(left)
    assert journal is not None
    assert set(modes(left).values()) == {0o600}
    assert journal.run_id.startswith("left-")
    journal.close()
    assert modes(left) == {"journal": 0o600}
    empty = tmp_path / "empty"
    empty.touch(0o666)
    os.chmod(empty, 0o666)
    new = Journal.create(empty, "new", bytes(32))
    assert set(modes(empty).values()) == {0o600}
    new.close()


@pytest.mark.parametrize("size", [0, 4096])
def test_a_journal_that_has_been_cut_is_an_error(left: Path, size: int) -> None:
    os.truncate(left, size)
    with pytest.raises(ValueError, match="has been emptied" if not size else "journal"):
        ProminenceExecutor.attach("left", NOBODY, "token", journal=left)
    assert left.exists()


def test_a_journal_that_cannot_be_used_is_in_nobodys_use(left: Path) -> None:
    os.mkdir(f"{left}-wal")
    for use in (Journal.open, names_kept):
        with pytest.raises(OSError, match="cannot be used: unable to open"):
            use(left)
    with pytest.raises(OSError, match="cannot be used: unable to open"):
        names_kept(left.parent)  # a folder, which a user may name by mistake


def test_a_journal_for_which_there_is_no_room_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def execute(self, *statement: Any) -> sqlite3.Cursor:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("sqlite3.connect", partial(sqlite3.connect, factory=Full))
    with pytest.raises(OSError, match="cannot be used: database or disk is full"):
        Journal.create(tmp_path / "journal", "run", bytes(32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [["journal_mode = WAL"], ["journal_mode = WAL", "user_version = 1"]])
def test_a_program_that_was_killed_while_it_made_its_journal_has_submitted_nothing(
    service: LocalService, tmp_path: Path, settings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, run_id = tmp_path / "journal", f"killed-{uuid.uuid4()}"
    with sqlite3.connect(path) as begun:  # as far as `Journal` comes before it enters tables and run, which is one step
        for setting in settings:
            begun.execute(f"PRAGMA {setting}")
    begun.close()
    with ProminenceExecutor.attach(run_id, service.url, service.token, journal=path, takeover=True) as again:
        assert again.futures() == []
        assert again.submit(pow, 2, 3).result(60) == 8
    assert "its program ended before it submitted a call" in caplog.text
    assert not path.exists()


ENDED = """
import os, sys
from prominence_executor import ProminenceExecutor

def end_at_the_database(event, args):
    if event == "sqlite3.connect" and os.fsdecode(args[0]) == sys.argv[1]:
        os._exit(9)

sys.addaudithook(end_at_the_database)
ProminenceExecutor("http://127.0.0.1:9/v1", "token", journal=sys.argv[1])
"""


def test_a_journal_is_at_no_moment_a_file_without_a_byte_which_may_have_been_emptied(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ended = subprocess.run([sys.executable, "-c", ENDED, path], env=unmeasured(PYTHONPATH=str(ROOT)), check=False)
    assert ended.returncode == 9
    assert Journal.open(path) is None
    assert os.listdir(tmp_path) == ["journal"]


def test_one_that_is_needed_no_more_is_removed_and_missing_is_no_error(left: Path) -> None:
    journal = Journal.open(left)
    assert journal is not None
    journal.remove([f"{journal.run_id}/0"])
    journal.close()  # which removes it: nothing is left in it
    assert not left.exists()
    assert Journal.open(left) is None


def test_calls_that_come_to_share_a_job_are_at_no_moment_in_it_twice(tmp_path: Path) -> None:
    """Whoever goes on from what a killed program has left runs each of them once."""
    executor = ProminenceExecutor(NOBODY, "token", journal=tmp_path / "journal", on_interrupt="leave")
    journal = executor._run.context.journal
    assert isinstance(journal, Journal)
    before = Future[int]()
    with pytest.raises(KeyboardInterrupt):
        with executor:
            executor.submit_many(pow, [before] * 4, range(4), chunksize=4)
            statements: list[str] = []
            with journal._lock:  # beside a statement sqlite3 waits for that one with the GIL, and it for the GIL
                journal._db.set_trace_callback(statements.append)
            before.set_result(2)
            deadline = time.monotonic() + 30
            while not any("DELETE FROM chunk" in text for text in statements) and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt
    kinds = [text.split()[0] for text in statements if text.split()[0] in ("BEGIN", "COMMIT") or " chunk" in text]
    assert kinds[:6] == ["BEGIN", "INSERT", *["DELETE"] * 4], statements


def with_one_object(path: Path, calls: int) -> Journal:
    """A journal of calls that all use one object."""
    journal = Journal.create(path, "run", bytes(32))
    shared = ObjectRef("0" * 64, 100_000, True, content=Blob([bytes(100_000)]))
    nowhere: Any = None
    payloads = [Payload(Blob([b"f"]), [Blob([b"a"])], None, frozenset([shared])) for _ in range(calls)]
    chunks = [Chunk("run", n, [ProminenceFuture(n)], Options(), payload, nowhere) for n, payload in enumerate(payloads)]
    journal.put_all(zip(chunks, payloads, strict=True))
    return journal


def steps_to_drop_one(path: Path, calls: int) -> int:
    journal, steps = with_one_object(path, calls), count()
    journal._db.set_progress_handler(lambda: next(steps) < 0, 1)
    journal.remove(["run/7"])
    journal._db.set_progress_handler(None, 0)
    journal.close()
    return next(steps)


def test_dropping_a_call_takes_no_longer_where_many_others_use_the_same_object(tmp_path: Path) -> None:
    assert steps_to_drop_one(tmp_path / "many", 2000) < 2 * steps_to_drop_one(tmp_path / "few", 100)


def test_an_object_that_many_calls_use_is_read_once(tmp_path: Path) -> None:
    journal = with_one_object(tmp_path / "journal", 50)
    statements: list[str] = []
    journal._db.set_trace_callback(statements.append)
    kept = journal.kept(Objects(UploadCache()))
    journal.close()
    assert len(kept) == 50
    [shared] = {shared for item in kept for shared in item.payload.objects}
    assert shared.content is not None
    assert shared.content.tobytes() == bytes(100_000)
    assert sum("FROM piece" in text for text in statements) == 1
