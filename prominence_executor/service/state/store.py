"""All state of the service, in one SQLite database: jobs, labels, workflows, keys and values.

One connection behind one lock, small transactions, WAL: a service that is killed loses nothing that it answered for.
Rows come out as they went in; what they mean is decided elsewhere. What is listed often (`jobs`) lies apart from what
is long (`details`), and the active jobs have partial indices of their own, so history costs listings nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schema.allocation import Allocation
from .clock import Clock
from .directory import own_file, write_whole

FORMAT = 1  # as SQLite's user_version; it goes up when earlier versions would misread what is stored

# The second, for one process alone, is what network file systems bear: no memory that several map, one lock.
_MODES = {
    False: "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
    True: "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL;",
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1, leave INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, ended REAL, reason TEXT, tasks TEXT NOT NULL, parameters TEXT,
    workflow INTEGER, member TEXT, position INTEGER NOT NULL DEFAULT -1, place TEXT NOT NULL,
    cpus INTEGER NOT NULL, memory INTEGER NOT NULL, nodes INTEGER NOT NULL, priority INTEGER NOT NULL,
    queue_minutes INTEGER NOT NULL, retries INTEGER NOT NULL DEFAULT 0, execution TEXT NOT NULL DEFAULT '{}',
    outputs TEXT NOT NULL DEFAULT '{}', ok INTEGER NOT NULL DEFAULT 0, detail INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_active ON jobs (user, id) WHERE active = 1;
CREATE INDEX IF NOT EXISTS jobs_ended ON jobs (user, ended) WHERE active = 0;
CREATE INDEX IF NOT EXISTS jobs_name ON jobs (user, name);
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (status) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS jobs_workflow ON jobs (workflow, member) WHERE workflow IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_unended ON jobs (workflow, member) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS details (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    job INTEGER NOT NULL, user TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (job, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_active ON labels (user, key, value, job) WHERE active = 1;
CREATE INDEX IF NOT EXISTS labels_all ON labels (user, key, value, job);
CREATE TABLE IF NOT EXISTS workflows (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1, created REAL NOT NULL, started REAL, ended REAL, reason TEXT,
    body TEXT NOT NULL, plan TEXT NOT NULL, total INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS workflows_active ON workflows (user, id) WHERE active = 1;
CREATE TABLE IF NOT EXISTS workflow_labels (
    workflow INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (workflow, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    user TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (user, key)) WITHOUT ROWID;
"""


# Which jobs a transaction changes so that lists show it; the connection's own, and not stored.
_NOTES = """
CREATE TEMP TRIGGER job_made AFTER INSERT ON jobs BEGIN SELECT note_job(new.id, new.user); END;
CREATE TEMP TRIGGER job_changed AFTER UPDATE OF status, active ON jobs
    WHEN old.status <> new.status OR old.active <> new.active BEGIN SELECT note_job(new.id, new.user); END;
"""
_TOGETHER = 500  # jobs whose labels are looked up at once


@dataclass
class NewJob:
    """A job about to be stored: who owns it, what it is, what it gets, and where its outputs go."""

    user: str
    body: dict[str, Any]
    place: str
    name: str
    allocation: Allocation
    workflow: int | None = None
    member: str | None = None
    position: int = -1
    parameters: dict[str, Any] | None = None


@dataclass
class Query:
    """Which jobs of one user a listing shows. `finished` alone, `active` alone, or both."""

    user: str
    active: bool = True
    finished: bool = False
    ids: Sequence[int] | None = None
    workflows: Sequence[int] | None = None
    label: tuple[str, str] | None = None
    name: str | None = None
    status: str | None = None
    limit: int = -1


