"""Another attempt for calls that failed: what a user asks for (`Retry`), whether there is one, and with what.

Pure: no HTTP, no threads. It decides; settle.py asks, and who sends calls again does so.
"""

from __future__ import annotations

import importlib
import logging
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from ..client.model import Resources
from ..errors import JobError, OutOfMemoryError, TimeLimitExceededError, WalltimeExceededError
from ..public import public

_LOG = logging.getLogger("prominence_executor")

Kinds = type[BaseException] | tuple[type[BaseException], ...]


@public
@dataclass(frozen=True)
class Retry:
    """How calls that fail are sent again: after what, how often, how soon, and with more of what they lacked.

    As ``retries=n`` does, it sends calls again whose job ended without an outcome. Of the calls of a chunk only those
    go again that have none; the one that was running goes alone, and it alone asks for more, if that is known.
    """

    max_retries: int = 3
    """More attempts at most, of whatever kind."""
    memory_factor: float = 2.0
    """After out of memory (`OutOfMemoryError`, or a MemoryError that ``retry_on`` names) the next attempt asks for so
    many times the memory, rounded up to whole GB. 1: for the same."""
    max_memory: int | None = None
    """GB of a job, beyond which none asks; a call that has run out of so much is not sent again. None: no bound."""
    walltime_factor: float = 1.5
    """After the walltime was exceeded the next attempt asks for so many times as much, in whole minutes."""
    max_walltime: int | None = None
    """Minutes, as ``max_memory``."""
    retry_on: Kinds = ()
    """Classes of exceptions that a call may raise, and is then sent again for; else it never is. Besides, a
    `TimeLimitExceededError` only when it, or a base of it, is named here. Matched in this program."""
    delay: float = 0.0
    """Seconds from a failure to the next attempt. The future stays as it is; no thread waits. ``shutdown(
    cancel_futures=True)`` ends the wait: the future then has the failure."""
    backoff: float = 2.0
    """The delay before each further attempt is so many times as long as the one before."""

    def __post_init__(self) -> None:
        _check(_is_whole(self.max_retries, 0), "max_retries must be 0 or more", self.max_retries)
        for name in ("memory_factor", "walltime_factor", "backoff"):
            _check(_is_number(getattr(self, name), 1), f"{name} must be 1 or more", getattr(self, name))
        for name in ("max_memory", "max_walltime"):
            value = getattr(self, name)
            _check(value is None or _is_whole(value, 1), f"{name} must be None, or a whole number above 0", value)
        _check(_is_number(self.delay, 0), "delay must be 0 seconds or more", self.delay)
        kinds = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        good = all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
        _check(good, "retry_on must be a class of exceptions, or a tuple of such", self.retry_on)

    def pause(self, attempt: int) -> float:
        """Return the seconds between an attempt, counted from 1, and the next one."""
        if not self.delay:
            return 0.0  # however often
        try:
            return self.delay * self.backoff ** (attempt - 1)
        except OverflowError:
            return math.inf


@public
@dataclass(frozen=True)
class Attempt:
    """One attempt at a call, as ``future.history`` shows it."""

    job_id: int | None
    """The service's number of the job; None while there is none. Warm workers keep theirs for many calls."""
    resources: Resources
    """What the job asked for."""
    seconds: float | None
    """That the call took, or, where it left no outcome, its job, as far as the service tells; else None."""
    end: str
    """``"result"``, ``"cancelled"``, or the name of the exception's class; empty while it has not ended."""
    error: BaseException | None = None
    """The exception itself."""


class Again(NamedTuple):
    """Calls of a chunk that are to have another attempt together."""

    positions: list[int]
    resources: Resources
    delay: float  # seconds


Retries = int | Retry


def most(retries: Retries) -> int:
    """Return how many more attempts there may be."""
    return retries.max_retries if isinstance(retries, Retry) else retries


def check_retries(retries: object) -> None:
    """Raise ValueError unless it is a number of retries, or a `Retry`."""
    if not isinstance(retries, Retry) and not _is_whole(retries, 0):
        raise ValueError(f"retries must be 0 or more, or a Retry, not {retries!r}")


def repeats_raised(retries: Retries, error: BaseException) -> bool:
    """Return whether a call that raised this is sent again."""
    return isinstance(retries, Retry) and isinstance(error, retries.retry_on)


