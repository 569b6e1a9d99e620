"""The rooms of the embedded service: one direction of imports, no circle, and nothing shared with the rest.

Every import counts, those for type checking and those inside functions as well.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import prominence_executor

PACKAGE = Path(prominence_executor.__file__).parent
SERVICE = PACKAGE / "service"

# A folder imports only from itself and those before it; the modules beside the folders from all of them.
FOLDERS = ["schema", "state", "sandbox", "containers", "engines", "execution", "http", "."]
# What forwards to the service, and the lazy lines of the rest that start it.
ENTRANCES = {"local", "executor", "cli"}
ROOT = "prominence_executor"


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their full names."""
    parts = [ROOT, *path.relative_to(PACKAGE).with_suffix("").parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found |= {_module(module, alias.name) for alias in node.names}
    return {name for name in found if name.partition(".")[0] == ROOT}


def _module(module: str, name: str) -> str:
    """`from module import name`: the module that holds the name, or the one that it is."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    inside = (place / f"{name}.py").exists() or (place / name / "__init__.py").exists()
    return f"{module}.{name}" if inside else module


def folder(module: str) -> str:
    """The folder of a module of the service."""
    parts = module.split(".")[2:]
    return parts[0] if len(parts) > 1 or (parts and (SERVICE / parts[0]).is_dir()) else "."


def name_of(path: Path) -> str:
    return ".".join([ROOT, *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(SERVICE.rglob("*.py"))}


def test_the_service_imports_nothing_of_the_rest() -> None:
    outside = {
        name: found
        for name, path in FILES.items()
        if (found := {other for other in imported(path) if not f"{other}.".startswith(f"{ROOT}.service.")})
    }
    assert outside == {}


def test_only_its_entrances_import_the_service() -> None:
    users = {
        name_of(path).split(".")[1]
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(SERVICE)
        and any(f"{other}.".startswith((f"{ROOT}.service.", f"{ROOT}.local.")) for other in imported(path))
    }
    assert users <= ENTRANCES


@pytest.mark.parametrize("module", FILES)
def test_a_folder_imports_only_what_lies_before_it(module: str) -> None:
    allowed = FOLDERS[: FOLDERS.index(folder(module)) + 1]
    assert {folder(other) for other in imported(FILES[module])} <= set(allowed)


def test_no_circle_of_files() -> None:
    packages = {name for name, path in FILES.items() if path.name == "__init__.py"}
    graph = {name: imported(path) - packages for name, path in FILES.items()}
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_every_folder_has_its_place() -> None:
    there = {path.parent.relative_to(SERVICE).as_posix() for path in FILES.values()}
    assert there == set(FOLDERS)


def test_a_module_is_a_room_of_at_most_300_lines() -> None:
    assert {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 300} == {}
