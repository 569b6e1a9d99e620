"""Values that the executor's rooms hand to each other: `Options`, `Call` and `Chunk`.

A chunk is what travels as one job: one call, or the several that ``map(chunksize=n)`` puts together. It holds state
and no behaviour of its own: no HTTP, no threads; what it must have done it asks of its `Run`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .futures import ProminenceFuture
from .model import JobPolicies, Resources, Task, check_labels
from .modules import ModuleZip
from .payload import PYTHON, Blob, Identity

if TYPE_CHECKING:
    from .run import Run

RUN_LABEL = "pxrun"


@dataclass(frozen=True)
class Options:
    """How a call's job is to run; `ProminenceExecutor.with_options` replaces some of them for some calls."""

    image: str = f"python:{PYTHON}-slim"
    runtime: str | None = None
    resources: Resources = field(default_factory=Resources)
    policies: JobPolicies | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def changed(self, **changes: Any) -> Options:
        """A checked copy with some options replaced; None leaves one as it is.

        Raises:
            ValueError: a value that the service would not take.
        """
        changed = replace(self, **{name: value for name, value in changes.items() if value is not None})
        changed.check()
        return changed

    def check(self) -> None:
        """Raise ValueError for what the service would not take, naming the field."""
        if not self.image or not isinstance(self.image, str):
            raise ValueError(f"image must name a container image, not {self.image!r}")
        check_labels(self.labels)
        if RUN_LABEL in self.labels:
            raise ValueError(f"labels: {RUN_LABEL!r} is the executor's own label")
        self.task("true").json()
        self.resources.json()
        if self.policies is not None:
            self.policies.json()

    def task(self, command: str) -> Task:
        """The task that runs ``command`` under these options."""
        return Task(image=self.image, runtime=self.runtime, command=command, env=dict(self.env))


@dataclass(eq=False)
class Call:
    """One call: its number in the run, its pickled arguments, its future, and its place in its chunk."""

    index: int
    arguments: Blob
    future: ProminenceFuture[Any]
    chunk: Chunk = field(init=False, repr=False)
    streams: list[list[int]] | None = None  # [[stdout, stderr] at the start, the same at the end], bytes

    def stream(self, name: str) -> str:
        """This call's part of the job's stdout or stderr."""
        chunk = self.chunk
        if chunk.job_id is None:
            return ""
        content = chunk.run.read_stream(chunk.job_id, name)
        if self.streams and len(chunk.calls) > 1:
            column = 0 if name == "stdout" else 1
            content = content[self.streams[0][column] : self.streams[1][column]]
        return content.decode("utf-8", "replace")


@dataclass(eq=False)
class Chunk:
    """The calls that travel in one job, and what has become of it."""

    run: Run
    index: int  # the number of the job in the run; with the run's id it makes the job's name
    calls: list[Call]
    function: Blob | None
    modules: ModuleZip | None
    options: Options
    attempt: int = 1
    job_id: int | None = None
    status: str = "unsent"
    accepted_at: float = 0.0  # time.monotonic() of the answer to the POST
    uploaded: list[str] = field(default_factory=list)  # objects of this chunk alone, to delete when it is settled
    missed_since: float | None = None  # when the service first did not know the job any more
    misses: int = 0
    fetches: int = 0  # of its outcome, failed ones
    ended: bool = False  # all calls are settled
    terminated: bool = False  # by `ProminenceFuture.terminate`
    removing: bool = False  # its job or objects are being deleted

    def __post_init__(self) -> None:
        for call in self.calls:
            call.chunk = self
            call.future._call = call

    @property
    def name(self) -> str:
        return f"{self.run.run_id}/{self.index}"

    @property
    def identity(self) -> Identity:
        return Identity(self.run.run_id, self.index, self.attempt)

    def accepted(self, job_id: int) -> None:
        """The service has taken the job: the payload is there, and need not be kept here."""
        self.job_id = job_id
        self.status = "idle"
        self.accepted_at = time.monotonic()
        self.function = self.modules = None
        for call in self.calls:
            call.arguments = Blob()

    def cancelled(self) -> bool:
        """True when no call of the chunk is wanted any more."""
        return all(call.future.cancelled() for call in self.calls)

    def call_cancelled(self) -> None:
        """A future of this chunk was cancelled: when it was the last one, the job goes."""
        if self.cancelled():
            self.run.discard(self)

    def saw(self, status: str) -> None:
        """A poll has shown the job with this status."""
        self.status = status
        self.missed_since, self.misses = None, 0
        if status == "running":
            for call in self.calls:
                call.future.set_running_or_notify_cancel()

    def terminate(self) -> bool:
        """Delete the running job, and with it all calls of the chunk."""
        return self.run.terminate(self)

    def settle_all(self, error: BaseException) -> None:
        """Give the same exception to every call that has no outcome yet."""
        for call in self.calls:
            call.future._settle(False, error)