def learns_from(retries: Retries, error: BaseException) -> bool:
    """Return whether the next attempt is to ask for more after this failure of a job."""
    return isinstance(retries, Retry) and isinstance(error, (OutOfMemoryError, WalltimeExceededError))


def resources_after(
    retries: Retries, resources: Resources, error: BaseException, *, is_culprit: bool
) -> Resources | None:
    """Decide what the next attempt asks for after this failure; None: there is to be none.

    ``is_culprit``: the call itself has failed, or nobody knows; else another one of its job.
    """
    if not repeats_raised(retries, error) and (
        not isinstance(error, JobError) or isinstance(error, TimeLimitExceededError)
    ):
        return None
    if not isinstance(retries, Retry) or not is_culprit:
        return resources
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return _with_more_memory(retries, resources)
    if isinstance(error, WalltimeExceededError):
        minutes = int(resources.json()["walltime"])
        return _grown(resources, "walltime", minutes, retries.walltime_factor, retries.max_walltime)
    return resources


def _with_more_memory(retry: Retry, resources: Resources) -> Resources | None:
    wire = resources.json()
    if "memory" in wire:
        return _grown(resources, "memory", wire["memory"], retry.memory_factor, retry.max_memory)
    cpus = wire.get("cpus") or max(wire.get("cpusRange") or wire.get("cpusOptions") or (1,))
    bound = None if retry.max_memory is None else retry.max_memory // cpus
    return _grown(resources, "memory_per_cpu", wire["memoryPerCpu"], retry.memory_factor, bound)


def _grown(resources: Resources, name: str, now: int, factor: float, bound: int | None) -> Resources | None:
    """Return resources with more of one; None when the bound, or the service's, allows no more than there is."""
    if factor == 1:
        return resources
    wanted = max(now + 1, math.ceil(min(now * factor, 1e9)))
    wanted = wanted if bound is None else min(wanted, bound)
    change: dict[str, Any] = {name: wanted}
    grown = replace(resources, **change)
    try:
        grown.json()
    except ValueError:
        return None
    return grown if wanted > now else None


def groups(
    after: Mapping[int, Resources], *, alone: int | None, cancelled: Callable[[int], bool], delay: float
) -> list[Again]:
    """Put calls together that follow one another and ask for the same.

    Args:
        after: what each is to ask for, by its position.
        alone: the one that was running when its job ended, if one was: it may have ended it.
        cancelled: whether the call at a position is nobody's; then it may lie between others.
    """
    found: list[Again] = []
    for position in sorted(after):
        last = found[-1] if found else None
        if (
            last is not None
            and alone not in (position, last.positions[-1])
            and last.resources == after[position]
            and all(cancelled(between) for between in range(last.positions[-1] + 1, position))
        ):
            last.positions.append(position)
        else:
            found.append(Again([position], after[position], delay))
    return found


# -- in a journal ------------------------------------------------------------------------------------------------------


def plain(retries: Retries) -> object:
    """Return it as JSON can hold it; classes of exceptions by their names."""
    if not isinstance(retries, Retry):
        return retries
    kinds = retries.retry_on if isinstance(retries.retry_on, tuple) else (retries.retry_on,)
    values = {field.name: getattr(retries, field.name) for field in fields(retries)}
    return {**values, "retry_on": [f"{kind.__module__}:{kind.__qualname__}" for kind in kinds]}


def from_plain(value: Any) -> Retries:
    """Invert `plain`; a class that this program does not have is left out, and a warning names it."""
    if not isinstance(value, dict):
        return int(value)
    kinds = [kind for name in value["retry_on"] if (kind := _named(name)) is not None]
    return Retry(**{**value, "retry_on": tuple(kinds)})


def _named(name: str) -> type[BaseException] | None:
    module, _, path = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    except Exception as error:  # noqa: BLE001  importing is somebody else's code
        _LOG.info("%s is not found: %s", name, error)
    _LOG.warning("calls are not sent again for %s, which their Retry names: this program has no such class", name)
    return None


def _is_number(value: object, least: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check(good: bool, sentence: str, value: object) -> None:
    if not good:
        raise ValueError(f"Retry: {sentence}, not {value!r}")
