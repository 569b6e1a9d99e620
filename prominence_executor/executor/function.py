"""`PickledFunction`: a function that is pickled once for all the calls of a ``map``, whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..payload.pickling import Epilogue, Pickled
from ..payload.unpicklable import name_culprit, named_arguments
from ..run.objects import Objects, RefCache


class PickledFunction:
    """Together with the initializer: functions of ``__main__`` share their global variables within one pickle only."""

    def __init__(
        self,
        objects: Objects,
        function: Callable[..., Any],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self._objects = objects
        self._whole = (function, initializer, initargs, Epilogue())
        self.name = _name_of(function)
        self._pickled: Pickled | None = None
        self._failed: Exception | None = None

    def for_one_more_call(self) -> Pickled:
        """Return the pickle, which is made when it is first asked for. Raises what pickling raises."""
        if self._failed is not None:
            raise self._failed
        if self._pickled is None:
            try:
                self._pickled = self._objects.dumps(self._whole, (self._whole,))
            except Exception as error:
                function, initializer, initargs, _ = self._whole
                parts = [("the function", function), ("the initializer", initializer)]
                name_culprit(error, [*parts, *named_arguments(initargs, {})])
                self._failed = error  # the search for what it was is not made for each call of a map
                raise
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


def _name_of(function: Callable[..., Any]) -> str:
    """Return what a message may call a function."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"
