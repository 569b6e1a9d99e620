"""DAGMan's pace: where the service is to behave as the real one, a workflow makes its jobs one after the other.

They are stored, unseen, when the workflow is created, so that a restarted service goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..node.platform import Platform
from ..state.workflow_rows import WorkflowRows
from .context import ServiceContext

_LONGEST = 3600.0  # seconds between two looks: a condition cannot wait for years


@dataclass
class _Unmade:
    next_at: float  # by the monotonic clock
    jobs: list[int] = field(default_factory=list)


class Pace:
    """Makes the jobs of workflows, in a thread of its own. `_condition` guards what waits."""

    def __init__(self, context: ServiceContext, submit: Callable[[list[int]], None]) -> None:
        self._rows, self._submit = WorkflowRows(context.store), submit
        self._clock, self._platform = context.clock, context.platform
        self._condition = threading.Condition()
        self._waiting: dict[int, _Unmade] = {}
        self._closing = False
        self._thread = context.vital.make("pace", self._turn)

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
            starts = self._clock.monotonic() + self._platform.workflow_starts
            self._waiting.setdefault(workflow, _Unmade(starts)).jobs += jobs
            self._condition.notify()

    def _turn(self) -> bool:
        """Wait until the time of a workflow has come, and make a job of it; whether to go on."""
        with self._condition:
            if self._closing:
                return False
            now = self._clock.monotonic()
            turns = [workflow for workflow, unmade in self._waiting.items() if unmade.next_at <= now]
            if not turns:
                due = min((unmade.next_at - now for unmade in self._waiting.values()), default=_LONGEST)
                self._condition.wait(min(due, _LONGEST))
        for workflow in turns:
            self._make_next(workflow)
        return True

    def _make_next(self, workflow: int) -> None:
        with self._condition:
            unmade = self._waiting[workflow]
            unmade.next_at = max(unmade.next_at + _pause(self._platform), self._clock.monotonic())
            if not unmade.jobs:
                del self._waiting[workflow]
                return
        if self._rows.idle(workflow) >= self._platform.workflow_idle:
            return
        job = unmade.jobs[0]
        made = self._rows.make(job)  # else the workflow was deleted
        del unmade.jobs[0]
        if made:
            self._submit([job])


def _pause(platform: Platform) -> float:
    return 1 / platform.workflow_pace if platform.workflow_pace else 0.0  # what another service has left
