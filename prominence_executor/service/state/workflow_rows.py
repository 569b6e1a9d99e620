"""The stored workflows, and what their jobs' rows say of them. Decides nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .store import Store


@dataclass(frozen=True)
class WorkflowQuery:
    """Which workflows of one user a listing shows. `finished` alone, `active` alone, or both."""

    user: str
    active: bool = True
    finished: bool = False
    ids: Sequence[int] | None = None
    label: tuple[str, str] | None = None
    name: str | None = None
    status: str | None = None
    limit: int = -1  # of finished ones


class WorkflowRows:
    """Every method may be called from any thread: the store's lock guards it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, user: str, body: dict[str, Any], plan: dict[str, Any], total: int) -> int:
        """Store a workflow as idle; return its id."""
        workflow = self._store.new_id()
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO workflows (id, user, name, status, created, body, plan, total)"
                " VALUES (?, ?, ?, 'idle', ?, ?, ?, ?)",
                (workflow, user, body["name"], self._store.clock.time(), json.dumps(body), json.dumps(plan), total),
            )
            db.executemany(
                "INSERT INTO workflow_labels VALUES (?, ?, ?)",
                [(workflow, key, value) for key, value in body.get("labels", {}).items()],
            )
        return workflow

    def get(self, workflow: int) -> sqlite3.Row | None:
        """Return a workflow's row, whosever it is."""
        return self._store.row("SELECT * FROM workflows WHERE id = ?", workflow)

    def unended(self) -> list[int]:
        """Return the ids of all workflows that have not ended."""
        return [row["id"] for row in self._store.rows("SELECT id FROM workflows WHERE ended IS NULL")]

    def set_running(self, workflow: int) -> None:
        """Note that jobs of a workflow were submitted."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE workflows SET status = 'running', started = coalesce(started, max(?, created)) WHERE id = ?",
                (self._store.clock.time(), workflow),
            )

    def set_ended(self, workflow: int, status: str, reason: str | None) -> bool:
        """End a workflow once: whoever comes second changes nothing and is told False."""
        with self._store.transaction() as db:
            changed = db.execute(
                "UPDATE workflows SET status = ?, reason = ?, ended = max(?, coalesce(started, created)),"
                " active = (? = 'completed' AND coalesce(json_extract(body, '$.policies.leaveInQueue'), 0))"
                " WHERE id = ? AND ended IS NULL",
                (status, reason, self._store.clock.time(), status, workflow),
            )
            return changed.rowcount == 1

    def set_removed(self, workflow: int) -> None:
        """Take an ended workflow out of the queue."""
        with self._store.transaction() as db:
            db.execute("UPDATE workflows SET active = 0 WHERE id = ? AND ended IS NOT NULL", (workflow,))

    def select(self, query: WorkflowQuery) -> list[sqlite3.Row]:
        """List finished workflows first, the newest end leading; then the active ones in the order of their ids."""
        conditions, values = ["user = ?"], [query.user]
        if query.ids is not None:
            conditions.append(f"id IN ({','.join(str(int(number)) for number in query.ids)})")
        for column, text in (("name", query.name), ("status", query.status)):
            if text is not None:
                conditions.append(f"{column} = ?")
                values.append(text)
        if query.label is not None:
            conditions.append("id IN (SELECT workflow FROM workflow_labels WHERE key = ? AND value = ?)")
            values += query.label
        select = f"SELECT * FROM workflows WHERE {' AND '.join(conditions)} AND active = "  # noqa: S608 (no text of users)
        rows: list[sqlite3.Row] = []
        if query.finished:
            rows += self._store.rows(f"{select}0 ORDER BY ended DESC, id DESC LIMIT ?", *values, query.limit)
        if query.active:
            rows += self._store.rows(f"{select}1 ORDER BY id", *values)
        return rows

    # Their jobs

    def has_open(self, workflow: int, member: str) -> bool:
        """Return whether instances of a member were submitted and have not ended."""
        row = self._store.row(
            "SELECT 1 FROM jobs WHERE workflow = ? AND member = ? AND ended IS NULL LIMIT 1", workflow, member
        )
        return row is not None

    def open_jobs(self, workflow: int) -> list[int]:
        """Return the ids of a workflow's jobs that have not ended."""
        rows = self._store.rows("SELECT id FROM jobs WHERE workflow = ? AND ended IS NULL", workflow)
        return [row["id"] for row in rows]

    def unmade(self) -> dict[int, list[int]]:
        """Return the ids of jobs that are stored, and not made yet, by their workflows."""
        found: dict[int, list[int]] = {}
        for row in self._store.rows("SELECT id, workflow FROM jobs WHERE active = -1 ORDER BY id"):
            found.setdefault(row["workflow"], []).append(row["id"])
        return found

    def make(self, job: int) -> bool:
        """Show a job that was stored, as idle; whether it is still there."""
        with self._store.transaction() as db:
            db.execute("UPDATE labels SET active = 1 WHERE job = ?", (job,))
            made = "UPDATE jobs SET active = 1, created = ? WHERE id = ? AND active = -1"
            return db.execute(made, (self._store.clock.time(), job)).rowcount == 1

    def drop_unmade(self, workflow: int) -> None:
        """Forget the jobs of a workflow that are not made yet: it is deleted."""
        with self._store.transaction() as db:
            unmade = "SELECT id FROM jobs WHERE workflow = ? AND active = -1"
            db.execute(f"DELETE FROM labels WHERE job IN ({unmade})", (workflow,))  # noqa: S608 (no text of users)
            db.execute("DELETE FROM jobs WHERE workflow = ? AND active = -1", (workflow,))

    def idle(self, workflow: int) -> int:
        """Return how many of a workflow's jobs wait in the queue."""
        row = self._store.row(
            "SELECT count(*) AS idle FROM jobs WHERE workflow = ? AND status = 'idle' AND active = 1", workflow
        )
        return row["idle"] if row is not None else 0

    def succeeded(self, workflow: int) -> list[tuple[str, int]]:
        """Return member and position of each job with which all went well."""
        rows = self._store.rows("SELECT member, position FROM jobs WHERE workflow = ? AND ok = 1", workflow)
        return [(row["member"], row["position"]) for row in rows]

    def submitted(self, workflow: int) -> dict[str, str]:
        """Return for each member of which jobs were submitted whether it is open, done or failed."""
        rows = self._store.rows(
            "SELECT member, sum(ended IS NULL) AS open, sum(ended IS NOT NULL AND NOT ok) AS failed FROM jobs"
            " WHERE workflow = ? GROUP BY member",
            workflow,
        )
        return {row["member"]: "open" if row["open"] else "failed" if row["failed"] else "done" for row in rows}

    def counts(self, workflow: int) -> tuple[int, int, int]:
        """Return how many jobs went well, have not ended, and were submitted at all."""
        row = self._store.row(
            "SELECT coalesce(sum(ok), 0) AS done, coalesce(sum(ended IS NULL), 0) AS queued, count(*) AS stored"
            " FROM jobs WHERE workflow = ? AND active >= 0",
            workflow,
        )
        if row is None:
            raise LookupError(workflow)
        return row["done"], row["queued"], row["stored"]
