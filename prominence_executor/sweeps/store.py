"""A sweep's store: a directory with one SQLite file, and files beside it, from which a sweep goes on.

    scan.sweep/            0700
      sweep.db             every call: parameters, where it was sent, what became of it
      files/ab/ab12...npy  arrays, and pickles of what JSON does not hold, named by their content
      lock                 held by the program that writes

One program writes; any number read, at any time, also on other machines: the database keeps a rollback journal, which
works on NFS. Every change is one transaction, so that a kill or a full disk leaves what was there. It knows no
executor.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .lock import DirectoryLock
from .reading import FORMAT, StoreReader, key_file, user_key
from .records import DONE, FAILED, SENT, Identity, Outcome, Plan, Planned
from .values import dumps

_TAIL = 10_000  # characters of a call's output
_TABLES = """
    CREATE TABLE plan (one INTEGER PRIMARY KEY CHECK (one = 1), content TEXT NOT NULL);
    CREATE TABLE code (digest TEXT PRIMARY KEY, parts TEXT NOT NULL);
    CREATE TABLE point (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        repeat INTEGER NOT NULL,
        position INTEGER,
        params TEXT NOT NULL,
        seed INTEGER,
        status TEXT NOT NULL DEFAULT 'pending',
        run TEXT, call INTEGER, code TEXT NOT NULL DEFAULT '',
        value TEXT, error TEXT, seconds REAL, attempts INTEGER, job INTEGER, host TEXT, tail TEXT, time REAL,
        UNIQUE (key, repeat)
    );
