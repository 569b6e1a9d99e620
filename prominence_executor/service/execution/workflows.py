"""Workflows at run time: which jobs are due, and how a workflow ends.

Keeps nothing in memory: what is due follows from the stored jobs, so that a restarted service goes on where it was.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from typing import Any

from ..schema.allocation import allocate
from ..schema.workflow import Member, members
from ..state.store import NewJob, Store
from .scheduler import Scheduler

DELETED_JOB = "Job part of a workflow which was deleted by user"


class Workflows:
    """Every method may be called from any thread."""

    def __init__(self, store: Store, scheduler: Scheduler, cpus: int) -> None:
        self._store, self._scheduler, self._cpus = store, scheduler, cpus  # of the machine
        self._lock = threading.Lock()  # held while deciding what is due, so that nothing is submitted twice

    def recover(self) -> None:
        for row in self._store.rows("SELECT id FROM workflows WHERE ended IS NULL"):
            self._advance(row["id"])

    def create(self, user: str, body: dict[str, Any], done: dict[str, list[int]] | None = None) -> int:
        """Store a checked workflow and submit what can start. `done`: instances that an earlier run completed."""
        expanded, workflow = members(body), self._store.new_id()
        total = sum(len(member.instances) for member in expanded.values())
        plan = json.dumps({"place": str(uuid.uuid4()), "done": done or {}})
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO workflows (id, user, name, status, created, body, plan, total)"
                " VALUES (?, ?, ?, 'idle', ?, ?, ?, ?)",
                (workflow, user, body["name"], time.time(), json.dumps(body), plan, total),
            )
            db.executemany(
                "INSERT INTO workflow_labels VALUES (?, ?, ?)",
                [(workflow, key, value) for key, value in body.get("labels", {}).items()],
            )
        self._advance(workflow, expanded)
        return workflow

    def job_ended(self, job: int) -> None:
        """Called for every job that ended; cheap while others of its kind are still to end."""
        row = self._store.job(job)
        if row is None or row["workflow"] is None:
            return
        still_open = self._store.row(
            "SELECT 1 FROM jobs WHERE workflow = ? AND member = ? AND ended IS NULL LIMIT 1",
            row["workflow"],
            row["member"],
        )
        if still_open is None:
            self._advance(row["workflow"])

    def delete(self, workflow: int) -> bool:
        """End a workflow and all its jobs. Whether there was one to end."""
        with self._lock:
            ended = self._end(workflow, "deleted", "Workflow deleted by user")
        for row in self._store.rows("SELECT id FROM jobs WHERE workflow = ? AND ended IS NULL", workflow):
            self._scheduler.delete(row["id"], DELETED_JOB)
        return ended

    def rerun(self, row: sqlite3.Row) -> int | None:
        """A new workflow of what a failed one did not complete; None when there is nothing of the kind."""
        if row["status"] != "failed":
            return None
        done: dict[str, list[int]] = json.loads(row["plan"])["done"]
        for job in self._store.rows("SELECT member, position FROM jobs WHERE workflow = ? AND ok = 1", row["id"]):
            done.setdefault(job["member"], []).append(job["position"])
        return self.create(row["user"], json.loads(row["body"]), done)

    def progress(self, row: sqlite3.Row) -> dict[str, int]:
        """How many of a workflow's jobs are where; running ones count as queued, as on the service."""
        counted = self._store.row(
            "SELECT coalesce(sum(ok), 0) AS done, coalesce(sum(ended IS NULL), 0) AS queued, count(*) AS stored"
            " FROM jobs WHERE workflow = ?",
            row["id"],
        )
        if counted is None:
            raise LookupError(row["id"])
        done, queued = counted["done"], counted["queued"]
        failed = counted["stored"] - done - queued
        done += sum(map(len, json.loads(row["plan"])["done"].values()))
        waiting = 0 if row["ended"] else row["total"] - done - failed - queued
        return {"done": done, "failed": failed, "queued": queued, "total": row["total"], "waiting": waiting}

    def _advance(self, workflow: int, expanded: dict[str, Member] | None = None) -> None:
        """Submit every job whose parents are all done; end the workflow when nothing is left to wait for."""
        with self._lock:
            row = self._store.row("SELECT * FROM workflows WHERE id = ?", workflow)
            if row is None or row["ended"] is not None:
                return
            expanded, plan = expanded or members(json.loads(row["body"])), json.loads(row["plan"])
            states = self._states(workflow, expanded, plan["done"])
            due = [
                member
                for name, member in expanded.items()
                if states[name] == "waiting" and all(states[parent] == "done" for parent in member.parents)
            ]
            jobs = [job for member in due for job in _instances(row, member, plan, self._cpus)]
            if jobs:
                ids = self._store.add_jobs(jobs)
                with self._store.transaction() as db:
                    db.execute(
                        "UPDATE workflows SET status = 'running', started = coalesce(started, ?) WHERE id = ?",
                        (time.time(), workflow),
                    )
                self._scheduler.submit(ids)
            elif "open" not in states.values():
                self._end(workflow, "completed" if set(states.values()) == {"done"} else "failed", None)

    def _states(self, workflow: int, expanded: dict[str, Member], done: dict[str, list[int]]) -> dict[str, str]:
        """Each member as waiting (not submitted), open, done or failed."""
        states = {
            name: "done" if len(done.get(name, [])) == len(member.instances) else "waiting"
            for name, member in expanded.items()
        }
        for row in self._store.rows(
            "SELECT member, sum(ended IS NULL) AS open, sum(ended IS NOT NULL AND NOT ok) AS failed FROM jobs"
            " WHERE workflow = ? GROUP BY member",
            workflow,
        ):
            states[row["member"]] = "open" if row["open"] else "failed" if row["failed"] else "done"
        return states

    def _end(self, workflow: int, status: str, reason: str | None) -> bool:
        with self._store.transaction() as db:
            changed = db.execute(
                "UPDATE workflows SET status = ?, reason = ?, ended = ?,"
                " active = (? = 'completed' AND coalesce(json_extract(body, '$.policies.leaveInQueue'), 0))"
                " WHERE id = ? AND ended IS NULL",
                (status, reason, time.time(), status, workflow),
            )
            return changed.rowcount == 1


def _instances(row: sqlite3.Row, member: Member, plan: dict[str, Any], cpus: int) -> list[NewJob]:
    """The jobs of one member, each with an output place of its own, without those that an earlier run completed."""
    done, jobs = set(plan["done"].get(member.name, [])), []
    allocation = allocate(member.body["resources"], cpus)
    for position, parameters in member.instances:
        if position not in done:
            suffix = member.name if position < 0 else f"{member.name}/{position}"
            jobs.append(
                NewJob(
                    user=row["user"],
                    body=member.body,
                    place=f"{plan['place']}/{suffix}",
                    name=f"{row['name']}/{suffix}",
                    allocation=allocation,
                    workflow=row["id"],
                    member=member.name,
                    position=position,
                    parameters=parameters,
                )
            )
    return jobs
