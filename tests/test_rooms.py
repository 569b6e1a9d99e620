"""The rooms of the package import in one direction only, and the embedded service shares nothing with the rest.

Imports for type checking count: who needs another's type knows of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import prominence_executor

PACKAGE = Path(prominence_executor.__file__).parent

# A room imports only from those to its left; rooms of one column know nothing of each other.
DIRECTION = (
    ("public", "formats", "moved"),
    ("errors",),
    ("remote",),
    ("client",),
    ("payload", "images"),
    ("run",),
    ("transports",),
    ("executor",),
    ("cli",),
)
APART = ("local",)  # from all of them, errors included
EXAMPLES = ("examples",)  # they use the package as anybody does
# Who may import to the right, inside a function: the embedded service is started for url="local" and by the command.
LAZY = {("executor", "local"), ("cli", "local")}

FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(module: str) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in it, as they stand in `FILES`."""
    package = ["prominence_executor", *module.split(".")][:-1]
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            inside = name.split(".")[1:] if name.startswith("prominence_executor.") else []
            while inside:  # the name may be a module, or something in one
                found = ".".join(inside)
                if found in FILES or f"{found}.__init__" in FILES:
                    yield found if found in FILES else f"{found}.__init__"
                    break
                inside.pop()


ARROWS = {(module, other) for module in FILES for other in imports_of(module) if module != other}


def column(room: str) -> int:
    return next(number for number, rooms in enumerate(DIRECTION) if room in rooms)


def test_every_file_is_in_a_room_that_has_its_place() -> None:
    known = {room for rooms in DIRECTION for room in rooms}
    assert {room_of(module) for module in FILES} == known | {*APART, *EXAMPLES, "__init__"}


def test_a_room_imports_only_from_rooms_to_its_left() -> None:
    wrong = set()
    for module, other in ARROWS:
        room, target = room_of(module), room_of(other)
        if "__init__" in (room, target) or room == target or {room, target} & {*APART, *EXAMPLES}:
            continue
        if column(target) >= column(room):
            wrong.add((module, other))
    assert not wrong


def test_the_embedded_service_and_the_rest_know_nothing_of_each_other() -> None:
    across = {(room_of(module), room_of(other)) for module, other in ARROWS}
    across = {(room, target) for room, target in across if (room in APART) != (target in APART)}
    assert across == LAZY
    for module, other in ARROWS:
        if (room_of(module), room_of(other)) in LAZY:
            assert other not in top_level_imports(module), f"{module} imports {other} before it is needed"


def top_level_imports(module: str) -> set[str]:
    tree = ast.parse(FILES[module].read_text())
    return {
        (node.module or "") for node in tree.body if isinstance(node, ast.ImportFrom) and "local" in (node.module or "")
    }


def test_there_is_no_circle_of_files_in_a_room() -> None:
    """A package's ``__init__`` only gathers names, and does not count."""
    inside = {
        (module, other)
        for module, other in ARROWS
        if room_of(module) == room_of(other) and not module.endswith("__init__") and not other.endswith("__init__")
    }
    left = {module for arrow in inside for module in arrow}
    while True:
        arrows = {(module, other) for module, other in inside if module in left and other in left}
        on_the_way = {module for module, _ in arrows} & {other for _, other in arrows}
        if on_the_way == left:
            break
        left = on_the_way
    assert not left, "these import each other in a circle"


def test_transports_know_nothing_of_each_other() -> None:
    for module, other in ARROWS:
        if module.startswith("transports.") and other.startswith("transports."):
            ways = {module.split(".")[1], other.split(".")[1]}
            assert not {"jobs", "warm"} <= ways, (module, other)


def test_every_module_says_first_what_it_is_for() -> None:
    for path in FILES.values():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_public_name_is_there() -> None:
    for name in prominence_executor.__all__:
        assert getattr(prominence_executor, name)
    assert set(prominence_executor.__all__) <= set(dir(prominence_executor))
    with pytest.raises(AttributeError):
        _ = prominence_executor.no_such_name