"""


class Store(StoreReader):
    """An open store that is written; made by `Store.write`. See `Records` for what a sweep does with it."""

    def __init__(self, path: Path, lock: DirectoryLock, trust: bool) -> None:
        self._lock = lock
        weakref.finalize(self, lock.release)  # of a sweep that nobody has any more
        super().__init__(path, "rwc", _own_key(), trust)
        if self.format == 0:
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {FORMAT}")

    @classmethod
    def write(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Store:
        """Open a store for writing, and make it if there is none.

        Raises:
            StoreInUseError: another program, or another sweep of this one, writes it.
            StoreError: it is damaged, of a newer version, or something else, or cannot be written.
        """
        folder = Path(path)
        with _writing(folder):
            return cls._open(folder, trust)

    @classmethod
    def _open(cls, folder: Path, trust: bool) -> Store:
        if folder.is_file():
            raise StoreError(f"{folder} is no store of a sweep, which is a directory: it is a file")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = {item.name for item in folder.iterdir()} - {"sweep.db", "sweep.db-journal", "files", "lock"}
        if others and not (folder / "sweep.db").exists():
            raise StoreError(f"{folder} is no store of a sweep: it holds other files, such as {sorted(others)[0]}")
        lock = DirectoryLock(folder)
        try:
            (folder / "files").mkdir(exist_ok=True)
            return cls(folder, lock, trust)
        except BaseException:
            lock.release()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        with self.guard:
            try:
                self.db.execute("BEGIN IMMEDIATE")
                yield
                self.db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise StoreError(f"the store {self.path} cannot be written: {error}; what it had, it has") from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def enter(self, plan: Plan, calls: Sequence[Planned], first: int = 0) -> None:
        """Have these calls as the sweep's, in this order; behind so many that it has, or in place of those."""
        with _writing(self.path):
            self._enter(plan, calls, first)

    def _enter(self, plan: Plan, calls: Sequence[Planned], first: int) -> None:
        content = {**vars(plan), "constants": dumps(dict(plan.constants), self.files)}
        parts = content.pop("parts")
        with self.guard:
            found = self.db.execute("SELECT key, repeat, position FROM point").fetchall()
        places: dict[Identity, int | None] = {(key, repeat): position for key, repeat, position in found}
        at = {call.identity: position for position, call in enumerate(calls, first)}
        gone = [i for i, place in places.items() if place is not None and place >= first and i not in at]
        moved = [(place, *i) for i, place in at.items() if i in places and places[i] != place]
        new = [
            (*call.identity, at[call.identity], dumps(dict(call.params()), self.files), call.seed)
            for call in calls
            if call.identity not in places
        ]
        with self._transaction():
            self.db.execute("INSERT OR REPLACE INTO plan VALUES (1, ?)", (json.dumps(content),))
            self.db.execute("INSERT OR REPLACE INTO code VALUES (?, ?)", (plan.code, json.dumps(dict(parts))))
            self.db.executemany("UPDATE point SET position = NULL WHERE key = ? AND repeat = ?", gone)
            self.db.executemany("UPDATE point SET position = ? WHERE key = ? AND repeat = ?", moved)
            self.db.executemany("INSERT INTO point (key, repeat, position, params, seed) VALUES (?, ?, ?, ?, ?)", new)

    def parts(self, code: str) -> Mapping[str, str]:
        """Return what made up the code of this digest; nothing if that was not kept."""
        with self.guard:
            row = self.db.execute("SELECT parts FROM code WHERE digest = ?", (code,)).fetchone()
        return json.loads(row[0]) if row else {}

    def forget(self, calls: Iterable[Identity]) -> None:
        """Have these calls as pending, whatever became of them."""
        with self._transaction():
            self.db.executemany(
                "UPDATE point SET status = 'pending', run = NULL, call = NULL, value = NULL, error = NULL "
                "WHERE key = ? AND repeat = ?",
                list(calls),
            )

    def sending(self, run_id: str | None, code: str, calls: Sequence[tuple[Identity, int | None]]) -> None:
        """Note, before they are sent, as which call of which run these are sent."""
        with self._transaction():
            self.db.executemany(
                "UPDATE point SET status = ?, run = ?, call = ?, code = ? WHERE key = ? AND repeat = ?",
                [(SENT, run_id, call, code, *identity) for identity, call in calls],
            )

    def ended(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Keep what has become of calls, all of it or nothing; return it as it is kept."""
        with _writing(self.path):
            kept = [self._content(outcome) for outcome in outcomes]
        now = time.time()
        with self._transaction():
            self.db.executemany(
                "UPDATE point SET status = ?, value = ?, error = ?, seconds = ?, attempts = ?, job = ?, host = ?, "
                "tail = ?, code = ?, time = ? WHERE key = ? AND repeat = ?",
                [
                    (
                        o.status,
                        value,
                        error,
                        o.seconds,
                        o.attempts,
                        o.job_id,
                        o.host,
                        o.tail[-_TAIL:],
                        o.code,
                        now,
                        *o.identity,
                    )
                    for o, value, error in kept
                ],
            )
        return [outcome for outcome, _, _ in kept]

    def _content(self, outcome: Outcome) -> tuple[Outcome, str | None, str | None]:
        """Return an outcome with its value, or its exception, as text; one that cannot be kept has failed."""
        if outcome.status == DONE:
            try:
                return outcome, dumps(outcome.value, self.files), None
            except OSError:
                raise
            except Exception as problem:  # noqa: BLE001  __reduce__ is somebody else's code
                error = StoreError(f"the result, a {type(outcome.value).__name__}, cannot be kept: {problem}")
                outcome = replace(outcome, status=FAILED, value=None, error=error)
        return outcome, None, json.dumps(self._described(outcome.error))

    def _described(self, error: BaseException | None) -> dict[str, Any]:
        """Return an exception as text, and as a pickle where that can be had."""
        assert error is not None  # noqa: S101  the call failed
        kind = type(error)
        text: dict[str, Any] = {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        }
        with suppress(Exception):  # __reduce__ is somebody else's code; the text is kept
            text["pickle"] = self.files.put_pickle((error, error.__cause__))
        return text

    def close(self) -> None:
        """Let another program write; what is here can still be read."""
        with self.guard:
            self._lock.release()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say of which store it is that something cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the store {folder} cannot be written: {error.strerror or error}; what it had, it has"
        ) from error


def _own_key() -> bytes | None:
    """Return this user's key, made when it is first needed; None where there can be none.

    What is pickled without a key needs ``trust=True`` to be read.
    """
    path = key_file()
    with suppress(OSError):  # no home, or one that cannot be written
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            new.touch(0o600)
            try:
                new.write_bytes(secrets.token_bytes(32))
                with suppress(FileExistsError):
                    os.link(new, path)  # the first of two programs wins
            finally:
                new.unlink()
    return user_key()
