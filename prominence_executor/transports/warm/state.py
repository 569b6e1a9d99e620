"""What is known of a warm worker: `Worker`, and what a user is shown of it, `WorkerInfo`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ...payload.modules import ModuleZip
from ...run.chunk import Chunk
from ...run.options import Options


@dataclass
class WorkerInfo:
    """One worker, as `ProminenceExecutor.workers` shows it."""

    number: int
    job_id: int | None
    state: str  # "starting", "idle" or "busy"
    calls: int  # done by it
    last_seen: float | None  # seconds since it said something
    requests: int  # that it had made by then


@dataclass(eq=False)
class Worker:
    number: int
    options: Options
    began: float
    modules: ModuleZip | None = None  # that it has from its start
    job_id: int | None = None
    doubted: float | None = None  # time.monotonic() when the POST of its job went unanswered
    nonce: str = ""  # known once it has said something
    batch: int = 0  # number of the last one that was sent
    chunks: dict[int, Chunk] = field(default_factory=dict)  # of the batch that it has, by their place in it
    known: set[str] = field(default_factory=set)  # functions, modules and objects that were sent to it
    heard: str = ""  # the beginning of what was read last: its signature
    seen: float = 0.0  # time.monotonic() of it
    idle_since: float = 0.0
    until: float = math.inf  # time.monotonic() at which its walltime is over
    total: float = math.inf  # seconds that it had at its start
    running: int | None = None
    calls: int = 0
    requests: int = 0
    unsigned: int = 0  # times in a row that what it says was not signed
    unread: bool = False  # its mailbox still holds what has been read
    sending: bool = False
