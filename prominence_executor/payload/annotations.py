"""Names in annotations that have been left strings (``from __future__ import annotations``), for `get_type_hints`.

What they mean comes along with a function, but a call is to run without it, if it cannot be pickled here, or loaded
there: it may never be looked at.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1000)
def names_in(annotation: str) -> tuple[str, ...]:
    """Return the names that a string needs."""
    try:
        code = compile(annotation, "", "eval")
    except (SyntaxError, ValueError):
        return ()
    inner = [name for const in code.co_consts if type(const) is str and const != annotation for name in names_in(const)]
    return code.co_names + tuple(inner)


def names_of(annotations: Mapping[str, Any]) -> list[str]:
    """Return the names that the strings among annotations need."""
    return [name for value in annotations.values() if type(value) is str for name in names_in(value)]


def left_out(
    names: Iterable[str],
    variables: Mapping[str, Any],
    inside: Mapping[int, Any],
    pickled: Callable[[Any], tuple[bytes, Iterable[str]]],
    is_importable: Callable[[Any], bool],
) -> dict[str, bytes | tuple[str, str]]:
    """Return what the names mean and a pickle does not contain.

    Args:
        names, variables: the names, and the script's global variables.
        inside: by their ids, all that the pickle contains.
        pickled: returns the pickle of a value, and names in annotations in there.
        is_importable: whether a class or function is its module's, by its name.

    Returns:
        by name: a pickle, or (module, name there).
    """
    parts: dict[str, bytes | tuple[str, str]] = {}
    queue = sorted(names)
    while queue:
        name = queue.pop()
        value: Any = variables.get(name)
        if name not in variables or name in parts or id(value) in inside:
            continue
        kind = type(value)  # isinstance would take list[int] for a type, on Python 3.10
        is_definition = issubclass(kind, (type, types.FunctionType))
        if issubclass(kind, types.ModuleType):
            parts[name] = value.__name__, ""
        elif is_definition and is_importable(value):
            parts[name] = value.__module__, value.__qualname__
        elif is_definition or kind.__module__ in ("types", "typing"):
            with suppress(Exception):  # __reduce__ is somebody else's code
                parts[name], more = pickled(value)
                queue += more
    return parts