def _open(path: Path, alone: bool) -> sqlite3.Connection:
    """Open the database.

    Raises:
        RuntimeError: others could have written it, or it is none, or a damaged one.
        ValueError: a newer version has written it.
    """
    if not own_file(path, private=False):
        write_whole(path, b"")  # for its mode: descriptions hold secrets of users
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found <= FORMAT:
            (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError("it is damaged")
            db.executescript(_MODES[alone] + _SCHEMA)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            return db
    except sqlite3.Error as error:
        db.close()
        raise RuntimeError(f"the database {path} cannot be used: {error}") from error
    db.close()
    raise ValueError(
        f"{path} has format {found}, this version of prominence-executor reads {FORMAT}: update prominence-executor"
    )


class Store:
    """Every method may be called from any thread.

    `_lock` guards the connection, the last id, the last body, and what a transaction has changed.

    Args:
        alone: the database may lie on a network file system, and is for this process only.

    Attributes:
        on_jobs: told which users' lists of jobs are others now, each with those of its labels ("key=value") that
            are concerned; called in the thread that has changed them.
    """

    def __init__(self, path: Path, clock: Clock, alone: bool = False) -> None:
        self.clock = clock
        self._alone = alone
        self._lock = threading.RLock()
        self._db = _open(path, alone)
        self._last_id = 0
        self._last_body: tuple[int, dict[str, Any]] = (0, {})
        self._noted: dict[int, str] = {}  # jobs, with their users
        self.on_jobs: Callable[[Mapping[str, set[str]]], None] = lambda users: None
        self._db.create_function("note_job", 2, self._noted.__setitem__)
        self._db.executescript(_NOTES)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction, which an exception undoes; within another it is a part of that."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
                changed = self._changed() if self._noted else None
            except BaseException:
                if self._db.in_transaction:  # SQLite itself undoes some, as when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._noted.clear()
        if changed is not None:
            self.on_jobs(changed)

    @contextmanager
    def at_hand(self, writes: bool) -> Iterator[bool]:
        """Tell whether nobody uses the database now, and keep it so for a moment: who may not wait asks first.

        One that waits for the disk, as a network file system needs it, is not at hand for whoever ``writes``.
        """
        free = not (writes and self._alone) and self._lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._lock.release()

    def _changed(self) -> dict[str, set[str]]:
        users: dict[str, set[str]] = {user: set() for user in self._noted.values()}
        jobs = [str(job) for job in self._noted]
        for start in range(0, len(jobs), _TOGETHER):
            some = ",".join(jobs[start : start + _TOGETHER])
            for row in self._db.execute(f"SELECT DISTINCT user, key, value FROM labels WHERE job IN ({some})"):  # noqa: S608 (numbers)
                users[row["user"]].add(f"{row['key']}={row['value']}")
        return users

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def iterate(self, sql: str, *values: Any) -> Iterator[sqlite3.Row]:
        """Read the rows of a query, as far as they are asked for; the database is this caller's until then."""
        with self._lock, closing(self._db.execute(sql, values)) as cursor:
            yield from cursor

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        with self._lock:
            found: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
            return found

    def new_id(self) -> int:
        """Return a new id; jobs and workflows count together, as on the service."""
        with self._lock:
            row = self._db.execute(
                "SELECT max(coalesce((SELECT max(id) FROM jobs), 0), coalesce((SELECT max(id) FROM workflows), 0))"
            ).fetchone()
            self._last_id = max(self._last_id, row[0]) + 1
            return self._last_id

    # Jobs

    def add_jobs(self, jobs: Iterable[NewJob], unmade: bool = False) -> list[int]:
        """Store jobs as idle, in one transaction; they are in the active list when this returns.

        Jobs that share a body (the very same object) share one stored copy: the instances of a factory do.

        Args:
            unmade: no list is to show them yet (see `WorkflowRows.make`).
        """
        ids: list[int] = []
        details: dict[int, int] = {}
        with self.transaction() as db:
            for job in jobs:
                if id(job.body) not in details:
                    stored = db.execute("INSERT INTO details (body) VALUES (?)", (json.dumps(job.body),))
                    details[id(job.body)] = stored.lastrowid or 0
                ids.append(self.new_id())
                self._insert(db, ids[-1], job, details[id(job.body)])
                if unmade:
                    db.execute("UPDATE jobs SET active = -1 WHERE id = ?", (ids[-1],))
                    db.execute("UPDATE labels SET active = -1 WHERE job = ?", (ids[-1],))
        return ids

    def _insert(self, db: sqlite3.Connection, job_id: int, job: NewJob, detail: int) -> None:
        clock, allocation, policies = self.clock, job.allocation, job.body.get("policies", {})
        db.execute(
            "INSERT INTO jobs (id, user, name, status, leave, created, tasks, parameters, workflow, member, position,"
            " place, cpus, memory, nodes, priority, queue_minutes, detail)"
            " VALUES (?,?,?,'idle',?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                job_id, job.user, job.name, int(policies.get("leaveInQueue", False)), clock.time(),
                json.dumps(job.body["tasks"], sort_keys=True),
                None if job.parameters is None else json.dumps(job.parameters, sort_keys=True),
                job.workflow, job.member, job.position, job.place, allocation.cpus, allocation.memory,
                allocation.nodes, policies.get("priority", 0), policies.get("maximumTimeInQueue", -1),
                detail,
            ),
        )  # fmt: skip
        labels = job.body.get("labels", {}).items()
        db.executemany(
            "INSERT INTO labels (job, user, key, value) VALUES (?,?,?,?)",
            [(job_id, job.user, key, value) for key, value in labels],
        )

    def has_open_jobs(self) -> bool:
        """Return whether a job has not ended."""
        return self.row("SELECT 1 FROM jobs WHERE ended IS NULL LIMIT 1") is not None

    def job(self, job_id: int) -> sqlite3.Row | None:
        """Return a job's row, or None."""
        return self.row("SELECT * FROM jobs WHERE id = ?", job_id)

    def body(self, row: sqlite3.Row) -> dict[str, Any]:
        """Return a job's description, not to be changed: the last one is kept, as instances of a factory share it."""
        with self._lock:
            detail, body = self._last_body
            if detail != row["detail"]:
                found = self.row("SELECT body FROM details WHERE id = ?", row["detail"])
                body = json.loads(found["body"]) if found else {}
                self._last_body = (row["detail"], body)
            return body

    def described(self, rows: Sequence[sqlite3.Row]) -> int:
        """Return how many characters the descriptions of jobs have, one that several share as often."""
        times = Counter(row["detail"] for row in rows)
        marks = ",".join(str(int(detail)) for detail in times)
        sizes = self.rows(f"SELECT id, length(body) AS size FROM details WHERE id IN ({marks})")  # noqa: S608
        return sum(times[row["id"]] * row["size"] for row in sizes)

    def set_running(self, job_id: int) -> bool:
        """Note that a job runs; whether it was still idle."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET status = 'running', started = max(?, created) WHERE id = ? AND status = 'idle'",
                (self.clock.time(), job_id),
            )
            return changed.rowcount == 1

    def set_held(self, job_id: int) -> bool:
        """Note that a job is held, which is told as a failure without an end."""
        with self.transaction() as db:
            held = "UPDATE jobs SET status = 'failed' WHERE id = ? AND status = 'idle'"
            return db.execute(held, (job_id,)).rowcount == 1

    def release_held(self, job_id: int | None = None) -> bool:
        """Make a job idle that is held, or all that are; whether there was one."""
        with self.transaction() as db:
            released = "UPDATE jobs SET status = 'idle' WHERE status = 'failed' AND ended IS NULL AND ? IN (id, 0)"
            return db.execute(released, (job_id or 0,)).rowcount > 0

    def set_idle_again(self, job_id: int, repeats: int = 1) -> bool:
        """Make a job idle that is to be run once more; no longer possible when it was deleted meanwhile.

        `repeats`: 0 where nothing of it has run; of a job that ran elsewhere it may not have been stored that it did.
        """
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET status = 'idle', retries = retries + ? WHERE id = ? AND status IN ('running', 'idle')",
                (repeats, job_id),
            )
            return changed.rowcount == 1

    def set_ended(
        self,
        job_id: int,
        status: str,
        reason: str | None,
        execution: str | None = None,
        outputs: str | None = None,
        ok: bool = False,
    ) -> bool:
        """End a job once: whoever comes second (a deletion, a worker) changes nothing and is told False.

        `ok` says that all went well, which for the service is more than the status: what depends on it may start.
        It ends no earlier than it started, whatever the clock says.
        """
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET status = ?, reason = ?, ended = max(?, coalesce(started, created)),"
                " active = (leave AND ? = 'completed'),"
                " execution = coalesce(?, execution), outputs = coalesce(?, outputs), ok = ?"
                " WHERE id = ? AND ended IS NULL",
                (status, reason, self.clock.time(), status, execution, outputs, ok, job_id),
            )
            if changed.rowcount == 1:
                db.execute(
                    "UPDATE labels SET active = 0 WHERE job = ? AND NOT (SELECT active FROM jobs WHERE id = ?)",
                    (job_id, job_id),
                )
            return changed.rowcount == 1

    def set_removed(self, job_id: int) -> bool:
        """Take a job out of the queue that stayed there when it completed; a running one leaves when it ends."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET leave = 0 WHERE id = ?", (job_id,))
            changed = db.execute("UPDATE jobs SET active = 0 WHERE id = ? AND active = 1 AND ended > 0", (job_id,))
            if changed.rowcount == 1:
                db.execute("UPDATE labels SET active = 0 WHERE job = ?", (job_id,))
            return changed.rowcount == 1

    def list_jobs(self, query: Query) -> list[sqlite3.Row]:
        """List finished jobs first, the newest end leading; then the active ones in the order of their ids."""
        found: list[sqlite3.Row] = []
        if query.finished:
            found += self._select(query, 0, "ended DESC, id DESC")
        if query.active:
            found += self._select(query, 1, "id")
        return found

    @staticmethod
    def _conditions(query: Query, active: int) -> tuple[str, list[Any]]:
        source, conditions, values = "jobs", ["jobs.user = ?", f"jobs.active = {active}"], [query.user]
        if query.label:
            # The partial index over active labels, or the one over all of them.
            source = "labels JOIN jobs ON jobs.id = labels.job"
            conditions += [
                "labels.user = jobs.user", "labels.user = ?", "labels.key = ?", "labels.value = ?",
                f"labels.active = {active}",
            ]  # fmt: skip
            values += [query.user, *query.label]
        for column, wanted in (("jobs.id", query.ids), ("jobs.workflow", query.workflows)):
            if wanted is not None:
                conditions.append(f"{column} IN ({','.join(str(int(number)) for number in wanted)})")
        for column, text in (("jobs.name", query.name), ("jobs.status", query.status)):
            if text is not None:
                conditions.append(f"{column} = ?")
                values.append(text)
        return f"{source} WHERE {' AND '.join(conditions)}", values

    def _select(self, query: Query, active: int, order: str) -> list[sqlite3.Row]:
        where, values = self._conditions(query, active)
        limit = query.limit if not active else -1
        return self.rows(f"SELECT jobs.* FROM {where} ORDER BY {order} LIMIT ?", *values, limit)  # noqa: S608 (no text of users)
