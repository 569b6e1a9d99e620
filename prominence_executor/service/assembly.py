"""The parts of one service, put together. Imported when a service starts, since all of it costs time."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from .containers.base import Containers
from .engines.base import Limits
from .engines.batch import BatchEngine
from .engines.local import LocalEngine
from .engines.slurm.system import Slurm
from .execution.context import ServiceContext
from .execution.notifications import Mail
from .execution.scheduler import Scheduler
from .execution.workflows import Workflows
from .http import server
from .http.app import Application
from .node.platform import Platform
from .state.clock import Clock
from .state.objects import ObjectStore
from .state.vital import VitalThreads


@dataclass(frozen=True)
class Place:
    """What every engine needs of its service."""

    directory: Path
    objects: ObjectStore
    containers: Containers
    platform: Platform
    seconds_per_minute: float
    clock: Clock
    vital: VitalThreads


def local(place: Place, cpus: int, memory: int) -> LocalEngine:
    """Return the engine that runs jobs on this machine."""
    return LocalEngine(
        place.directory, Limits(cpus, memory), place.objects, place.containers, place.platform,
        place.seconds_per_minute, place.clock, place.vital,
    )  # fmt: skip


def slurm(place: Place, containers: str, options: dict[str, str]) -> BatchEngine:
    """Return the engine that submits jobs to Slurm. Raises ValueError and RuntimeError for options that cannot be."""
    poll, look = _seconds(options, "poll_seconds", 2.0), _seconds(options, "look_seconds", 1.0)
    limits, own = _seconds(options, "limits_seconds", 600.0), ("poll_seconds", "look_seconds", "limits_seconds")
    system = Slurm({name: value for name, value in options.items() if name not in own}, limits)
    return BatchEngine(system, place.directory, containers, place.seconds_per_minute, place.vital, poll, look)


def _seconds(options: dict[str, str], name: str, usual: float) -> float:
    """Return an option of seconds. Raises ValueError with a sentence."""
    try:
        seconds = float(options.get(name, usual))
    except ValueError:
        raise ValueError(f"{name} must be seconds, not {options[name]!r}") from None
    if not 0.1 <= seconds <= 3600:
        raise ValueError(f"{name} must be 0.1 to 3600, not {seconds!r}")
    return seconds


def run(
    stack: ExitStack,
    context: ServiceContext,
    listener: socket.socket,
    secured: ssl.SSLContext | None,
    smtp: str | None,
) -> Callable[[], float]:
    """Start every thread of a service and listen; the stack stops them. Return what tells when it was last asked.

    Raises:
        RuntimeError: the engine cannot be used.
        ValueError: `smtp` is not "HOST:PORT".
    """
    store, vital = context.store, context.vital
    scheduler = Scheduler(context)
    workflows = Workflows(store, scheduler, context.engine)
    mail = Mail(store, context.directory / "mail", smtp, vital)
    scheduler.on_ended = (workflows.job_ended, mail.job_ended)
    application = stack.enter_context(closing(Application(context, scheduler, workflows)))
    http = server.Server(application, application.wake, listener, secured)
    stack.callback(http.stop)
    mail.start()
    stack.callback(mail.stop)
    scheduler.start()
    stack.callback(scheduler.stop)
    workflows.recover()
    http.start()
    stack.callback(vital.close)
    return lambda: application.asked_at
