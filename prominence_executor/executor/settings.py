"""What an executor's user chooses, checked, and how its service is reached.

Values and checks only; with ``"local"`` the embedded service is started here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from ..client.auth import TokenSource
from ..client.client import ProminenceClient
from ..client.model import Resources
from ..client.profiles import Profile, checked_url, service_url
from ..errors import AuthenticationError, InvalidRequestError, ProminenceError, ServiceUnavailableError
from ..run.engine import ENGINE_LABEL, engine_label
from ..transports.warm.options import Warm, WarmOptions, resolved
from .auto_chunks import free_slots

_DIRECTORY = "~/.prominence/slurm"  # of the service of url="slurm": homes are shared by most clusters' nodes
_OF_SERVICE = (
    "dir",
    "poll_seconds",
    "look_seconds",
    "limits_seconds",
    "bind",
    "public_url",
    "containers",
)  # not said to Slurm
_NO_URL = (
    "there is no URL of a service: set PROMINENCE_URL, or give url='https://host/prominence/v1', or have one in a "
    "profile (prominence-executor config set url=https://...)"
)
_NO_CREDENTIAL = (
    "there is no token: set PROMINENCE_TOKEN, or give token=..., or put one into ~/.prominence/token, where "
    "'prominence login' puts it"
)
_TRY = "or try everything on this machine, without either: url='local'"
_REPEAT = 30.0  # seconds for which one request is repeated before sender or tracker look at what else is to do
_REPEAT_LASTING = 5.0  # the same before a service that may have been killed is started again


SERVICE_TIMEOUT = 900.0  # seconds, where nobody says anything else


@dataclass(frozen=True)
class RunSettings:
    """How a run is to be carried out."""

    max_workers: int | None  # jobs at the service at once; None: no limit
    poll_interval: tuple[float, float]  # seconds between two looks at the jobs, at least and at most
    service_timeout: float  # seconds for which the service may be away
    on_interrupt: str | None  # "delete" or "leave"; None: nobody has said
    lazy: bool  # large results stay at the service until they are asked for
    warm: WarmOptions | None = None  # None: every call has a job of its own
    cancel_running: bool = False  # `cancel` ends a call that runs, too
    name: str | None = None  # what the user calls the run
    patient: bool = False  # a service that has never answered is awaited as long as one that has


def run_settings(
    max_workers: int | None,
    poll_interval: float | tuple[float, float],
    service_timeout: float,
    on_interrupt: str | None,
    lazy: bool,
    warm: WarmOptions | None,
    cancel_running: bool = False,
) -> RunSettings:
    """Check the arguments of an executor that concern its run. ValueError: see `ProminenceExecutor`."""
    _check_workers(max_workers)
    if on_interrupt not in (None, "delete", "leave"):
        raise ValueError(f"on_interrupt must be 'delete' or 'leave', not {on_interrupt!r}")
    interval = _interval(poll_interval)
    most = max_workers if warm is None else warm.max_workers
    return RunSettings(most, interval, service_timeout, on_interrupt, bool(lazy), warm, bool(cancel_running))


def warm_options(workers: str | Warm | None, max_workers: int | None, **given: Any) -> WarmOptions | None:
    """Check the settings of warm workers; None where there are to be none. ValueError: see `ProminenceExecutor`.

    ``given``: the executor's keywords from before there was `Warm`; None where one is not given.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if workers is None:
        return None
    _check_workers(max_workers)
    if isinstance(workers, Warm):
        if given:
            raise ValueError(f"{', '.join(given)}: beside workers=Warm(...), it belongs into Warm")
        return resolved(workers, max_workers)
    if workers != "warm":
        raise ValueError(f"workers must be 'warm', Warm(...) or None, not {workers!r}")
    return resolved(Warm(**given), max_workers)


def check_chunksize(chunksize: int | str) -> int | None:
    """Return how many calls go into one job; None for ``"auto"``.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1, or another text.
    """
    if chunksize == "auto":
        return None
    if isinstance(chunksize, str):
        raise ValueError(f"chunksize must be at least 1, or 'auto', not {chunksize!r}")
    try:
        number = operator.index(chunksize)
    except TypeError:
        raise TypeError(f"chunksize must be an integer, not {chunksize!r}") from None
    if number < 1:
        raise ValueError(f"chunksize must be at least 1, not {chunksize!r}")
    return number


