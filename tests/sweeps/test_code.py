"""The digest of a function's code changes with what it does, and with nothing else."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from prominence_executor.sweeps.code import difference, digest_of, parts_of

BASE = """
LIMIT = 3
def helper(x):
    return x + LIMIT
class Model:
    def run(self, x):
        return helper(x)
def simulate(x):
    \"\"\"Simulate.\"\"\"
    return Model().run(x)
axis = [1, 2, 3]
"""
Digest = Callable[[str], dict[str, str]]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Return the parts of ``simulate`` in a script of this source."""
    numbers = itertools.count()

    def of(source: str) -> dict[str, str]:
        path = tmp_path / f"script_{next(numbers)}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("__main__", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "__main__", module)
        spec.loader.exec_module(module)
        return parts_of(module.simulate, {})

    return of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[1, 2, 3]", "[1, 2, 3, 4]"),
        ("Simulate.", "Simulate it."),
        ("    return x + LIMIT", "    # why\n    return (x +\n        LIMIT)"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("axis", "import os\nother"),
    ],
)
def test_what_does_nothing_does_not_count(parts: Digest, before: str, after: str) -> None:
    assert digest_of(parts(BASE)) == digest_of(parts(BASE.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("LIMIT = 3", "LIMIT = 4", "LIMIT"),
        ("x + LIMIT", "x - LIMIT", "helper"),
        ("return helper(x)", "return -helper(x)", "Model"),
        ("return Model().run(x)", "return Model().run(x) + 1", "simulate"),
    ],
)
def test_what_is_reached_counts_and_is_named(parts: Digest, before: str, after: str, name: str) -> None:
    old, new = parts(BASE), parts(BASE.replace(before, after))
    assert digest_of(old) != digest_of(new)
    assert difference(old, new) == f"changed: {name}"


def test_a_closure_and_a_partial_count(parts: Digest) -> None:
    source = "def make(n):\n    def inner(x):\n        return x + n\n    return inner\nsimulate = make({})\n"
    assert digest_of(parts(source.format(1))) != digest_of(parts(source.format(2)))
    assert digest_of(parts(source.format(1))) == digest_of(parts(source.format("1.0")))
    bound = parts_of(partial(test_a_closure_and_a_partial_count, parts), {})
    assert bound == parts_of(test_a_closure_and_a_partial_count, {})


def test_the_users_modules_count_by_their_syntax() -> None:
    def digest(text: str) -> str:
        return digest_of(parts_of(digest, {"physics.py": text.encode()}))

    first = digest("def f(): return 1")
    assert digest("# new\ndef f():\n    return 1") == first
    assert digest("def f(): return 2") != first


def test_code_without_a_source_is_known_by_its_byte_code() -> None:
    def made(text: str) -> str:
        module = ModuleType("nowhere")
        exec(text, vars(module))
        return digest_of(parts_of(module.simulate, {}))

    assert made("def simulate(x): return x") == made("def simulate(x): return x")
    assert made("def simulate(x): return x") != made("def simulate(x): return -x")
