"""Values that the executor's rooms hand to each other: `Options`, `Chunk` and `Array`.

A chunk is what travels as one job: one call, or the several that ``map(chunksize=n)`` puts together, whose numbers in
the run follow one another. It holds state and no behaviour of its own: no HTTP, no threads; what it must have done it
asks of its `Run`. Several chunks that are submitted together make an array: one workflow, in which each has a job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ..client.model import JobPolicies, Resources, Task, check_labels
from ..images.files import resolved
from ..payload.calls import Identity, Payload
from ..payload.files import Files, checked_files, checked_outputs, seen_again
from ..payload.instructions import PYTHON
from ..transports.warm.mailboxes import without_outcomes
from .future import ProminenceFuture
from .names import Calls, Span, array_name, job_name

if TYPE_CHECKING:
    from ..executor.auto_chunks import Held
    from ..executor.run import Run

RUN_LABEL = "pxrun"
WORKER_LABEL = "pxwarm"  # of jobs that are warm workers
MPI_TYPES = ("openmpi", "intelmpi", "mpich")


class Carrier(Protocol):
    """Who looks after chunks that warm workers have."""

    def discard(self, chunk: Chunk) -> None:
        """All calls of the chunk were cancelled."""

    def terminate(self, chunk: Chunk) -> None:
        """End the process of a chunk that runs."""


@dataclass(frozen=True)
class Options:
    """How a call's job is to run; `ProminenceExecutor.with_options` replaces some of them for some calls."""

    image: str = f"python:{PYTHON}-slim"  # or the absolute path of a file of this machine
    runtime: str | None = None
    resources: Resources = field(default_factory=Resources)
    policies: JobPolicies | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0  # more jobs for a call whose job ended without an outcome
    files: Files = field(default_factory=dict)  # by the name in the call's working directory
    outputs: tuple[str, ...] = ()  # patterns of files that come back
    outputs_dir: str | None = None  # where they go; None: a temporary directory
    task_type: str = "basic"
    procs_per_node: int | None = None

    def changed(self, **changes: Any) -> Options:
        """A checked copy with some options replaced; None leaves one as it is.

        Raises:
            ValueError: a value that the service would not take.
            FileNotFoundError: a file that is not there, or an image that is to be a file of this machine.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        for name, checked in (("files", checked_files), ("outputs", checked_outputs), ("outputs_dir", os.path.abspath)):
            if name in changes:
                changes[name] = checked(changes[name])
        if isinstance(changes.get("image"), (str, os.PathLike)):
            changes["image"] = resolved(changes["image"])
        changed = replace(self, **changes)
        changed.check()
        return changed

    @cached_property
    def of_worker(self) -> Options:
        """Those of a warm worker that can run such calls: retries are the calls' own."""
        return replace(self, retries=0) if self.retries else self

    def check(self) -> None:
        """Raise ValueError for what the service would not take, naming the field."""
        if not self.image or not isinstance(self.image, str):
            raise ValueError(f"image must name a container image, not {self.image!r}")
        check_labels(self.labels)
        for own in (RUN_LABEL, WORKER_LABEL):
            if own in self.labels:
                raise ValueError(f"labels: {own!r} is the executor's own label")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"retries must be 0 or more, not {self.retries!r}")
        if self.task_type not in ("basic", *MPI_TYPES):
            raise ValueError(f"task_type must be one of basic, {', '.join(MPI_TYPES)}, not {self.task_type!r}")
        self.task("true").json()
        self.resources.json()
        if self.policies is not None:
            self.policies.json()

    def fresh(self) -> Options:
        """The same with the local files as they are now. FileNotFoundError: one is no more."""
        files = seen_again(self.files)
        return self if files is self.files else replace(self, files=files)

    def task(self, command: str) -> Task:
        """The task that runs ``command`` under these options."""
        return Task(
            image=self.image,
            runtime=self.runtime,
            command=command,
            env=dict(self.env),
            type=self.task_type,
            procs_per_node=self.procs_per_node,
        )

    @property
    def needs_job(self) -> bool:
        """Whether its calls need jobs of their own, and cannot go to warm workers."""
        return bool(self.files or self.outputs or self.task_type != "basic")


