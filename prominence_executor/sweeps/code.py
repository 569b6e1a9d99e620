"""Whether a function is still the one that a store's points were computed with: a digest of its source.

What counts is the syntax tree of the function, of the functions, classes and plain values of its own file that it
names, directly or not, and of the user's own modules that travel with it: not comments, docstrings, formatting, nor the
rest of the script, so that a longer axis is no new code. Installed packages do not count. It runs nothing of the user.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..caches import Findings
from .identity import NoCanonicalFormError, canonical, unbound

_DEEP = 200  # objects that are followed from one function: a bound, since globals may refer to anything


def parts_of(function: Callable[..., Any], sources: Mapping[str, bytes]) -> dict[str, str]:
    """Return what makes up a function's code: a digest for each part, by a name that a message can say.

    Args:
        sources: the user's own modules that travel with it, by their names.
    """
    parts: dict[str, str] = {}
    function, bound = unbound(function)
    queue: list[tuple[str, Any]] = [(_name(function), inspect.unwrap(function))]
    seen: set[int] = set()
    while queue and len(seen) < _DEEP:
        name, thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, (types.FunctionType, type)):
            parts[name] = _digest(_tree(thing))
            queue += _named_by(thing)
        else:
            try:
                parts[name] = _digest(repr(canonical(thing)))
            except NoCanonicalFormError:
                continue  # data of the script that nothing can be said of
    parts.update({name: str(_digests_of_sources.of(content)) for name, content in sources.items()})
    _digests_of_sources.keep()
    return parts


def digest_of(parts: Mapping[str, str]) -> str:
    """Return one digest of all parts: 16 hexadecimal digits."""
    return _digest(repr(sorted(parts.items())))


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which parts of the code have changed."""
    words = {
        "changed": sorted(name for name in before.keys() & now.keys() if before[name] != now[name]),
        "new": sorted(now.keys() - before.keys()),
        "gone": sorted(before.keys() - now.keys()),
    }
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)


_digests_of_sources = Findings("code.1", lambda content: _digest(_tree_of(content)))


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))


def _named_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function, or a class's methods, name of the functions, classes and values in their own module."""
    for function in _functions_of(thing):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                yield f"{_name(function)}: {name}", cell.cell_contents
            except ValueError:
                continue  # it is still empty
        for name in sorted(_names_in(function.__code__)):
            if name in function.__globals__ and _is_of(function.__module__, value := function.__globals__[name]):
                yield name, value


def _functions_of(thing: Any) -> list[types.FunctionType]:
    if isinstance(thing, types.FunctionType):
        return [thing]
    members = (getattr(member, "__func__", getattr(member, "fget", member)) for member in vars(thing).values())
    return [member for member in members if isinstance(member, types.FunctionType)]


def _is_of(module: str, value: Any) -> bool:
    """Whether a global is code or a value of the script itself: the user's modules count as files."""
    if isinstance(value, (types.FunctionType, type)):
        return value.__module__ == module == "__main__"
    return not isinstance(value, types.ModuleType) and module == "__main__"


def _names_in(code: types.CodeType) -> set[str]:
    return {*code.co_names}.union(*(_names_in(item) for item in code.co_consts if isinstance(item, types.CodeType)))


def _tree(thing: Any) -> str:
    if getattr(thing, "__name__", "") == "<lambda>":
        return _compiled(thing)  # its source is the statement around it, axes included
    try:
        return _tree_of(textwrap.dedent(inspect.getsource(thing)).encode("utf-8", "surrogatepass"))
    except (OSError, TypeError):
        return _compiled(thing)  # python -c, a class without source


def _tree_of(source: bytes) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source.decode("utf-8", "replace")  # a lambda in the middle of a statement
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)


def _compiled(thing: Any) -> str:
    """Describe code that has no source by its byte code, which changes with Python's version."""
    codes = [function.__code__ for function in _functions_of(thing)]
    return repr([sys.version_info[:2], [_described(code) for code in codes]])


def _described(code: types.CodeType) -> Any:
    consts = [_described(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return code.co_code.hex(), consts, code.co_names, code.co_varnames


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
