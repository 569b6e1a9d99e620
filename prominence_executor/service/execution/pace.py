"""DAGMan's pace: where the service is to behave as the real one, a workflow makes its jobs one after the other.

They are stored, unseen, when the workflow is created, so that a restarted service goes on where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..state.workflow_rows import WorkflowRows
from .platform import Platform

log = logging.getLogger("prominence_executor.local")


@dataclass
class _Unmade:
    next_at: float  # time.monotonic()
    jobs: list[int] = field(default_factory=list)


class Pace:
    """Makes the jobs of workflows, in a thread of its own. `_condition` guards what waits."""

    def __init__(self, rows: WorkflowRows, submit: Callable[[list[int]], None], platform: Platform) -> None:
        self._rows, self._submit, self._platform = rows, submit, platform
        self._condition = threading.Condition()
        self._waiting: dict[int, _Unmade] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="pace", daemon=True)

    @property
    def bounded(self) -> bool:
        """Whether workflows make their jobs one after the other; else all at once."""
        return bool(self._platform.workflow_pace)

    def start(self) -> None:
        """Go on with what an earlier service left, and begin."""
        for workflow, jobs in self._rows.unmade().items():
            self.add(workflow, jobs)
        if self.bounded or self._waiting:
            self._thread.start()

    def stop(self) -> None:
        """End the thread; what was not made is made after the next start."""
        if not self._thread.is_alive():
            return
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def add(self, workflow: int, jobs: list[int]) -> None:
        """Make these stored jobs of a workflow, when their time has come."""
        with self._condition:
            starts = time.monotonic() + self._platform.workflow_starts
            self._waiting.setdefault(workflow, _Unmade(starts)).jobs += jobs
            self._condition.notify()

    def _loop(self) -> None:
        while True:
            with self._condition:
                due = min((unmade.next_at for unmade in self._waiting.values()), default=None)
                self._condition.wait(None if due is None else max(0.0, due - time.monotonic()))
                if self._closing:
                    return
                now = time.monotonic()
                turns = [workflow for workflow, unmade in self._waiting.items() if unmade.next_at <= now]
            for workflow in turns:
                try:
                    self._make_next(workflow)
                except Exception:
                    log.exception("workflow %d makes no job now", workflow)

    def _make_next(self, workflow: int) -> None:
        with self._condition:
            unmade = self._waiting[workflow]
            unmade.next_at = max(unmade.next_at + _pause(self._platform), time.monotonic())
            if not unmade.jobs:
                del self._waiting[workflow]
                return
        if self._rows.idle(workflow) >= self._platform.workflow_idle:
            return
        job = unmade.jobs.pop(0)
        if self._rows.make(job):  # else the workflow was deleted
            self._submit([job])


def _pause(platform: Platform) -> float:
    return 1 / platform.workflow_pace if platform.workflow_pace else 0.0  # what another service has left
