"""The private names of cloudpickle that are used, with the oldest version that is supported and the one installed.

The oldest is installed once, into pytest's cache; where there is no package index, that test is skipped. (The newest is
what is installed where the package is new: nothing bounds the version.)
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT, SUPPORT
from variables import unmeasured

from prominence_executor.remote import clouds, definitions

PRIVATE = {
    "_make_skeleton_class", "_make_skeleton_enum", "_class_setstate", "_function_getstate", "_function_getnewargs",
    "_extract_code_globals", "_should_pickle_by_reference",
    "_DYNAMIC_CLASS_TRACKER_BY_ID", "_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_DYNAMIC_CLASS_TRACKER_LOCK",
}  # fmt: skip

PROGRAM = """
import enum, functools, json, pickle, sys, typing
from pathlib import Path

import cloudpickle
from job_directory import JobDirectory

COUNT = 0
UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")

class Colour(enum.Enum):
    RED = 1

class Sim:
    class Part:
        __slots__ = ("size",)

    done = 0

    def __init__(self, size):
        self.size = size
        self.part = Sim.Part()

    @functools.cached_property
    def area(self):
        return self.size ** 2

@functools.cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

@functools.singledispatch
def kind_of(value):
    return "something"

kind_of.register(int, lambda value: "number")

def call(size):
    global COUNT
    COUNT += 1
    Sim.done += 1
    values = [Sim, Sim.Part, Colour.RED, UserId, T, fib, kind_of, call]
    same = [pickle.loads(pickle.dumps(value)) is value for value in values]
    assert not hasattr(Sim(1).part, "__dict__")
    return Sim(size), same, values, fib(20), kind_of(1), call.__code__.co_filename, lambda: COUNT

job = JobDirectory(Path(sys.argv[1]))
job.prepare(call, (2,), (3,))
job.run()
sim, same, values, number, kind, filename, closure = job.value(1)
mine = [Sim, Sim.Part, Colour.RED, UserId, T, fib, kind_of, call]
print(json.dumps({
    "version": cloudpickle.__version__,
    "found": [sim.area, type(sim) is Sim, all(same), [one is other for one, other in zip(values, mine)], number, kind],
    "kept": [COUNT, Sim.done, closure(), filename == __file__],
}))
"""


def oldest(request: pytest.FixtureRequest) -> str:
    """Where cloudpickle 3.0 is installed, and nothing else."""
    assert '"cloudpickle>=3.0"' in (ROOT / "pyproject.toml").read_text()
    cache = request.config.cache
    assert cache is not None
    target = Path(cache.mkdir("cloudpickle-3.0.0"))
    if not (target / "cloudpickle-3.0.0.dist-info").exists():
        program = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(target),
            "cloudpickle==3.0.0",
        ]
        if subprocess.run(program, capture_output=True, timeout=120, check=False).returncode:
            pytest.skip("cloudpickle 3.0 cannot be installed here")
    return str(target)


def test_these_are_the_private_names_that_are_used() -> None:
    nodes = ast.walk(ast.parse(Path(clouds.__file__).read_text()))
    assert {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")} - {
        "__name__"
    } == PRIVATE


@pytest.mark.parametrize("version", ["oldest", "installed"])
def test_they_do_what_they_should(request: pytest.FixtureRequest, tmp_path: Path, version: str) -> None:
    places = [oldest(request)] if version == "oldest" else []
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    variables = unmeasured(PYTHONPATH=os.pathsep.join([*places, str(SUPPORT), str(ROOT)]))
    program = [sys.executable, str(script), str(tmp_path / "job")]
    done = subprocess.run(program, env=variables, stdout=subprocess.PIPE, timeout=100, check=True)
    said = json.loads(done.stdout)
    assert said["version"].startswith("3.0.") == (version == "oldest")
    assert said["found"] == [9, True, True, [True] * 8, 6765, "number"]
    assert said["kept"] == [0, 0, 0, True]


def test_what_stands_for_cloudpickles_functions_does_as_they_do() -> None:
    from cloudpickle import cloudpickle as inside

    likewise: Any = definitions._LIKEWISE
    assert set(likewise) <= set(vars(inside))
    assert likewise["_builtin_type"]("CodeType") is inside._builtin_type("CodeType")
    assert likewise["subimport"]("os.path") is inside.subimport("os.path")
    assert likewise["_make_cell"](3) == inside._make_cell(3)
    for maker in (likewise["_make_empty_cell"], inside._make_empty_cell, likewise["_make_cell"], inside._make_cell):
        with pytest.raises(ValueError, match="empty"):
            _ = maker().cell_contents
    makers = likewise["_make_function"], inside._make_function
    made, other = (maker((lambda x: (x, len("ab"))).__code__, {}, "name", (1,), None) for maker in makers)
    assert made() == other() == (1, 2)
    assert (made.__name__, made.__globals__.keys()) == (other.__name__, other.__globals__.keys())
