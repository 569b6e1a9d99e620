"""The rooms of the package import in one direction only, and the embedded service shares nothing with the rest.

The tables here are what ARCHITECTURE.md draws. Imports for type checking count, and so do those inside functions: who
needs another's type knows of it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import prominence_executor

PACKAGE = Path(prominence_executor.__file__).parent

# A room imports only from those in lines before its own.
DIRECTION = [
    {"public", "formats", "moved", "version", "progress", "shown", "caches", "credentials"},
    {"errors"},
    {"remote"},
    {"client"},
    {"payload", "images", "environments"},
    {"run"},
    {"transports", "reports"},
    {"executor"},
    {"sweeps", "integrations", "runs"},
    {"cli"},
]
# Likewise within the embedded service; "" are the modules beside its folders.
SERVICE_DIRECTION = [
    {"schema"},
    {"state"},
    {"sandbox"},
    {"containers"},
    {"node"},
    {"engines"},
    {"execution"},
    {"http"},
    {""},
]
# They use the package as anybody does; `local` is the embedded service's old name.
GUESTS = {"examples", "local"}
# Who imports to the right, inside a function: the service is started for url="local" and by the command line.
LAZY = {
    ("executor.settings", "service.launch"),
    ("executor.settings", "service.found"),
    ("cli.serve", "service.__main__"),
}

FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


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


@functools.cache
def all_arrows() -> set[tuple[str, str]]:
    """Who imports whom; made when a test asks, and not by each process that collects the tests."""
    return {(module, other) for module in FILES for other in imports_of(module) if module != other}


def room_of(module: str, inside: str = "") -> str:
    """The first folder, or module, of a name below another one."""
    parts = module.removeprefix(inside).split(".")
    return parts[0] if len(parts) > 1 or not inside else ""


def wrong_ways(direction: list[set[str]], arrows: set[tuple[str, str]], inside: str = "") -> set[tuple[str, str]]:
    """The arrows that do not lead to an earlier line of the table."""
    line = {room: number for number, rooms in enumerate(direction) for room in rooms}
    return {
        (module, other)
        for module, other in arrows
        if (room := room_of(module, inside)) != (target := room_of(other, inside)) and line[target] >= line[room]
    }


def is_of_service(module: str) -> bool:
    return module.startswith("service.")


def test_every_file_is_in_a_room_that_has_its_place() -> None:
    known = {room for rooms in DIRECTION for room in rooms}
    assert {room_of(module) for module in FILES} == known | GUESTS | {"service", "__init__"}


def test_a_room_imports_only_from_rooms_to_its_left() -> None:
    outside = GUESTS | {"service", "__init__"}
    arrows = {(a, b) for a, b in all_arrows() if not {room_of(a), room_of(b)} & outside}
    assert not wrong_ways(DIRECTION, arrows)
    assert len(DIRECTION) <= 10


def test_a_room_of_the_embedded_service_imports_only_from_rooms_to_its_left() -> None:
    arrows = {(a, b) for a, b in all_arrows() if is_of_service(a) and is_of_service(b)}
    assert not wrong_ways(SERVICE_DIRECTION, arrows, "service.")
    assert len(SERVICE_DIRECTION) <= 10


def test_the_embedded_service_and_the_rest_know_nothing_of_each_other() -> None:
    across = {(a, b) for a, b in all_arrows() if is_of_service(a) != is_of_service(b) and room_of(a) != "local"}
    assert across == LAZY


@pytest.mark.parametrize(("module", "other"), sorted(LAZY))
def test_the_embedded_service_is_imported_only_when_it_is_needed(module: str, other: str) -> None:
    name = f"prominence_executor.{other}"
    top_level = ast.parse(FILES[module].read_text()).body
    imports = [node for node in top_level if isinstance(node, ast.ImportFrom)]
    assert not [node for node in imports if (node.module or "").endswith(name.partition(".")[2])]


def test_there_is_no_circle_of_files() -> None:
    """A package's ``__init__`` only gathers names, and does not count."""
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for module, other in all_arrows() - LAZY:
        if not other.endswith("__init__"):
            graph[module].add(other)
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_transports_know_nothing_of_each_other() -> None:
    for module, other in all_arrows():
        if module.startswith("transports.") and other.startswith("transports."):
            assert not {"jobs", "warm"} <= {module.split(".")[1], other.split(".")[1]}, (module, other)


def test_what_travels_to_jobs_imports_nothing_outside_of_itself() -> None:
    assert {room_of(other) for module, other in all_arrows() if room_of(module) == "remote"} <= {"remote"}


# Names with a leading underscore that others define, and that there is no other way to.
PUBLIC_ALL_THE_SAME = {"_exit", "_fields"}  # of os, and of named tuples
FOREIGN = {("executor.executor", "_register_atexit"), ("payload.outcomes", "_Hash")}
# All that is used of cloudpickle's own.
FOREIGN |= {
    ("remote.clouds", f"_{name}")
    for name in (
        "make_skeleton_class", "make_skeleton_enum", "class_setstate", "function_getstate", "function_getnewargs",
        "extract_code_globals", "should_pickle_by_reference",
        "DYNAMIC_CLASS_TRACKER_BY_ID", "DYNAMIC_CLASS_TRACKER_BY_CLASS", "DYNAMIC_CLASS_TRACKER_LOCK",
    )
}  # fmt: skip
# What `ProminenceFuture` needs of its base class to be asked twice whether it runs, and to be cancelled all the same.
FOREIGN |= {("run.future", "_condition"), ("run.future", "_invoke_callbacks")}
# A connection of a pool that stands, for a request that urllib3 is not to send.
FOREIGN |= {("client.direct", "_get_conn"), ("client.direct", "_put_conn")}
# What a process of calls does at its end, as one of multiprocessing does; and the environment, undecoded.
FOREIGN |= {("remote.ending", "_shutdown"), ("remote.ending", "_run_exitfuncs"), ("remote.surroundings", "_data")}


def test_no_private_name_is_used_from_another_file() -> None:
    used = set()
    for module, path in FILES.items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        own |= {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
        }
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {
            alias.name for node in nodes if isinstance(node, ast.ImportFrom) and node.level for alias in node.names
        }
        used |= {(module, name) for name in names - own if name.startswith("_") and not name.startswith("__")}
    assert {(module, name) for module, name in used if name not in PUBLIC_ALL_THE_SAME} == FOREIGN


def test_every_module_says_first_what_it_is_for() -> None:
    for path in FILES.values():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_public_name_is_there() -> None:
    for name in prominence_executor.__all__:
        assert getattr(prominence_executor, name)
    assert set(prominence_executor.__all__) <= set(dir(prominence_executor))
    with pytest.raises(AttributeError):
        _ = prominence_executor.no_such_name
