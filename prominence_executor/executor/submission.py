"""From calls to what is queued: pickles a chunk of calls, and packs what has to travel with it.

What cannot be pickled is that call's exception, as in the standard library. In the caller's thread; it queues nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..payload.calls import Payload
from ..payload.modules import LocalModules
from ..payload.pickling import Pickled, dumps
from ..public import public
from ..run.future import ProminenceFuture, settle
from ..run.objects import RefCache
from .function import PickledFunction

MODULES = LocalModules()

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class PackedCalls:
    """A chunk of calls.

    Attributes:
        payload: of those that could be pickled; None if none could.
        failed: a future for each call: of one that could not be pickled, else None.
    """

    payload: Payload | None
    failed: list[ProminenceFuture[Any] | None]


def pack(
    function: PickledFunction, calls: Sequence[Call], data_limit: float, known: RefCache | None = None
) -> PackedCalls:
    """Pickle calls of a function.

    Args:
        data_limit: megabytes of data that may go with the user's packages.
        known: see `Objects.dumps`.
    """
    failed: list[ProminenceFuture[Any] | None] = []
    pickled: list[Pickled] = []
    for args, kwargs in calls:
        try:
            ours = function.for_one_more_call()
            pickled.append(function.arguments(args, kwargs, known))
        except Exception as error:  # noqa: BLE001  __reduce__ is somebody else's code; the future carries it
            future: ProminenceFuture[Any] = ProminenceFuture()
            settle(future, False, error)
            failed.append(future)
        else:
            failed.append(None)
    if not pickled:
        return PackedCalls(None, failed)
    modules = MODULES.pack(
        ours.modules.union(*(item.modules for item in pickled)),
        ours.code.union(*(item.code for item in pickled)),
        data_limit,
    )
    objects = ours.objects.union(*(item.objects for item in pickled))
    payload = Payload(ours.blob, [item.blob for item in pickled], modules, objects, function.name)
    return PackedCalls(payload, failed)


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