@dataclass(eq=False, slots=True)
class Chunk:
    """The calls that travel in one job, and what has become of it."""

    run: Run
    first: int  # the number in the run of the first call
    calls: list[ProminenceFuture[Any]]  # empty once the chunk is over, so that no future keeps another's result
    options: Options
    payload: Payload | None = None  # None once it is at the service, and cannot be needed for another attempt
    attempt: int = 1
    held: Held | None = None  # of a ``map`` that asks its first calls how to divide the rest
    array: Array | None = None  # in which its job is one of many
    job_id: int | None = None  # of a job in an array known once the job has been seen
    status: str = "unsent"
    accepted_at: float = 0.0  # time.monotonic() of the answer to the POST
    uploaded: frozenset[str] = frozenset()  # objects of this chunk alone, to delete when it is settled
    missed_since: float | None = None  # when the service first did not know the job any more
    misses: int = 0
    fetches: int = 0  # of its outcome, failed ones
    fetching_since: float | None = None  # when the first one failed
    fetch_at: float = 0.0  # when the next one may be tried
    damaged: bytes | None = None  # digest of an outcome file without an end
    in_doubt: bool = False  # a POST of it may have been carried out though nobody knows
    ended: bool = False  # all calls are settled
    terminated: bool = False  # by `ProminenceFuture.terminate`
    carrier: Carrier | None = None  # of a chunk that a warm worker has or is to have; else it has a job of its own
    losses: int = 0  # warm workers that were lost with it
    needs: float = 0.0  # seconds that a warm worker must have left, as one did not have enough
    removing: bool = False  # its job or objects are being deleted
    size: int = field(init=False)  # how many calls it has, or had

    def __post_init__(self) -> None:
        self.size = len(self.calls)
        for call in self.calls:
            if not call.done():
                call._chunk = self

    @property
    def name(self) -> str:
        """The job's, or the one that it would have outside of an array."""
        return job_name(self.run.run_id, Calls(self.first, self.size, self.attempt))

    @property
    def warm(self) -> bool:
        """Whether it goes to a warm worker."""
        return self.carrier is not None

    @property
    def identity(self) -> Identity:
        return Identity(self.run.run_id, self.first, self.attempt)

    def accepted(self, job_id: int | None) -> None:
        """The service has taken the job: the payload is there, and is kept here only if it may be sent again."""
        self.job_id = job_id
        self.status = "idle"
        self.accepted_at = time.monotonic()
        if not self.may_repeat():
            self.payload = None

    def may_repeat(self) -> bool:
        """True when the calls may have another attempt."""
        return self.payload is not None and self.attempt <= self.options.retries and not self.terminated

    def cancelled(self) -> bool:
        """True when no call of the chunk is wanted any more."""
        return all(call.cancelled() for call in self.calls)

    def is_wanted(self) -> bool:
        """False when all of its calls are done, whatever became of them."""
        return not all(call.done() for call in self.calls)

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
                call.set_running_or_notify_cancel()

    def terminate(self) -> bool:
        """Delete the running job, and with it all calls of the chunk."""
        return self.run.terminate(self)

    def settle_all(self, error: BaseException) -> None:
        """Give the same exception to every call that has no outcome yet."""
        for call in self.calls:
            call._settle(False, error)

    def let_go(self) -> None:
        """The chunk is over: it keeps no payload, and no results."""
        self.calls, self.payload = [], None

    def stream(self, call: ProminenceFuture[Any], name: str) -> str:
        """A call's part of the job's stdout or stderr."""
        if self.job_id is None:
            return ""
        job_id = self.job_id
        content = self.run.ask(lambda client: client.stdout(job_id) if name == "stdout" else client.stderr(job_id))
        if call._streams and (self.size > 1 or self.warm):
            column = 0 if name == "stdout" else 1
            content = content[call._streams[0][column] : call._streams[1][column]]
        return (without_outcomes(content) if self.warm else content).decode("utf-8", "replace")


@dataclass(eq=False)
class Array:
    """Chunks whose calls follow one another, equal in size but for the last, that become one workflow."""

    run_id: str
    span: Span
    left: dict[int, Chunk] = field(default_factory=dict)  # the chunks that are not over, by their position
    wanted: set[int] = field(default_factory=set)  # positions of those with a call that still needs its job
    workflow_id: int | None = None
    accepted_at: float = 0.0  # time.monotonic() of the answer to the POST
    seen: int = -1  # the highest position whose job has been seen
    ask_at: float = 0.0  # when the workflow itself is to be asked about
    asked: int = 0  # how often it has been
    bundle: str = ""  # the object that its jobs share, to delete when all are over

    @property
    def name(self) -> str:
        return array_name(self.run_id, self.span)

    @classmethod
    def of(cls, chunks: list[Chunk]) -> Array:
        """The array of these chunks."""
        first, last = chunks[0], chunks[-1]
        span = Span(first.first, last.first + last.size - 1, first.size, first.attempt)
        array = cls(first.run.run_id, span)
        for chunk in chunks:
            array.add(chunk)
        return array

    def add(self, chunk: Chunk) -> None:
        """The chunk's job is one of this array's."""
        position = self.position(chunk)
        self.left[position] = chunk
        self.wanted.add(position)
        chunk.array = self
        if not chunk.is_wanted():  # it was cancelled a moment ago
            self.wanted.discard(position)

    def is_wanted(self) -> bool:
        """False when no call of it needs a job any more."""
        return bool(self.wanted)

    def position(self, chunk: Chunk) -> int:
        return (chunk.first - self.span.first) // self.span.size
