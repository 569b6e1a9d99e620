"""`Witness`: whether a function's pickle would come out as it did, told without pickling it again.

A loop of `submit` pickles one function for each call, since what it refers to may have been changed in between. Of most
functions that can be told at a glance: their code, and the few variables of the script that they name, are the same
objects, and of kinds that cannot change. A function with anything else in it has no witness, and is pickled each time.

It reads functions and variables, and calls nothing of theirs.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import cloudpickle

from ..remote import clouds
from .annotations import names_of

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(...)})
_MISSING = object()
_MOST = 50  # functions of the script; more are not worth it
_OF_NAMESPACE = ("__file__", "__package__")  # of the script, which travel with each function


class _Function(NamedTuple):
    """A function of the script, and what it was made of."""

    function: types.FunctionType
    code: types.CodeType
    defaults: tuple[Any, ...] | None
    texts: tuple[str | None, ...]
    annotations: dict[str, Any]

    def is_same(self) -> bool:
        func: Any = self.function
        return (
            func.__code__ is self.code
            and func.__defaults__ is self.defaults
            and not func.__kwdefaults__
            and not func.__dict__
            and (func.__module__, func.__name__, func.__qualname__, func.__doc__) == self.texts
            and func.__annotations__ == self.annotations
        )


class Witness:
    """What the pickle of functions depends on; made by `of`."""

    def __init__(self, functions: Iterable[_Function], variables: Mapping[str, Any], named: Iterable[Any]) -> None:
        self._functions = list(functions)
        self._variables = list(variables.items())
        self._named = list(named)
        self._namespace = _script()
        self._surroundings = _surroundings()

    def holds(self) -> bool:
        """Return whether all of it is as it was."""
        namespace = self._namespace
        return (
            _script() is namespace
            and _surroundings() == self._surroundings
            and all(namespace.get(name, _MISSING) is value for name, value in self._variables)
            and all(function.is_same() for function in self._functions)
            and all(map(_has_name, self._named))
        )

    @classmethod
    def of(cls, values: Iterable[Any]) -> Witness | None:
        """Make the witness of functions that are pickled together, or None if one may change unseen."""
        functions: dict[int, _Function] = {}
        named: dict[int, Any] = {}
        variables = {name: _script().get(name, _MISSING) for name in _OF_NAMESPACE}
        queue = list(values)
        while queue:
            value = queue.pop()
            if id(value) in functions or _is_constant(value):
                continue
            if _has_name(value):
                named[id(value)] = value
                continue
            described = _described(value)
            if described is None or len(functions) == _MOST:
                return None
            functions[id(value)] = described
            for name in _names(described):
                if name not in variables:
                    variables[name] = _script().get(name, _MISSING)
                    queue.append(variables[name])
        return cls(functions.values(), variables, named.values())


def _script() -> dict[str, Any]:
    return sys.modules["__main__"].__dict__


def _surroundings() -> tuple[Any, ...]:
    """Return what else decides how a function is pickled: which modules are there, and which of them go by value."""
    return len(sys.modules), cloudpickle.list_registry_pickle_by_value()


def _is_constant(value: Any) -> bool:
    """Return whether a value cannot change."""
    kind = type(value)
    return kind in _ATOMS or value is _MISSING or (kind is tuple and all(map(_is_constant, value)))


def _has_name(value: Any) -> bool:
    """Return whether a value is a module, or of a module that has it by its name, and so is pickled as that."""
    kind = type(value)
    if kind is types.BuiltinFunctionType:
        return isinstance(value.__self__, types.ModuleType)
    return (kind in (types.FunctionType, types.ModuleType) or issubclass(kind, type)) and clouds.by_reference(value)


def _described(value: Any) -> _Function | None:
    """Describe a function of the script, unless there is something in it that may change unseen."""
    if type(value) is not types.FunctionType or value.__globals__ is not _script():
        return None
    annotations = value.__annotations__
    if (
        value.__closure__ is not None
        or value.__dict__
        or value.__kwdefaults__
        or "__main__" in value.__code__.co_names
        or getattr(value, "__type_params__", None)
        or not _is_constant(value.__defaults__)
        or not all(_is_constant(item) or _has_name(item) for item in annotations.values())
    ):
        return None
    texts = (value.__module__, value.__name__, value.__qualname__, value.__doc__)
    return _Function(value, value.__code__, value.__defaults__, texts, dict(annotations))


def _names(described: _Function) -> Iterator[str]:
    """Return the variables of the script that its pickle is made of."""
    yield described.texts[2] or ""  # whether the script has it by its name
    yield from clouds.global_names(described.code)
    yield from names_of(described.annotations)
