"""The queue, the slots and the clock.

One thread decides: it starts what fits (highest priority first, then oldest first; nothing overtakes the head of the
queue, so nothing starves), ends what is over its time, and sweeps up processes that ended jobs left behind. Each
running job has a worker thread. Stored state changes here and in the API; a job ends in the store exactly once.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sandbox import processes
from ..sandbox.sandbox import Sandbox, install_shims
from ..schema.allocation import Share
from ..state.directory import own_directory
from ..state.representations import parameter_texts
from .context import Site, node_log
from .job_run import Facts, Outcome, Run

log = logging.getLogger("prominence_executor.local")

DEFAULT_WALLTIME = 720  # minutes
RESTARTED = "The service was restarted while the job was running"
_SWEEP_SECONDS = 0.2
_TOKEN_SECONDS = 7 * 86400


@dataclass
class Waiting:
    """A job in the queue, and the slots that it takes."""

    job: int
    priority: int
    cpus: int
    memory: int
    deadline: float | None  # time.time() at which it has waited too long


class Scheduler:
    """Every public method may be called from any thread."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._condition = threading.Condition()
        self._woken = self._closing = False
        self._heap: list[tuple[int, int]] = []  # (-priority, job); entries of jobs no longer waiting are skipped
        self._waiting: dict[int, Waiting] = {}
        self._runs: dict[int, Run] = {}
        # Walltimes (with the mark of their run) and queue times, each as time, number of entry, job, mark.
        self._clock: list[tuple[float, int, int, str]] = []
        self._entries = itertools.count()
        self._free_cpus, self._free_memory = site.cpus, site.memory
        self._left: dict[str, Path] = {}  # sandboxes of ended runs, yet to be swept
        self._next_sweep = 0.0
        self._threads: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self.on_ended: tuple[Callable[[int], None], ...] = ()  # called in whichever thread ended the job
        self._shims = site.directory / "bin"
        self._sandboxes = site.directory / "sandboxes"

    # The service's life

    def start(self) -> None:
        """Clear away what an earlier service left, take up its queue, and begin."""
        own_directory(self._site.directory / "logs")
        if own_directory(self._sandboxes).is_symlink():
            raise RuntimeError(f"{self._sandboxes} must not be a link: what lies there is removed at each start")
        install_shims(self._shims)
        # By name, not by where it leads: what a link points to is nobody's sandbox.
        left = {path.name: path for path in Path(os.path.realpath(self._sandboxes)).iterdir()}
        processes.kill_all(left)
        for root in left.values():
            _emptied(self._sandboxes, self._shims, root).remove()
        for row in self._site.store.rows("SELECT id FROM jobs WHERE status = 'running' AND ended IS NULL"):
            self._site.store.set_ended(row["id"], "failed", RESTARTED)
            self._tell(row["id"])
        self.submit(row["id"] for row in self._site.store.rows("SELECT id FROM jobs WHERE ended IS NULL ORDER BY id"))
        self._thread.start()

    def stop(self) -> None:
        """End every running job and every thread. What still waits keeps waiting, for the next start."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()
        runs = list(self._runs.values())
        for run in runs:
            run.condemn("failed", RESTARTED)
        processes.kill_all({run.sandbox.mark: run.sandbox.root for run in runs} | self._left)
        for thread in list(self._threads):
            thread.join()
        processes.kill_all({run.sandbox.mark: run.sandbox.root for run in runs})

    # Requests

    def submit(self, jobs: Iterable[int]) -> None:
        """Put stored, idle jobs into the queue."""
        rows = [row for job in jobs if (row := self._site.store.job(job)) is not None]
        with self._condition:
            for row in rows:
                self._enqueue(row)
            self._woken = True
            self._condition.notify()

    def _enqueue(self, row: sqlite3.Row) -> None:
        deadline = None
        if row["queue_minutes"] >= 0:
            deadline = row["created"] + row["queue_minutes"] * self._site.seconds_per_minute
            heapq.heappush(self._clock, (deadline, next(self._entries), row["id"], ""))
        gets = Share(row["cpus"], row["memory"], row["nodes"])
        waiting = Waiting(row["id"], row["priority"], *gets.slots(self._site.cpus, self._site.memory), deadline)
        self._waiting[waiting.job] = waiting
        if waiting.cpus <= self._site.cpus and waiting.memory <= self._site.memory:
            heapq.heappush(self._heap, (-waiting.priority, waiting.job))
        # A job that fits nowhere stays idle, as on the real service.

    def delete(self, job: int, reason: str = "Job deleted by user") -> bool:
        """End a job that is idle or running. Whether there was one to end."""
        if not self._site.store.set_ended(job, "deleted", reason):
            return False
        with self._condition:
            self._waiting.pop(job, None)
            run = self._runs.get(job)
        if run:
            run.condemn("deleted", reason)
        self._tell(job)
        return True

    def _tell(self, job: int) -> None:
        for told in self.on_ended:
            told(job)

    @property
    def cpus(self) -> int:
        """Slots of this machine."""
        return self._site.cpus

    def run_of(self, job: int) -> Run | None:
        return self._runs.get(job)

    def free(self) -> tuple[int, int]:
        return self._free_cpus, self._free_memory

    # The deciding thread

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or self._woken, timeout=self._until_next())
                if self._closing:
                    return
                self._woken = False
                self._start_what_fits()
                overdue = self._overdue()
            for job, run in overdue:
                self._expire(job, run)
            self._sweep()

    def _until_next(self) -> float | None:
        waits = [self._next_sweep - time.time()] if self._left else []
        if self._clock:
            waits.append(self._clock[0][0] - time.time())
        return max(0.0, min(waits)) if waits else None

    def _start_what_fits(self) -> None:
        while self._heap:
            waiting = self._waiting.get(self._heap[0][1])
            if waiting is None:
                heapq.heappop(self._heap)
                continue
            if waiting.cpus > self._free_cpus or waiting.memory > self._free_memory:
                return
            heapq.heappop(self._heap)
            del self._waiting[waiting.job]
            self._free_cpus -= waiting.cpus
            self._free_memory -= waiting.memory
            thread = threading.Thread(target=self._work, args=(waiting,), name=f"job-{waiting.job}", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _overdue(self) -> list[tuple[int, Run | None]]:
        due: list[tuple[int, Run | None]] = []
        while self._clock and self._clock[0][0] <= time.time():
            *_, job, mark = heapq.heappop(self._clock)
            run = self._runs.get(job)
            if mark and run is not None and run.sandbox.mark == mark:
                due.append((job, run))
            elif not mark and self._waiting.pop(job, None) is not None:
                due.append((job, None))
        return due

    def _expire(self, job: int, run: Run | None) -> None:
        if run:
            run.condemn("killed", "Walltime limit exceeded")
        elif self._site.store.set_ended(job, "failed", "Maximum time queued was exceeded"):
            self._tell(job)

    def _sweep(self) -> None:
        """Kill daemons of ended jobs: one look at /proc for all jobs that ended since the last."""
        if time.time() < self._next_sweep:
            return
        self._next_sweep = time.time() + _SWEEP_SECONDS
        with self._condition:
            left, self._left = self._left, {}
            self._threads = {thread for thread in self._threads if thread.is_alive()}
        if left:
            processes.kill_all(left)
            for root in left.values():
                if root.exists():
                    _emptied(self._sandboxes, self._shims, root).remove()

    # Worker threads

    def _work(self, waiting: Waiting) -> None:
        """One run from slot to slot. Whatever happens, the slots come back."""
        again = False
        try:
            again = self._run(waiting)
        except Exception as error:  # noqa: BLE001 (nobody else would tell)
            log.exception("job %d", waiting.job)
            if self._site.store.set_ended(waiting.job, "failed", f"Internal error: {error}"):
                self._tell(waiting.job)
        finally:
            with self._condition:
                self._runs.pop(waiting.job, None)
                self._free_cpus += waiting.cpus
                self._free_memory += waiting.memory
                self._woken = True
                self._condition.notify()
        if again:
            self.submit([waiting.job])

    def _run(self, waiting: Waiting) -> bool:
        """Whether the job is idle again, to be run once more."""
        facts = self._facts(waiting)
        run = Run(facts, Sandbox(self._sandboxes, self._shims), self._site.objects, self._site.containers)
        run.sandbox.create()
        minutes = facts.body["resources"].get("walltime", DEFAULT_WALLTIME)
        with self._condition:
            self._runs[waiting.job] = run
            deadline = time.time() + minutes * self._site.seconds_per_minute
            heapq.heappush(self._clock, (deadline, next(self._entries), waiting.job, run.sandbox.mark))
            closing, self._woken = self._closing, True
            self._condition.notify()
        try:
            # From here on the job is running, and can be looked into and ended. One that was deleted stays as it is.
            if closing or not self._site.store.set_running(waiting.job):
                return False
            return self._conclude(facts, run())
        finally:
            run.sandbox.remove()
            with self._condition:
                self._left[run.sandbox.mark] = run.sandbox.root

    def _conclude(self, facts: Facts, outcome: Outcome) -> bool:
        policies, store = facts.body.get("policies", {}), self._site.store
        execution = json.dumps(outcome.execution)
        again = outcome.task_failed and outcome.status == "completed" and not forgiven(policies)
        row = store.job(facts.job)
        if again and row is not None and row["retries"] < policies.get("maximumRetries", 0):
            return store.set_idle_again(facts.job)
        ok = outcome.status == "completed" and (not outcome.task_failed or forgiven(policies))
        uploaded = json.dumps(outcome.uploaded)
        if store.set_ended(facts.job, outcome.status, outcome.reason, execution, uploaded, ok):
            self._tell(facts.job)
        for node, first in itertools.product(range(row["nodes"] if row else 1), (facts.stdout, facts.stderr)):
            path = node_log(first, node)
            if path.exists() and path.stat().st_size == 0:  # most jobs print nothing; keep no file for that
                path.unlink()
        return False

    def _facts(self, waiting: Waiting) -> Facts:
        site = self._site
        row = site.store.job(waiting.job)
        if row is None:
            raise LookupError(waiting.job)
        body, values = site.store.body(row), parameter_texts(row)
        minutes = body["resources"].get("walltime", DEFAULT_WALLTIME)
        told = {
            "PROMINENCE_URL": site.url,
            "PROMINENCE_TOKEN": site.signer.token(row["user"], _TOKEN_SECONDS + minutes * 60, job=row["id"]),
            "PROMINENCE_JOB_ID": str(row["id"]),
            "PROMINENCE_CPUS": str(row["cpus"]),
            "PROMINENCE_MEMORY": str(row["memory"]),
            "PROMINENCE_NODES": str(row["nodes"]),
            "PROMINENCE_NODE_NUM": "0",
            **{f"PROMINENCE_PARAMETER_{name}": value for name, value in values.items()},
        }
        if row["workflow"] is not None:
            told["PROMINENCE_WORKFLOW_ID"] = str(row["workflow"])
        stdout, stderr = site.log_file(row["id"], "out"), site.log_file(row["id"], "err")
        return Facts(
            row["id"], row["user"], row["place"], row["workflow"], row["nodes"], values, body, told, stdout, stderr
        )


def forgiven(policies: dict[str, Any]) -> bool:
    """Whether a task may fail without its job counting as failed."""
    return bool(policies.get("ignoreTaskFailures") or policies.get("reportJobSuccessOnTaskFailure"))


def _emptied(parent: Path, shims: Path, root: Path) -> Sandbox:
    """The sandbox that an ended run or an earlier service left, for removing it."""
    sandbox = Sandbox(parent, shims)
    sandbox.root = root
    return sandbox
