"""A sweep's store, read: at any time, also while a program writes it, and anywhere.

A pickle is loaded when this user's own key has signed its name, or when the reader trusts the store. It writes nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import PointFailedError, StoreError
from ..formats import newer
from .records import DONE, FAILED, Identity, Outcome, Plan, PointRow, State
from .values import DamagedError, Files, fields_of, loads

FORMAT = 1  # as SQLite's user_version

_BUSY = 60.0  # seconds that a reader and the writer wait for each other


class StoreReader:
    """An open store; made by `StoreReader.read`. Its heir writes: database, lock and files are for that.

    Args:
        mode: SQLite's: ``"ro"`` or ``"rwc"``.
        key: this user's; see `Files`.
    """

    def __init__(self, path: Path, mode: str, key: bytes | None, trust: bool) -> None:
        self.path = path
        self.guard = threading.RLock()
        self.files = Files(path / "files", key, trust)
        try:
            self.db = sqlite3.connect(
                f"{(path / 'sweep.db').resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY,
                check_same_thread=False,
                isolation_level=None,
            )
            weakref.finalize(self, self.db.close)
            self.format = self._check_format()
        except sqlite3.Error as error:
            raise StoreError(f"the store {path} cannot be read: {error}") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, trust: bool = False) -> StoreReader:
        """Open a store, which disturbs nobody.

        Raises:
            StoreError: there is none, or it is damaged, or of a newer version.
        """
        if not (Path(path) / "sweep.db").is_file():
            raise StoreError(f"there is no store of a sweep at {path}")
        return cls(Path(path), "ro", user_key(), trust)

    def _check_format(self) -> int:
        found: int = self.db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise StoreError(newer(f"the store {self.path}", found, FORMAT))
        return found

    def states(self) -> dict[Identity, State]:
        """Return where every call stands that it has ever had."""
        with self.guard:
            found = self.db.execute("SELECT key, repeat, status, run, call, code FROM point").fetchall()
        return {(key, repeat): State(*rest) for key, repeat, *rest in found}

    def outcome(self, identity: Identity) -> Outcome:
        """Return what has become of a call that is done or failed.

        Raises:
            StoreError: its files are damaged, or it is a pickle of somebody else, which `trust` would load.
        """
        with self.guard:
            row = self.db.execute(
                "SELECT status, value, error, seconds, attempts, job, run, host, tail, code FROM point "
                "WHERE key = ? AND repeat = ?",
                identity,
            ).fetchone()
        status, value, error, *facts = row
        try:
            result = loads(value, self.files) if status == DONE else None
        except DamagedError as problem:
            raise StoreError(f"the result of a point in the store {self.path} cannot be read: {problem}") from None
        except PermissionError as problem:
            raise StoreError(
                f"the result of a point in the store {self.path}: {problem}; trust=True loads it"
            ) from None
        raised = self._exception(json.loads(error)) if status == FAILED else None
        return Outcome(identity, status, result, raised, *facts)

    def _exception(self, described: dict[str, Any]) -> BaseException:
        """Return a call's exception, with its cause; or, where it cannot be unpickled, one with its text."""
        with suppress(Exception):  # a class that has moved, a file that is gone, a pickle that may not be loaded
            error, cause = self.files.get_pickle(described["pickle"])
            if isinstance(error, BaseException):
                error.__cause__ = cause
                return error
        return PointFailedError(f"{described['type']}: {described['message']}", described["traceback"])

    def plan(self) -> Plan:
        """Return what the sweep is. StoreError when nothing has been entered yet."""
        with self.guard:
            row = self.db.execute("SELECT content FROM plan").fetchone()
        if row is None:
            raise StoreError(f"the store {self.path} is empty")
        content = json.loads(row[0])
        content["constants"] = loads(content["constants"], self.files)
        return Plan(**content)

    def counts(self) -> dict[str, int]:
        """Return how many calls of the sweep stand where."""
        with self.guard:
            return dict(
                self.db.execute(
                    "SELECT status, count(*) FROM point WHERE position IS NOT NULL GROUP BY status"
                ).fetchall()
            )

    def status_of(self, identity: Identity) -> str:
        """Return where a call stands."""
        with self.guard:
            row = self.db.execute("SELECT status FROM point WHERE key = ? AND repeat = ?", identity).fetchone()
        return str(row[0])

    def rows(self, *, results: bool = True) -> Iterator[PointRow]:
        """Yield all calls of the sweep in their order, results as far as they can be had without unpickling.

        One whose file is damaged says so as its error. ``results``: whether results are wanted.
        """
        with self.guard:
            found = self.db.execute(
                "SELECT key, repeat, params, seed, status, value, error, seconds, attempts, job, run, host, tail, code "
                "FROM point WHERE position IS NOT NULL ORDER BY position"
            ).fetchall()
        for key, repeat, params, seed, status, value, error, *facts in found:
            problem = _one_line(json.loads(error)) if status == FAILED else ""
            result = None
            if status == DONE and results:
                try:
                    result = fields_of(value, self.files)
                except DamagedError as damage:
                    problem = str(damage)
            yield PointRow((key, repeat), loads(params, self.files), seed, status, result, problem, *facts)


def _one_line(described: Mapping[str, Any]) -> str:
    kind = str(described["type"]).removeprefix("builtins.")
    return f"{kind}: {described['message']}".partition("\n")[0]


def key_file() -> Path:
    """Return where this user's key is."""
    return Path("~/.prominence/store-key").expanduser()


def user_key() -> bytes | None:
    """Return the key with which this user's own pickles are signed; None where there is none."""
    try:
        return key_file().read_bytes()
    except (OSError, RuntimeError):
        return None
