"""The one loader of what comes back: results, exceptions, and results that were saved.

What comes has been verified by the caller. Definitions of a script travel with it, by value, so that a program without
them has them, too; but what this program has sent out is taken as it is here, and is not changed: its classes, its
functions, its global variables. (A saved result that another program loads, or `attach` in one, makes new ones.)
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Mapping
from typing import Any, BinaryIO

from ..remote import clouds, definitions
from .origin import ORIGIN

_incomplete: weakref.WeakSet[type] = weakref.WeakSet()  # classes whose attributes are only now being loaded
_lock = threading.Lock()


def load_outcome(file: BinaryIO) -> Any:
    """Unpickle what begins where the file is."""
    return _Unpickler(file).load()


def loads_outcome(data: bytes | memoryview) -> Any:
    """Unpickle bytes."""
    return _Unpickler(io.BytesIO(data)).load()


def loads_out_of_band(memory: memoryview, parts: Mapping[str, Any]) -> Any:
    """Unpickle a pickle with its buffers behind it, which stay where they are: the value keeps the memory.

    ``parts`` says how long the pickle is, and where each buffer lies: [offset, bytes, readonly].
    """
    views = [memory[at : at + size] for at, size, _ in parts["buffers"]]
    fixed = [view.toreadonly() if part[2] else view for view, part in zip(views, parts["buffers"], strict=True)]
    return _Unpickler(io.BytesIO(memory[: parts["pickle"]]), buffers=fixed).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, **options: Any) -> None:
        super().__init__(file, **options)
        self._home = _Home()

    def find_class(self, module: str, name: str) -> Any:
        found = definitions.lookup(self._home, module, name)
        return super().find_class(module, name) if found is None else found


class _Home(definitions.Space):
    """What one pickle defines, beside what this program has."""

    def __init__(self) -> None:
        self._settled: dict[int, Any] = {}  # by id: the program's own, which stay as they are
        self._others: dict[str, dict[str, Any]] = {}  # global variables of other programs' scripts, by their origin

    def namespace(self, origin: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the script's variables if this program is the one, else new ones."""
        if origin == ORIGIN:
            return vars(sys.modules["__main__"])
        made = {"__name__": "__main__", "__builtins__": builtins, **facts}
        return self._others.setdefault(origin, made)

    def known(self, names: dict[str, Any], qualname: str, kind: type) -> Any:
        """Return what this program has by that name: the present one, if it has been defined anew."""
        if names is not vars(sys.modules["__main__"]):
            return None
        found = definitions.resolve(names, qualname)
        if not isinstance(found, kind):
            return None
        self._settled[id(found)] = found
        return found

    known_value = known

    def known_function(self, names: dict[str, Any] | None, qualname: str, code: types.CodeType) -> Any:
        """Return the function that this program has by that name."""
        return None if names is None else self.known(names, qualname, types.FunctionType)

    def known_class(self, tracker: str) -> type | None:
        """Return the class that was sent out, or that an earlier pickle has made; it is complete, or being made."""
        found: type | None = clouds.class_of(tracker)
        with _lock:
            if found is not None and found not in _incomplete:
                self._settled[id(found)] = found
        return found

    def created(self, tracker: str, kind: type) -> None:
        """Note that later pickles find the class incomplete: until it is not, each of them completes it itself."""
        with _lock:
            _incomplete.add(kind)

    def completed(self, kind: type) -> None:
        """Note that it has its attributes."""
        with _lock:
            _incomplete.discard(kind)

    def is_settled(self, obj: Any) -> bool:
        """Return whether it is the program's own."""
        return id(obj) in self._settled

    def define(self, names: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Set variables; of this program's own those alone that it has not."""
        if names is vars(sys.modules["__main__"]):
            values = {name: value for name, value in values.items() if name not in names}
        names.update(values)
