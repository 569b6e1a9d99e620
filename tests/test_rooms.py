"""The rooms of the package import downward only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import prominence_executor

PACKAGE = Path(prominence_executor.__file__).parent

# Each room may import those named before it; `service` stands apart (see tests/service/test_direction.py).
ORDER = [
    "errors", "auth", "answers", "streams", "imagetar", "debian", "images",
    "model", "localimages", "files", "funnel", "client", "job", "workflow", "runner", "worker", "staging", "ranks",
    "start", "probe", "pickling", "payload", "bundle", "objects", "modules", "diagnosis", "unfetched", "outputs",
    "futures", "mapping", "pool", "mailbox", "names", "chunk", "sizing", "journal", "settling", "following", "attach",
    "packing", "dispatcher", "tracker", "warm", "run", "imagecheck", "executor", "imagecli", "cli",
]  # fmt: skip


def imports_of(path: Path, *, at_run_time_only: bool = True) -> set[str]:
    """The modules of this package that a file imports, by their first name; imports for type checking do not count."""
    tree = ast.parse(path.read_text())
    if at_run_time_only:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("prominence_executor")):
            name = (node.module or "").removeprefix("prominence_executor").lstrip(".")
            found |= {name.partition(".")[0]} if name else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2].partition(".")[0]
                for alias in node.names
                if alias.name.startswith("prominence_executor.")
            }
    return found


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    below = set(ORDER[: ORDER.index(room)])
    allowed = below | {"__version__"} | ({"service"} if room in ("executor", "cli") else set())
    assert imports_of(PACKAGE / f"{room}.py") <= allowed


def test_every_room_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*ORDER, "__init__"}


def test_every_module_says_first_what_it_is_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_public_name_is_there() -> None:
    for name in prominence_executor.__all__:
        assert getattr(prominence_executor, name)
    assert set(prominence_executor.__all__) <= set(dir(prominence_executor))
    with pytest.raises(AttributeError):
        _ = prominence_executor.no_such_name
