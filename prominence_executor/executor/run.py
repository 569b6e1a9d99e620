"""A `Run`: the identity that an executor's jobs have at the service, and what begins and ends with it.

It knows when everything is over, and what an interrupt does; what becomes of calls until then, dispatch.py knows. Its
threads hold no reference to the executor, so that a forgotten executor can be collected. It makes no requests.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time

from ..errors import ProminenceError
from ..run.awake import AwakeClock
from ..run.breaking import breaking
from ..run.context import new_context
from ..run.journal import Journal
from ..run.registry import ChunkRegistry
from ..transports.warm.state import WorkerInfo
from .dispatch import Dispatcher
from .interrupt import await_end, delete, report_left
from .settings import RunSettings, Service

_MOMENT = 5.0  # seconds until a program that has ended says what it waits for
_GLANCE = 1.0  # seconds: a signal that comes just before a wait begins is only seen when the wait ends


class Run:
    """What is in flight of one executor. Its methods may be called from any thread.

    Attributes:
        context: its identity, and what its parts share.
        registry: the chunks that are open.
        dispatch: takes its calls.
        connect: makes another client of its service.
        leaves_jobs: an interrupt leaves them at the service.
    """

    def __init__(
        self,
        service: Service,
        run_id: str,
        key: bytes,
        settings: RunSettings,
        journal: Journal | None = None,
        *,
        attached: bool = False,
    ) -> None:
        self._clock = AwakeClock(run_id, settings.service_timeout)
        self.context = new_context(
            service.connect,
            run_id,
            key,
            settings.service_timeout,
            settings.lazy,
            journal,
            attached=attached,
            clock=self._clock.now,
            lasts=service.lasts,
            cancel_running=settings.cancel_running,
            name=settings.name,
            revive=service.revive,
            patient=attached or settings.patient or settings.warm is not None,
        )
        self.settings = settings
        self.connect = service.connect
        self.leaves_jobs = settings.on_interrupt == "leave"
        self._how_to_go_on = ""  # what the message about them ends with
        self.registry = ChunkRegistry(run_id)
        self._stop_service = service.stop
        self.dispatch = Dispatcher(self.context, self.registry, settings, self._begin, self._end)
        self._process = os.getpid()
        self._ended = threading.Event()
        self._starting = threading.Lock()  # guards what follows
        self._started = False
        self._left = False  # an interrupted program has left its jobs and workers at the service
        service.on_death(self._lost_service)

    @property
    def is_warm(self) -> bool:
        """Whether calls go to warm workers."""
        return self.dispatch.pool is not None

    def scale(self, workers: int) -> None:
        """Have so many warm workers at least. ValueError, RuntimeError: see `ProminenceExecutor.scale`."""
        if self.dispatch.pool is None or self.settings.warm is None:
            raise RuntimeError("this executor has no warm workers: it was made without workers='warm'")
        if not 0 <= workers <= self.settings.warm.max_workers:
            most = self.settings.warm.max_workers
            raise ValueError(f"workers must be 0 to max_workers, {most}, not {workers!r}")
        self.dispatch.pool.scale(workers)

    def workers(self) -> list[WorkerInfo]:
        """List the warm workers."""
        return self.dispatch.pool.workers() if self.dispatch.pool is not None else []

    def _begin(self) -> None:
        """Start the threads, unless they run, or no more calls are taken: RuntimeError or BrokenRunError then."""
        with self._starting:
            if self._started:
                return  # whether calls are taken, `admit` says
            self.registry.check_open()
        # In a thread of its own, to which no signal comes: an interrupt between them would leave half of them.
        starter = threading.Thread(target=self._start_threads, name=f"prominence-start-{self.context.run_id}")
        starter.start()
        starter.join()

    def _start_threads(self) -> None:
        with self._starting:
            if self._started:
                return  # another thread was quicker, or the run is over
            self._started = True
            with breaking(self.registry, "start"):
                self._clock.start()
                self.dispatch.start()
                return
            self._end()  # the thread that would do it does not run

    def shutdown(self, *, wait: bool, cancel: bool, at_exit: bool = False) -> None:
        """Take no more calls; end when the open ones have ended. Blocks for that if ``wait``.

        ``at_exit``: the program has ended, perhaps by an error, and after a moment it is said what it still waits for.
        """
        if os.getpid() != self._process:
            return  # a forked child has copies of everything but the threads: nothing here is its own
        with self._starting:
            self.registry.stop_admitting()
            never_used, self._started = not self._started, True
        if cancel:
            self.dispatch.cancel()
        if never_used:
            self._end()
        self.dispatch.jobs.look_soon()
        # A callback that waited here would wait for itself.
        if wait and threading.current_thread() not in self.dispatch.threads():
            say_at = time.monotonic() + _MOMENT if at_exit else math.inf
            while not self._ended.wait(_GLANCE):
                if time.monotonic() > say_at:
                    say_at = math.inf
                    self._say_what_is_awaited()

    def _say_what_is_awaited(self) -> None:
        if calls := sum(chunk.size for chunk in self.registry.chunks()):
            text = "the program's end waits for %d calls of run %s; Ctrl-C ends that, and %s their jobs"
            what = "leaves" if self.leaves_jobs else "deletes"
            self.context.log.warning(text, calls, self.context.run_id, what)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it in this program."""
        return self._ended.is_set()

    def leave_on_interrupt(self, how_to_go_on: str) -> None:
        """Leave what is outstanding when the program is interrupted, unless its user, or its service's end, says no."""
        self._how_to_go_on = how_to_go_on
        self.leaves_jobs = self.leaves_jobs or (self.settings.on_interrupt is None and self.context.lasts)

    def interrupt(self) -> None:
        """Delete the jobs that are outstanding, or leave them, and end soon: the program was interrupted."""
        if os.getpid() != self._process:
            return  # as in `shutdown`: the jobs are the parent's, and the threads that would delete them are not here
        self.registry.stop_admitting()
        chunks = self.registry.chunks()
        if not chunks:
            return
        if self.leaves_jobs:
            self._left = True
            said = report_left(self.context, chunks, self.dispatch.jobs, self.is_warm, self._how_to_go_on)
            self.registry.fail(ProminenceError("the program was interrupted and left its jobs at the service"))
            self.context.connection.stop_repeating()  # nobody waits for anything that a service away would answer
        else:
            if not self.context.connection.reached:
                self.context.connection.stop_repeating()  # nobody has anything that could be deleted
            said = delete(self.context, self.registry.chunks, self._ended)
        sys.stderr.write(f"run {self.context.run_id} interrupted: {said}\n")
        if self._left:
            await_end(self.context, self._ended)

    def _lost_service(self, error: ProminenceError) -> None:
        """Give up: there is no service any more, nor what it had."""
        self.registry.fail(error)
        self.context.stopping.set()
        self.context.connection.close()  # what still repeats a request ends
        self.dispatch.jobs.look_soon()

    def _end(self) -> None:
        """Let go of threads, sockets and the service, in the tracker's thread: everything is settled."""
        self.context.stopping.set()
        closing = [self.context.deferred.fetch, *self.dispatch.closing(self._left)]
        closing += [self._clock.stop, self.context.connection.close, self.context.journal.close, self._stop_service]
        try:
            for close in closing:
                with breaking(self.registry, "end"):  # all that follows is closed all the same
                    close()
        finally:
            self._ended.set()