def check_buffersize(buffersize: int | None, chunksize: int | str) -> None:
    """Raise TypeError where it is no integer, ValueError where it is below 1, or given with ``chunksize="auto"``."""
    if buffersize is None:
        return
    if chunksize == "auto":
        raise ValueError("chunksize='auto' and buffersize exclude each other")
    if not isinstance(buffersize, int):
        raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
    if buffersize < 1:
        raise ValueError(f"buffersize must be None or at least 1, not {buffersize!r}")


def _check_workers(most: int | None) -> None:
    if most is None:
        return
    if not isinstance(most, Real):  # those of numpy are
        raise TypeError(f"max_workers must be a number, not {most!r}")
    if not most >= 1:
        raise ValueError(f"max_workers must be greater than 0, not {most!r}")
    if most < math.inf and most % 1:
        raise ValueError(f"max_workers must be a whole number, not {most!r}")


def _interval(given: float | tuple[float, float]) -> tuple[float, float]:
    shortest, longest = (given, given) if isinstance(given, (int, float)) else given
    if not 0 < shortest <= longest:
        raise ValueError(f"poll_interval must be seconds above 0, or the shortest and the longest, not {given!r}")
    return float(shortest), float(longest)


@dataclass(frozen=True)
class Service:
    """A service to run on: what makes a client, and what must be done when it is no longer needed.

    Attributes:
        on_death: has a function called with the error, if the service ends for good while it is needed.
        lasts: it outlives this program.
        revive: starts it again if it has ended, blocking; None where that is not this program's business.
    """

    connect: Callable[[], ProminenceClient]
    stop: Callable[[], None]
    on_death: Callable[[Callable[[ProminenceError], None]], None] = lambda told: None
    lasts: bool = True
    revive: Callable[[], None] | None = None


def find_service(
    url: str | None,
    token: str | Callable[[], str] | None,
    service_timeout: float,
    max_workers: int | None = None,
    resources: Resources | None = None,
    engine: Mapping[str, str] | None = None,
    profile: str | None = None,
    *,
    start: bool = True,
) -> Service:
    """Find the service that an executor's arguments, or the environment, name; starts it where that is ``"local"``.

    The one of ``"slurm"`` is found where it serves, or started, and stays.

    Args:
        max_workers, resources: so many calls that ask for that are to run at once, on a service started here.
        engine: what is said to Slurm for every job, and to a service that is started: ``dir``, its directory, ...
        profile: the name of the profile that says what is not given.
        start: start the one of ``"slurm"``; else it must be there already.

    Raises:
        ServiceUnavailableError: it is not, and is not to be started.
        AuthenticationError: there is no token, or it has expired; the sentence says whether the URL is missing, too.
        ValueError: there is no URL, or it is not valid; this is said first.
        TypeError: it is a number.
        ImportError: ``"local"`` without the extra ``local``.
        RuntimeError: the service of ``"slurm"`` did not start, or runs on another host.
    """
    if isinstance(url, int):  # a process pool's first argument
        raise TypeError(f"url must be the service's URL, not {url}: a number of workers is max_workers={url}")
    retry_for = min(_REPEAT, service_timeout)
    url = url or service_url(profile)
    if url == "slurm":
        return _lasting(url, dict(engine or {}), min(_REPEAT_LASTING, service_timeout), start)
    if url != "local":
        if url:
            checked_url(url)
        tokens = TokenSource(token, profile, url)
        # What is missing is better said here than by the first future.
        _check_set_up(url, tokens, f"; {_TRY}" if start else "")
        return Service(lambda: ProminenceClient(url, tokens, retry_for=retry_for), lambda: None)
    from ..service.launch import launch  # the one line of the core that knows of the embedded service

    embedded = launch(*_slots(max_workers or 0, resources or Resources()))

    def connect() -> ProminenceClient:
        if embedded.died is not None:
            raise ServiceUnavailableError(embedded.died)
        return ProminenceClient(embedded.url, embedded.token, retry_for=retry_for)

    def on_death(told: Callable[[ProminenceError], None]) -> None:
        embedded.on_death(lambda reason: told(ServiceUnavailableError(reason)))

    return Service(connect, embedded.stop, on_death, lasts=False)


