"""A journal keeps on disk what the service does not have yet, so that a killed program loses no call.

One SQLite file for one run, open to one program at a time: the run's id and key, and the payload of every chunk from
the moment `submit` returns until the service has accepted its job. It may be used from any thread. It holds the key
that the run's outcomes are signed with, and pickles: it belongs to the user alone (mode 0600) and is trusted.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RunExistsError
from ..formats import newer
from ..payload.blob import Blob
from ..payload.calls import Payload, calls_file, read_calls_file
from ..payload.modules import ModuleZip
from ..payload.pickling import ObjectRef
from .chunk import Chunk
from .needs import Needs, kept_needs, needs_from
from .objects import Objects
from .options import Options
from .plain_options import options_from, plain_options

# As SQLite's user_version: 2 once a call that needs results of others has been in it, which an earlier version would
# send without them. The first version of this package left it at 0.
FORMAT = 2
_WITHOUT_NEEDS = 1

_PIECE = 1 << 26  # bytes of an object in one row: SQLite takes no more than a gigabyte
_TABLES = """
    CREATE TABLE IF NOT EXISTS run (id TEXT NOT NULL, key BLOB NOT NULL, next_call INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS modules (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL, names TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS chunk (
        name TEXT PRIMARY KEY,
        calls BLOB NOT NULL,
        modules TEXT REFERENCES modules,
        options TEXT NOT NULL,
        sending INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE IF NOT EXISTS uses (chunk TEXT NOT NULL, object TEXT NOT NULL, size INTEGER, shared INTEGER);
    CREATE INDEX IF NOT EXISTS uses_by_chunk ON uses (chunk);
    CREATE INDEX IF NOT EXISTS uses_by_object ON uses (object);
    CREATE TABLE IF NOT EXISTS needs (chunk TEXT PRIMARY KEY, facts TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS piece (object TEXT NOT NULL, number INTEGER, content BLOB, PRIMARY KEY (object, number));
"""


@dataclass(frozen=True)
class Kept:
    """A chunk that the service may not have."""

    name: str
    payload: Payload
    options: Options
    sending: bool  # its job may exist: it was about to be created
    needs: Needs = field(default_factory=Needs)


class NullJournal:
    """What a run has that keeps no journal."""

    def __bool__(self) -> bool:
        return False

    def put(self, chunk: Chunk, instead_of: Iterable[str] = ()) -> None:
        """Keep nothing."""

    def put_all(self, chunks: Iterable[tuple[Chunk, Payload]], instead_of: Iterable[str] = ()) -> None:
        """Keep nothing."""

    def sending(self, names: Iterable[str]) -> None:
        """Keep nothing."""

    def remove(self, names: Iterable[str]) -> None:
        """Do nothing: there is nothing to remove."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Journal:
    """An open journal; made by `Journal.create` or `Journal.open`."""

    def __init__(self, path: Path, new: tuple[str, bytes] | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._modules: set[str] = set()
        self._objects: set[str] = set()  # whose content is in it
        self._has_uses = True
        self._has_needs = True
        made = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not os.fstat(made).st_size:  # it was made now, or is nobody's: SQLite's other files are like this one
                os.chmod(path, 0o600)
        finally:
            os.close(made)
        self._db = sqlite3.connect(path, timeout=0.5, check_same_thread=False, isolation_level=None)
        try:
            # Exclusive: a second program is refused. A killed program's transactions stand without a flush to disk.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                self._db.close()
                raise ValueError(newer(f"the journal {path}", found, FORMAT))
            version = f"user_version = {max(found, _WITHOUT_NEEDS)}"
            for setting in ("journal_mode = WAL", "synchronous = NORMAL", version):
                self._db.execute(f"PRAGMA {setting}")
            row = self._begin(new)
            self._make_private()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise _unusable(path, error) from None
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(f"{path} is not a journal: {error}") from None
        except OSError:
            self._db.close()
            raise
        self.run_id: str = row[0] if row else ""
        self.key: bytes = row[1] if row else b""
        self.next_call: int = row[2] if row else 0

    def _begin(self, new: tuple[str, bytes] | None) -> tuple[str, bytes, int] | None:
        """Return what the file says of its run; of a new one that is entered with the tables.

        So a file without tables never had a call, while one with tables and without a run has been emptied.
        """
        db = self._db
        self.is_blank = new is None and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if self.is_blank:
            return None
        db.execute("BEGIN IMMEDIATE")
        with db:  # commits, or rolls back
            for statement in _TABLES.split(";"):
                db.execute(statement)
            if new is not None and not db.execute("SELECT count(*) FROM run").fetchone()[0]:
                db.execute("INSERT INTO run VALUES (?, ?, 0)", new)
            row: tuple[str, bytes, int] | None = db.execute("SELECT id, key, next_call FROM run").fetchone()
        return row

    def _make_private(self) -> None:
        """Let nobody else read it, whatever it was copied, or restored, as. OSError: it is somebody else's."""
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.chmod(f"{self._path}{suffix}", 0o600)

    @classmethod
    def create(cls, path: str | os.PathLike[str], run_id: str, key: bytes) -> Journal:
        """Begin the journal of a new run.

        Raises:
            RunExistsError: the file holds another run's calls, or is in use.
            ValueError: the file is something else, or of a newer version.
            OSError: it cannot be made.
        """
        if not os.path.exists(path):
            _make_blank(Path(path))
        journal = cls(Path(path), (run_id, key))
        if (journal.run_id, journal.key) != (run_id, key):
            journal.close()
            raise RunExistsError(
                f"the journal {path} holds calls of run {journal.run_id}: "
                f"ProminenceExecutor.attach({journal.run_id!r}, journal=...) continues it"
            )
        return journal

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Journal | None:
        """Open the journal of a run that has begun; None when there is no such file: all has reached the service.

        None also when its program was killed before it could begin: it has submitted nothing.

        Raises:
            RunExistsError: it is in use by another program.
            ValueError: the file is something else, of a newer version, or has been emptied.
            OSError: it cannot be read, or written.
        """
        if not os.path.exists(path):
            return None
        if not any(os.path.exists(name) and os.path.getsize(name) for name in (path, f"{os.fspath(path)}-wal")):
            raise _emptied(path)
        journal = cls(Path(path))
        if journal.run_id:
            return journal
        journal._db.close()  # and leave it as it is
        if journal.is_blank:
            return None
        raise _emptied(path)

    def put(self, chunk: Chunk, instead_of: Iterable[str] = ()) -> None:
        """Keep a chunk, in the place of others that are in it. OSError: the journal cannot be written."""
        if chunk.payload is not None:  # else it has just been settled: the run has broken, or it was cancelled
            self.put_all([(chunk, chunk.payload)], instead_of)

    def put_all(self, chunks: Iterable[tuple[Chunk, Payload]], instead_of: Iterable[str] = ()) -> None:
        """Keep chunks with these payloads, in the place of others, at once: a kill leaves the ones or the others."""
        with self._writing():
            for chunk, payload in chunks:
                self._put(chunk, payload)
            self._drop(instead_of)

    def _put(self, chunk: Chunk, payload: Payload) -> None:
        modules, db = payload.modules, self._db
        options = json.dumps(plain_options(chunk.options))
        if modules is not None and modules.sha256 not in self._modules:
            names = json.dumps(sorted(modules.names))
            db.execute("INSERT OR IGNORE INTO modules VALUES (?, ?, ?)", (modules.sha256, modules.content, names))
            self._modules.add(modules.sha256)
        db.execute(
            "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?, 0)",
            (chunk.name, calls_file(payload).tobytes(), modules and modules.sha256, options),
        )
        self._put_needs(chunk.name, kept_needs(self.run_id, payload))
        for reference in payload.objects:
            self._has_uses = True
            use = (chunk.name, reference.sha256, reference.size, reference.shared)
            db.execute("INSERT INTO uses VALUES (?, ?, ?, ?)", use)
            if reference.content is not None and reference.sha256 not in self._objects:
                rows = ((reference.sha256, number, piece) for number, piece in enumerate(_pieces(reference.content)))
                db.executemany("INSERT OR IGNORE INTO piece VALUES (?, ?, ?)", rows)
                self._objects.add(reference.sha256)
        db.execute("UPDATE run SET next_call = max(next_call, ?)", (chunk.first + chunk.size,))

    def _put_needs(self, name: str, facts: str | None) -> None:
        if facts is not None:
            self._has_needs = True
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute("INSERT OR REPLACE INTO needs VALUES (?, ?)", (name, facts))
        elif self._has_needs:
            self._db.execute("DELETE FROM needs WHERE chunk = ?", (name,))

    def sending(self, names: Iterable[str]) -> None:
        """Note that the jobs of these chunks are about to be created."""
        with self._writing() as db:
            db.executemany("UPDATE chunk SET sending = 1 WHERE name = ?", ((name,) for name in names))

    def remove(self, names: Iterable[str]) -> None:
        """Drop chunks that the service has, or that nobody wants any more."""
        names = list(names)
        if not names:
            return
        with self._writing():
            self._drop(names)

    def _drop(self, names: Iterable[str]) -> None:
        db, rows = self._db, [(name,) for name in names]
        if not rows:
            return
        db.executemany("DELETE FROM chunk WHERE name = ?", rows)
        if self._has_needs:
            db.executemany("DELETE FROM needs WHERE chunk = ?", rows)
            self._has_needs = bool(db.execute("SELECT EXISTS (SELECT 1 FROM needs)").fetchone()[0])
        if self._has_uses:
            db.executemany("DELETE FROM uses WHERE chunk = ?", rows)
            db.execute("DELETE FROM piece WHERE NOT EXISTS (SELECT 1 FROM uses WHERE uses.object = piece.object)")
            self._objects = {row[0] for row in db.execute("SELECT DISTINCT object FROM piece")}
            self._has_uses = bool(db.execute("SELECT EXISTS (SELECT 1 FROM uses)").fetchone()[0])

    def kept(self, objects: Objects) -> list[Kept]:
        """Read what the service may not have; the objects that its calls use are made known to ``objects``."""
        with self._writing() as db:
            rows = db.execute("SELECT name, calls, modules, options, sending FROM chunk").fetchall()
            zips = {
                sha256: ModuleZip(content, sha256, frozenset(json.loads(names)))
                for sha256, content, names in db.execute("SELECT sha256, content, names FROM modules")
            }
            needs = {name: needs_from(facts) for name, facts in db.execute("SELECT chunk, facts FROM needs")}
            uses: dict[str, set[ObjectRef]] = {}
            contents: dict[str, Blob] = {}  # of what many calls use, once
            for name, sha256, size, shared in db.execute("SELECT chunk, object, size, shared FROM uses").fetchall():
                if sha256 not in contents:
                    found = db.execute("SELECT content FROM piece WHERE object = ? ORDER BY number", (sha256,))
                    contents[sha256] = Blob(row[0] for row in found)
                content = contents[sha256]
                reference = objects.restore(sha256, size, bool(shared), content if content.size else None)
                uses.setdefault(name, set()).add(reference)
        kept = []
        for name, calls, modules, options, sending in rows:
            needed = needs.get(name, Needs())
            payload = read_calls_file(calls, zips.get(modules), frozenset(uses.get(name, ())))
            payload = needed.added_to(payload)
            kept.append(Kept(name, payload, options_from(json.loads(options)), bool(sending), needed))
        return kept

    def close(self) -> None:
        """Let go of the file, and remove it when everything in it has reached the service."""
        with self._lock:
            empty = self._db.execute("SELECT count(*) FROM chunk").fetchone()[0] == 0
            self._db.close()
        if empty:
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN")
                with self._db:  # commits, or rolls back
                    yield self._db
            except sqlite3.Error as error:
                raise OSError(f"the journal {self._path} cannot be written: {error}") from error


def names_kept(path: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Return whose journal a file is, and the names of the jobs that are kept in it; it stays as it is.

    Raises:
        RunExistsError: it is in use by another program.
        ValueError: the file is something else, of a newer version, or has been emptied.
        OSError: it cannot be read.
    """
    try:
        with closing(sqlite3.connect(path, timeout=0.2)) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                raise ValueError(newer(f"the journal {os.fspath(path)}", found, FORMAT))
            row = db.execute("SELECT id FROM run").fetchone()
            if row is None:
                raise _emptied(path)
            return row[0], [name for (name,) in db.execute("SELECT name FROM chunk ORDER BY name")]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise _emptied(path) from None
        raise _unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{os.fspath(path)} is not a journal: {error}") from None


def _make_blank(path: Path) -> None:
    """Have a journal without tables appear: a file without a byte, which a kill could leave, may have been emptied."""
    made, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(made)
    try:
        with closing(sqlite3.connect(name)) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute(f"PRAGMA user_version = {_WITHOUT_NEEDS}")
        with suppress(OSError):  # another program was quicker, or there are no links here: SQLite makes the file
            os.link(name, path)
    except sqlite3.OperationalError as error:
        raise _unusable(path, error) from None
    finally:
        os.unlink(name)


def _unusable(path: str | os.PathLike[str], error: sqlite3.OperationalError) -> Exception:
    if "lock" in str(error):  # as SQLite says it: Python 3.10 does not tell its numbers
        return RunExistsError(f"the journal {os.fspath(path)} is in use by another program ({error})")
    return OSError(f"the journal {os.fspath(path)} cannot be used: {error}")


def _emptied(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(
        f"the journal {os.fspath(path)} has been emptied, and calls may be lost that it had kept (one that is not "
        "needed any more is removed), or its program was ended before its first call: then a new run may begin in it. "
        "Without journal=, what the service has of the run is found"
    )


def _pieces(content: Blob) -> Iterator[memoryview]:
    for piece in content:
        for at in range(0, len(piece), _PIECE):
            yield memoryview(piece)[at : at + _PIECE]
