"""`PickledFunction`: a function that is pickled once for all the calls of a ``map``, whatever their number.

`PickledFunctions` keeps those of the last calls: one that is surely as it was is not pickled again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from ..payload.pickling import Epilogue, Pickled
from ..payload.unpicklable import name_culprit, named_arguments
from ..payload.witness import Witness
from ..run.objects import Objects, RefCache

_KEPT = 16  # functions


class PickledFunction:
    """Together with the initializer: functions of ``__main__`` share their global variables within one pickle only.

    Args:
        keep: called once it is pickled, if `is_as_pickled` will be able to tell.

    Attributes:
        id: the function's, for as long as this is there.
        name: what a message may call it.
    """

    def __init__(
        self,
        objects: Objects,
        function: Callable[..., Any],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        *,
        keep: Callable[[PickledFunction], None],
    ) -> None:
        self._objects = objects
        self._keep = keep
        self.id = id(function)
        self._whole = (function, initializer, initargs, Epilogue())
        self.name = _name_of(function)
        self._pickled: Pickled | None = None
        self._failed: Exception | None = None
        self._traceback: TracebackType | None = None
        self._witness: Witness | None = None

    def is_as_pickled(self) -> bool:
        """Return whether it has been pickled, and would surely give the same again."""
        return self._witness is not None and self._witness.holds()

    def for_one_more_call(self) -> Pickled:
        """Return the pickle, which is made when it is first asked for. Raises what pickling raises."""
        if self._failed is not None:
            raise self._failed.with_traceback(self._traceback)  # to which each call of a map would add lines
        if self._pickled is None:
            try:
                witness = Witness.of(self._whole[:3])  # before: another thread may change a variable at any moment
                self._pickled = self._objects.dumps(self._whole, (self._whole,))
            except Exception as error:
                function, initializer, initargs, _ = self._whole
                parts = [("the function", function), ("the initializer", initializer)]
                name_culprit(error, [*parts, *named_arguments(initargs, {})])
                # The search for what it was is not made for each call of a map.
                self._failed, self._traceback = error, error.__traceback__
                raise
            if witness is not None and not self._pickled.objects and witness.holds():
                self._witness = witness
                self._keep(self)
        else:
            for reference in self._pickled.objects:
                self._objects.used(reference)
        return self._pickled

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], known: RefCache | None) -> Pickled:
        """Pickle the arguments of a call; ``known``: see `Objects.dumps`. Raises what pickling raises."""
        try:
            return self._objects.dumps((args, kwargs), (*args, *kwargs.values()), known, takes_futures=True)
        except Exception as error:
            name_culprit(error, named_arguments(args, kwargs), takes_futures=True)
            raise


class PickledFunctions:
    """The functions of an executor's last calls. May be used from any thread.

    Args:
        initializer, initargs: what runs in each job before them.
    """

    def __init__(self, objects: Objects, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._objects = objects
        self._initializer = (initializer, initargs)
        self._lock = threading.Lock()
        self._kept: dict[int, PickledFunction] = {}  # by the id of the function, which it holds

    def get(self, function: Callable[..., Any]) -> PickledFunction:
        """Return the function as it is now."""
        with self._lock:
            kept = self._kept.get(id(function))
        if kept is not None and kept.is_as_pickled():
            return kept
        return PickledFunction(self._objects, function, *self._initializer, keep=self._keep)

    def _keep(self, pickled: PickledFunction) -> None:
        with self._lock:
            self._kept.pop(pickled.id, None)
            self._kept[pickled.id] = pickled
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]


def _name_of(function: Callable[..., Any]) -> str:
    """Return what a message may call a function."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"
