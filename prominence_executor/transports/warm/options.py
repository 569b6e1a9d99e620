"""How many warm workers, and for how long: `Warm` as users say it, `WarmOptions` with nothing left open."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...public import public

_WORKERS = 8  # at most, by default
_RATE = 200.0  # requests per second of warm workers and their client


@dataclass(frozen=True)
class WarmOptions:
    """How many workers, and for how long."""

    min_workers: int = 0
    max_workers: int = _WORKERS
    idle_timeout: float = 300.0  # seconds
    max_attempts: int = 3  # workers that may be lost with a call
    max_requests_per_second: float = _RATE  # of client and workers together, while work flows
    bounded: bool = True  # also where the service lets requests wait, so that nobody looks without need


@public
@dataclass(frozen=True, kw_only=True)
class Warm:
    """The settings of warm workers: ``ProminenceExecutor(workers=Warm(max_workers=4, idle_timeout=60))``.

    Args:
        max_workers, min_workers: at most (by default the executor's ``max_workers``, or 8) and at least so many; they
            are started for calls.
        idle_timeout: seconds after which a worker without calls ends. Workers whose program is gone end after two
            minutes more, or after ``service_timeout``, whichever is later.
        max_attempts: workers that may be lost with a call before it raises `WorkerLostError`.
        max_requests_per_second: to the key-value store, of this program (one half) and all workers that have calls (the
            other); those without ask ever less often, in the end every two seconds. By default 200; but where the
            service lets requests wait, nobody looks, and what calls need is sent at once.

    Raises:
        ValueError: a value that makes no sense.
    """

    max_workers: int | None = None
    min_workers: int = 0
    idle_timeout: float = 300.0
    max_attempts: int = 3
    max_requests_per_second: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.max_workers is not None and self.max_workers < 1:
            raise ValueError(f"max_workers must be greater than 0, not {self.max_workers!r}")
        most = self.max_workers or max(_WORKERS, self.min_workers)
        if not 0 <= self.min_workers <= most:
            raise ValueError(f"min_workers must be 0 to max_workers, {most}, not {self.min_workers!r}")
        for name in ("idle_timeout", "max_requests_per_second"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            text = "max_attempts, the workers that a call may cost, must be 1 or more, not"
            raise ValueError(f"{text} {self.max_attempts!r}")


def resolved(settings: Warm, max_workers: int | None) -> WarmOptions:
    """Return the settings for an executor with such ``max_workers``. ValueError: they do not fit together."""
    given = {field.name: getattr(settings, field.name) for field in fields(settings)}
    given["bounded"] = settings.max_requests_per_second is not None
    if not given["bounded"]:
        given["max_requests_per_second"] = _RATE
    if settings.max_workers is None:
        given["max_workers"] = max_workers or _WORKERS
    elif max_workers not in (None, settings.max_workers):
        twice = f"{max_workers!r}, and {settings.max_workers!r} in workers=Warm()"
        raise ValueError(f"max_workers is given twice: {twice}")
    most = given["max_workers"]
    if settings.min_workers > most:
        raise ValueError(f"min_workers must be 0 to max_workers, {most}, not {settings.min_workers!r}")
    for name in ("min_workers", "max_workers"):
        if given[name] % 1:  # so it is of infinity
            raise ValueError(f"{name} must be a whole number for warm workers, not {given[name]!r}")
        given[name] = int(given[name])
    return WarmOptions(**given)
