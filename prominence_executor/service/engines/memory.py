"""Memory that is enforced: where the service is to behave so, a job is killed that uses more than it asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ..node.job_run import JobRun
from ..node.outcome import OVER_MEMORY
from ..sandbox.memory import used
from ..state.vital import VitalThreads

_LOOK_SECONDS = 0.25


class MemoryWatch:
    """Looks at all running jobs, in a thread of its own."""

    def __init__(self, runs: Callable[[], Iterable[JobRun]], vital: VitalThreads) -> None:
        self._runs = runs
        self._closing = threading.Event()
        self._thread = vital.make("memory", self._turn)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _turn(self) -> bool:
        """Wait a moment, and look at each run; whether to go on."""
        if self._closing.wait(_LOOK_SECONDS):
            return False
        runs = {run.sandbox.mark: run for run in self._runs()}
        for mark, size in used(runs).items():
            if size > runs[mark].spec.memory:
                runs[mark].end_with("killed", OVER_MEMORY)
        return True
