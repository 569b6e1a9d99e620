"""Workflows at run time: what `due` decides of the stored rows is done here.

Keeps nothing in memory: what is due follows from the stored jobs, so that a restarted service goes on where it was.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from typing import Any

from ..engines.base import Engine
from ..node.outcome import DELETED_WITH_WORKFLOW, WORKFLOW_DELETED
from ..schema.allocation import allocate
from ..schema.items import Refused
from ..schema.workflow import Member, members
from ..state.store import Store
from ..state.workflow_rows import WorkflowRows
from .due import WorkflowPlace, instances, next_step, progress, states_of
from .scheduler import Scheduler


class Workflows:
    """Every method may be called from any thread.

    `_lock` is held while deciding what is due, so that nothing is submitted twice.
    """

    def __init__(self, store: Store, scheduler: Scheduler, engine: Engine) -> None:
        self._store, self._scheduler, self._engine = store, scheduler, engine
        self.rows = WorkflowRows(store)
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Go on with what an earlier service left."""
        for workflow in self.rows.unended():
            self._advance(workflow)

    def create(self, user: str, body: dict[str, Any], done: dict[str, list[int]] | None = None) -> int:
        """Store a checked workflow and submit what can start. `done`: instances that an earlier run completed."""
        expanded = members(body)
        total = sum(len(member.instances) for member in expanded.values())
        with self._lock, self._store.transaction():  # all of it, or nothing
            workflow = self.rows.add(user, body, {"place": str(uuid.uuid4()), "done": done or {}}, total)
            ids = self._next_jobs(workflow, expanded)
        self._submit(workflow, ids)
        return workflow

    def job_ended(self, job: int) -> None:
        """Go on with the workflow of a job that ended; cheap while others of its kind are still to end."""
        row = self._store.job(job)
        if row is None or row["workflow"] is None:
            return
        if not self.rows.has_open(row["workflow"], row["member"]):
            self._advance(row["workflow"])

    def delete(self, workflow: int) -> bool:
        """End a workflow and all its jobs. Whether there was one to end."""
        with self._lock, self._store.transaction():  # all of it, or nothing
            ended = self.rows.set_ended(workflow, "deleted", WORKFLOW_DELETED)
            self.rows.drop_unmade(workflow)
            jobs = [
                job
                for job in self.rows.open_jobs(workflow)
                if self._store.set_ended(job, "deleted", DELETED_WITH_WORKFLOW)
            ]
        for job in jobs:
            self._scheduler.deleted(job, DELETED_WITH_WORKFLOW)
        return ended

    def rerun(self, row: sqlite3.Row) -> int | None:
        """Create a workflow of what a failed one did not complete; None when there is nothing of the kind."""
        if row["status"] != "failed":
            return None
        done: dict[str, list[int]] = json.loads(row["plan"])["done"]
        for member, position in self.rows.succeeded(row["id"]):
            done.setdefault(member, []).append(position)
        return self.create(row["user"], json.loads(row["body"]), done)

    def progress(self, row: sqlite3.Row) -> dict[str, int]:
        """Return how many of a workflow's jobs are where."""
        counts = self.rows.counts(row["id"])
        return progress(counts, json.loads(row["plan"]), row["total"], row["ended"] is not None)

    def _advance(self, workflow: int) -> None:
        with self._lock, self._store.transaction():
            ids = self._next_jobs(workflow)
        self._submit(workflow, ids)

    def _submit(self, workflow: int, ids: list[int]) -> None:
        if not ids:
            return
        if self._scheduler.pace.bounded:
            self._scheduler.pace.add(workflow, ids)
        else:
            self._scheduler.submit(ids)

    def _next_jobs(self, workflow: int, expanded: dict[str, Member] | None = None) -> list[int]:
        """Store what is due of a workflow now, and return its jobs; or end it. Within a transaction, under the lock."""
        row = self.rows.get(workflow)
        if row is None or row["ended"] is not None:
            return []
        try:
            expanded = expanded or members(json.loads(row["body"]))
        except Refused as error:  # an earlier version accepted it
            self.rows.set_ended(workflow, "failed", str(error))
            return []
        plan = json.loads(row["plan"])
        done: dict[str, list[int]] = plan["done"]
        step = next_step(expanded, states_of(expanded, done, self.rows.submitted(workflow)))
        if step.ends:
            self.rows.set_ended(workflow, step.ends, None)
        if not step.due:
            return []
        place = WorkflowPlace(workflow, row["user"], row["name"], plan["place"])
        jobs = [
            job
            for member in step.due
            for job in instances(
                member, place, done.get(member.name, []), allocate(member.body["resources"], self._engine.limits().cpus)
            )
        ]  # fmt: skip
        ids = self._store.add_jobs(jobs, unmade=self._scheduler.pace.bounded)
        self.rows.set_running(workflow)
        return ids
