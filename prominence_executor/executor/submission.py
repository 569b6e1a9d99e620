"""From calls to what is queued: pickles a chunk of calls, and packs what has to travel with it.

What cannot be pickled is that call's exception, as in the standard library. In the caller's thread; it queues nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from ..payload.calls import Payload
from ..payload.dependencies import Value, Waits, joined
from ..payload.pickling import Pickled, dumps
from ..public import public
from ..run.future import ProminenceFuture, need, settle
from ..run.objects import RefCache
from .arguments import MODULES
from .function import PickledFunction

Call = tuple[tuple[Any, ...], dict[str, Any]]
ValueOf = Callable[[Future[Any]], Value]


@dataclass(frozen=True)
class PackedCalls:
    """A chunk of calls.

    Attributes:
        payloads: of those that could be pickled, in their order; those with a future that is not done each have one.
        failed: a future for each call: of one that could not be pickled, else None.
    """

    payloads: list[Payload]
    failed: list[ProminenceFuture[Any] | None]


class _PickledCall(NamedTuple):
    """A call whose futures are known, or waited for."""

    arguments: Pickled
    known: dict[int, Value]
    futures: dict[int, Future[Any]]  # that are not done


def pack(
    function: PickledFunction,
    calls: Sequence[Call],
    data_limit: float,
    known: RefCache | None = None,
    *,
    value_of: ValueOf,
    together: int = 1,
) -> PackedCalls:
    """Pickle calls of a function.

    Args:
        data_limit: megabytes of data that may go with the user's packages.
        known: see `Objects.dumps`.
        value_of: gives what takes the place of a future that has a result.
        together: of calls that wait for futures, how many may share a job when they are ready.
    """
    failed: list[ProminenceFuture[Any] | None] = []
    pickled: list[_PickledCall] = []
    for args, kwargs in calls:
        try:
            ours = function.for_one_more_call()
            pickled.append(_with_values(function.arguments(args, kwargs, known), value_of))
        except Exception as error:  # noqa: BLE001  __reduce__ is somebody else's code; the future carries it
            future: ProminenceFuture[Any] = ProminenceFuture()
            settle(future, False, error)
            failed.append(future)
        else:
            failed.append(None)
    payloads: list[Payload] = []
    for waits, group in groupby(pickled, key=lambda call: bool(call.futures)):
        if not waits:
            payloads.append(_payload(ours, list(group), function.name, data_limit))
        else:
            payloads += [_waiting(ours, call, function.name, data_limit, together) for call in group]
    return PackedCalls(payloads, failed)


def _with_values(arguments: Pickled, value_of: ValueOf) -> _PickledCall:
    """Take what futures that are done have now: later their results may have been changed."""
    known, futures = {}, {}
    for number, future in enumerate(arguments.futures):
        if future.done() and not future.cancelled() and Future.exception(future) is None:
            known[number] = value_of(future)
            continue
        futures[number] = future
        if isinstance(future, ProminenceFuture):
            need(future)
    return _PickledCall(arguments, known, futures)


def _payload(function: Pickled, calls: Sequence[_PickledCall], name: str, data_limit: float) -> Payload:
    """Pack calls that can be sent."""
    values = [value for call in calls for value in call.known.values()]
    parts: list[Pickled | Value] = [*(call.arguments for call in calls), *values]
    modules = function.modules.union(*[part.modules for part in parts])
    code = function.code.union(*[part.code for part in parts])
    return Payload(
        function.blob,
        [joined(call.arguments.blob, call.known) if call.known else call.arguments.blob for call in calls],
        MODULES.pack(modules, code, data_limit),
        function.objects.union(*[part.objects for part in parts]),
        name,
        frozenset([value.stored for value in values if value.stored is not None]),
    )


def _waiting(function: Pickled, call: _PickledCall, name: str, data_limit: float, together: int) -> Payload:
    """Pack a call that waits for others: as it is, and what is known of it."""
    arguments, known = call.arguments, call.known.values()
    modules = function.modules.union(arguments.modules, *(value.modules for value in known))
    code = function.code.union(arguments.code, *(value.code for value in known))
    waits = Waits(call.futures, call.known, modules, code, data_limit, together, function.blob)
    return Payload(
        function.blob,
        [arguments.blob],
        MODULES.pack(modules, code, data_limit),
        function.objects.union(arguments.objects, *(value.objects for value in known)),
        name,
        frozenset(value.stored for value in known if value.stored is not None),
        waits,
    )


def in_order(packed: Iterable[PackedCalls], sent: Sequence[ProminenceFuture[Any]]) -> list[ProminenceFuture[Any]]:
    """Return the futures of all calls: those that failed at once in their places among those that were sent."""
    others = iter(sent)
    return [future or next(others) for chunk in packed for future in chunk.failed]


@public
def local_sources(function: Callable[..., Any]) -> dict[str, bytes]:
    """Return the sources of the user's own modules that travel with calls of a function, by their names there.

    Raises:
        Exception: what pickling the function raises.
    """
    pickled = dumps(function)
    return MODULES.sources(pickled.modules, pickled.code)
