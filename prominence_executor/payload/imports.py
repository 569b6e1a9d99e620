"""Which names a source, or a function's code, imports: read, not run.

It looks for no modules: places.py knows where they are.
"""

from __future__ import annotations

import ast
import dis
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

_PARSED_AGAIN = 5
_BY_NAME = ("import_module", "__import__")  # functions that import what their first argument names
_parsing = threading.Lock()


def imports_of_source(source: bytes | str) -> tuple[str, ...]:
    """Return the full names of all that a source may import, in functions too; relative ones begin with dots.

    Of ``from a import b`` that is ``a``, and ``a.b``, which may be a module. What Python cannot parse imports nothing.
    """
    try:
        tree = _parsed(source)
    except (SyntaxError, ValueError):
        return ()  # Python itself will say it when the module is imported
    return tuple(dict.fromkeys(name for node in ast.walk(tree) for name in _names_in(node)))


def imports_of_main() -> tuple[str, ...]:
    """Return what the running script imports anywhere in it; a notebook or ``python -c`` has no source to read."""
    main = sys.modules["__main__"]
    package = getattr(main, "__package__", None) or ""
    names = [_absolute(name, package) for name in _imports_of_main_source(main)]
    return tuple(name for name in [*names, package] if name)


@lru_cache(maxsize=1000)
def imports_of_code(code: types.CodeType) -> frozenset[str]:
    """Return the names of the imports inside a function and the functions nested in it."""
    names = frozenset(
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname == "IMPORT_NAME" and instruction.argval
    )
    return names.union(*(imports_of_code(item) for item in code.co_consts if isinstance(item, types.CodeType)))


def resolved(names: tuple[str, ...], package: str) -> list[str]:
    """Return names as absolute ones; relative ones are those of a module in ``package``."""
    return [name for name in (_absolute(name, package) for name in names) if name]


def _absolute(name: str, package: str) -> str:
    """Return the absolute name, or nothing where there is none."""
    bare = name.lstrip(".")
    level = len(name) - len(bare)
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([bare] if bare else [])])


def _names_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        yield base
        between = "." if node.module else ""
        yield from (f"{base}{between}{alias.name}" for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        name = node.args[0].value
        if called in _BY_NAME and isinstance(name, str) and name.strip("."):
            yield name


def _parsed(source: bytes | str) -> ast.Module:
    """Parse a source, alone among our threads: CPython 3.11 fails where two do it at once (its issue 106905)."""
    for _ in range(_PARSED_AGAIN):
        with _parsing, suppress(SystemError):  # another thread of the program was about it, too
            return ast.parse(source)
    return ast.parse(source)


def _imports_of_main_source(main: types.ModuleType) -> tuple[str, ...]:
    """Read the script, from its file, or by its loader where it lies in a zip."""
    loader = getattr(main, "__loader__", None)
    try:
        with open(str(getattr(main, "__file__", None) or ""), "rb") as file:
            return _imports_of_text(file.read())
    except OSError:
        pass
    try:
        spec = getattr(main, "__spec__", None)
        return _imports_of_text(loader.get_source(spec.name if spec else "__main__") or "")  # type: ignore[union-attr]
    except (AttributeError, ImportError):
        return ()


@lru_cache(maxsize=4)
def _imports_of_text(text: bytes | str) -> tuple[str, ...]:
    return imports_of_source(text)
