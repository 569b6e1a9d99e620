"""What of the remote side travels: few bytes, the standard library alone, and a syntax that old Pythons read."""

from __future__ import annotations

import ast
import marshal
import sys
import zlib
from pathlib import Path

import pytest

from prominence_executor import remote
from prominence_executor.payload import compact
from prominence_executor.payload.archive import runner_data, start_program
from prominence_executor.remote import reporting, worker_batch

SOURCES = sorted(Path(remote.__file__).parent.glob("*.py"))
CORE = {"_sha2", "_sha256"}  # of which each Python has one
PARTS = [
    (),
    ("modules",),
    ("files",),
    ("files", "modules", "mpi"),
    ("worker",),
    ("courier",),
    ("packages",),
    ("modules", "packages"),
    ("worker", "packages"),
]


def shipped(*parts: str) -> dict[str, tuple[str, bytes | None, bytes | None]]:
    """By name of each module its file, code and source."""
    found: dict[str, tuple[str, bytes | None, bytes | None]] = marshal.loads(zlib.decompress(runner_data(*parts)))[
        "modules"
    ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_module_uses_the_standard_library_and_old_syntax_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
            assert set(names) <= {*sys.stdlib_module_names, "cloudpickle"}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] in {*sys.stdlib_module_names, *CORE, "mpi4py"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1


@pytest.mark.parametrize("parts", PARTS)
def test_all_that_a_module_needs_travels_with_it(parts: tuple[str, ...]) -> None:
    """But for what it imports inside a function, which is where the parts are that only some jobs need."""
    there = {name.removeprefix("pxremote.") for name in shipped(*parts)}
    for path in SOURCES:
        if path.stem in there:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.level:
                    assert set([node.module] if node.module else [alias.name for alias in node.names]) <= there


def test_what_runs_before_the_python_is_known_travels_as_source_too() -> None:
    sources = {name for name, (_, _, source) in shipped().items() if source is not None}
    compiled = {name for name, (_, code, _) in shipped().items() if code is not None}
    wanted, queue = set(), ["runner"]
    while queue:
        module = queue.pop()
        wanted.add(f"pxremote.{module}")
        for node in ast.parse((Path(remote.__file__).parent / f"{module}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                queue.append(node.module or "")
    assert wanted <= sources & compiled
    assert {"pxremote.calling", "pxremote.loading"} <= compiled - sources


@pytest.mark.parametrize("parts", PARTS)
def test_an_archive_is_the_same_bytes_each_time_and_small(parts: tuple[str, ...]) -> None:
    first = runner_data(*parts)
    runner_data.cache_clear()
    assert runner_data(*parts) == first
    most = 75_000 if "worker" in parts else 70_000 if parts else 55_000
    assert len(first) + len(start_program()) < most


def test_a_source_that_travels_has_the_syntax_of_old_pythons() -> None:
    for path in SOURCES:
        assert ast.parse(path.read_bytes(), feature_version=(3, 8))


def test_byte_code_that_travels_keeps_its_lines_and_nothing_of_its_columns() -> None:
    for module in (reporting, worker_batch):
        code = compile(Path(module.__file__ or "").read_text(), "x.py", "exec")
        pairs = [(code, compact.small(code))]
        while pairs:
            before, after = pairs.pop()
            assert list(after.co_lines()) == list(before.co_lines())
            assert (after.co_code, after.co_names, after.co_name) == (before.co_code, before.co_names, before.co_name)
            if sys.version_info >= (3, 11):
                assert {position[2:] for position in after.co_positions()} == {(None, None)}
            pairs += [
                pair for pair in zip(before.co_consts, after.co_consts, strict=True) if hasattr(pair[0], "co_code")
            ]
