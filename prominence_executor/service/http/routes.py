"""Which view answers which request, by path and method. Knows no view and no server.

A path has named parts: `<name>`, `<int:job>`, `<path:key>` (with slashes, not at its beginning), and
`<any(stdout, stderr):stream>`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..schema.bounds import LARGEST_ID

View = TypeVar("View", bound=Callable[..., Any])

_PART = re.compile(r"<(?:(int|path|any)(?:\(([^)]*)\))?:)?(\w+)>")


@dataclass(frozen=True)
class Route:
    """A view, and how it is called."""

    view: Callable[..., Any]
    in_loop: bool  # a coroutine, which reads the body by itself
    long: bool  # it takes seconds, in a thread where it keeps nobody else waiting


class Routes:
    """The routes of one room, filled by its decorators."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, Route]] = []

    def get(self, path: str) -> Callable[[View], View]:
        """Have a view answer GET, and HEAD."""
        return self._enter("GET", path)

    def post(self, path: str, *, long: bool = False) -> Callable[[View], View]:
        """Have a view answer POST."""
        return self._enter("POST", path, long)

    def put(self, path: str, *, long: bool = False) -> Callable[[View], View]:
        """Have a view answer PUT."""
        return self._enter("PUT", path, long)

    def delete(self, path: str) -> Callable[[View], View]:
        """Have a view answer DELETE."""
        return self._enter("DELETE", path)

    def _enter(self, method: str, path: str, long: bool = False) -> Callable[[View], View]:
        def enter(view: View) -> View:
            self.entries.append((path, method, Route(view, inspect.iscoroutinefunction(view), long)))
            return view

        return enter


class Table:
    """The routes of all rooms."""

    def __init__(self, *rooms: Routes) -> None:
        methods: dict[str, dict[str, Route]] = {}
        for path, method, route in (entry for room in rooms for entry in room.entries):
            methods.setdefault(path, {}).setdefault(method, route)
        self._entries = [(path.partition("<")[0], _pattern(path), routes) for path, routes in methods.items()]

    def find(self, path: str) -> dict[str, tuple[Route, dict[str, Any]]]:
        """Return what answers at a path: by method the route, and the values of the path's parts."""
        found: dict[str, tuple[Route, dict[str, Any]]] = {}
        for beginning, pattern, routes in self._entries:
            if path.startswith(beginning) and (match := pattern.fullmatch(path)):
                parts = _parts(match)
                for method, route in routes.items():
                    found.setdefault(method, (route, parts))
        if "GET" in found:
            found.setdefault("HEAD", found["GET"])
        return found


def _parts(match: re.Match[str]) -> dict[str, Any]:
    return {
        name.removeprefix("int_"): _number(value) if name.startswith("int_") else value
        for name, value in match.groupdict().items()
    }


def _number(text: str) -> int:
    """Return a number. One that no job can have stays one that no job has."""
    return int(text) if len(text) < len(str(LARGEST_ID)) else LARGEST_ID


def _pattern(path: str) -> re.Pattern[str]:
    def part(match: re.Match[str]) -> str:
        kind, choices, name = match.groups()
        if kind == "int":
            return f"(?P<int_{name}>[0-9]+)"
        if kind == "any":
            return f"(?P<{name}>{'|'.join(choice.strip() for choice in choices.split(','))})"
        return f"(?P<{name}>[^/].*)" if kind == "path" else f"(?P<{name}>[^/]+)"

    return re.compile(_PART.sub(part, path), re.DOTALL)