def _lasting(name: str, options: dict[str, str], retry_for: float, start: bool) -> Service:
    """Find or start the service of a batch system, and keep it until it is not needed any more."""
    from ..service.found import find_or_start, find_running, needed

    directory = Path(options.pop("dir", _DIRECTORY)).expanduser()
    if not start and find_running(directory) is None:
        raise ServiceUnavailableError(
            f"no service of url={name!r} runs in {directory}: the next program that uses it starts it, and then it "
            "knows its runs again"
        )
    find_or_start(name, directory, options)
    release = needed(directory)
    clients: WeakSet[ProminenceClient] = WeakSet()
    adding = Lock()

    def connect() -> ProminenceClient:
        try:  # what futures ask after the run may be long after the service has ended
            found = find_or_start(name, directory, options)
        except RuntimeError as error:
            raise ServiceUnavailableError(str(error)) from error
        serving = found.serving
        client = ProminenceClient(serving.url, found.token, retry_for=retry_for, verify=serving.cafile)
        client.api.known_by(found.expected)
        with adding:
            clients.add(client)
        return client

    def revive() -> None:
        with connect() as again:
            with adding:
                known = list(clients)
            for client in known:  # the tokens are the same; the port is, too, unless another program has taken it
                if client.url != again.url and again.api.known is not None:
                    client.api.move(again.url, again.api.known)

    return Service(connect, release, revive=revive)


def _check_set_up(url: str | None, tokens: TokenSource, instead: str) -> None:
    """Say in one sentence all that is missing, how each is set, and what to do instead.

    Raises:
        AuthenticationError: there is no token, or it has expired.
        InvalidRequestError: there is no URL.
    """
    try:
        tokens.get()
    except AuthenticationError as error:
        if url:
            text = f"{error} (or try everything on this machine, without a token: url='local')"
            raise AuthenticationError(text if tokens.is_missing and instead else str(error)) from None
        token = _NO_CREDENTIAL if tokens.is_missing else str(error)
        raise AuthenticationError(f"{_NO_URL}; {token}{instead}") from None
    if not url:
        raise InvalidRequestError(f"{_NO_URL}{instead}")


def fitting(
    settings: RunSettings, service: Service, workers: object, max_workers: int | None, resources: Resources
) -> RunSettings:
    """Return settings with at most the warm workers that a service of this program has room for.

    Unless their number is said. One request to such a service, none to others.
    """
    warm = settings.warm
    if warm is None or service.lasts or max_workers or (isinstance(workers, Warm) and workers.max_workers):
        return settings
    with service.connect() as client:
        slots = free_slots(client.resources(), resources.json(), "capacity") or warm.max_workers
    most = max(1, warm.min_workers, min(slots, warm.max_workers))
    return replace(settings, max_workers=most, warm=replace(warm, max_workers=most))


def usual_resources(profile: Profile) -> Resources | None:
    """Return what a profile says of resources, if it says anything. InvalidRequestError: it is no number."""
    given = profile.resources()
    if not given:
        return None
    resources = Resources()
    for name, value in given.items():
        setattr(resources, name, value)
    return resources


def engine_labels(
    labels: Mapping[str, str] | None, engine: Mapping[str, str] | None, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return labels with the one that says something to the engine; without ``engine`` that of ``before``.

    Raises:
        ValueError: it is not text by names, or too long for a label.
    """
    before = before or {}
    given = {name: text for name, text in before.items() if name != ENGINE_LABEL} if labels is None else dict(labels)
    if engine is None:
        kept = {ENGINE_LABEL: before[ENGINE_LABEL]} if ENGINE_LABEL in before else {}
    else:
        kept = engine_label(engine_options(engine))
    return {**given, **kept}


def engine_options(engine: Mapping[str, str] | None) -> dict[str, str]:
    """Return what is said to the engine: all but what its service is told."""
    return {name: value for name, value in (engine or {}).items() if name not in _OF_SERVICE}


def _slots(jobs: int, resources: Resources) -> tuple[int, int]:
    """Return the CPUs, and the memory in GB, that so many jobs take at most when they run at once."""
    wire = resources.json()
    cpus = wire.get("cpus") or max(wire.get("cpusRange") or wire.get("cpusOptions") or (1,))
    nodes = wire.get("nodes") or -(-max(wire.get("totalCpusRange") or (1,)) // cpus)
    memory = wire.get("memory") or cpus * wire["memoryPerCpu"]
    return jobs * cpus * nodes, jobs * memory * nodes
