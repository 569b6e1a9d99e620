"""What a script defines is in its calls what it is in the script, as in the standard library's pool of processes.

The script is tests/support/programs/script.py, which runs all its checks with one executor.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from paths import SUPPORT
from variables import unmeasured

from prominence_executor import ProminenceExecutor, load
from prominence_executor.local import LocalService

SCRIPT = SUPPORT / "programs" / "script.py"


def checks(decorator: str) -> list[str]:
    """The names of the script's checks."""
    functions = [node for node in ast.parse(SCRIPT.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if decorator in map(ast.unparse, node.decorator_list)]


def run(*arguments: str) -> dict[str, Any]:
    program = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(program, env=unmeasured(), stdout=subprocess.PIPE, timeout=240, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def pool() -> dict[str, Any]:
    """What the checks find in the standard library's pool."""
    return run("pool")


@pytest.fixture(scope="module", params=["jobs", "warm"])
def ours(request: pytest.FixtureRequest, service: LocalService) -> dict[str, Any]:
    return run(service.url, service.token, request.param)


def test_all_is_in_a_call_as_it_is_in_the_standard_librarys_pool(pool: dict[str, Any], ours: dict[str, Any]) -> None:
    assert sorted(pool) == sorted(checks("check"))
    for name in pool:
        assert not isinstance(pool[name], str), pool[name]  # a traceback
        assert (name, ours[name]) == (name, pool[name])


def test_so_is_what_the_pool_cannot_run(ours: dict[str, Any]) -> None:
    known = {
        "a_call_sees_the_script_as_it_was_when_it_was_submitted": [[limit] * 2 for limit in (1, 2, 1) for _ in "abc"],
        "functions_and_classes_without_a_name": [True, 0, 0, 9, 34],
        "an_object_that_calls_share": [True, [True, 5]],
    }
    assert set(known) == set(checks("ours"))
    assert {name: ours[name] for name in known} == known


KEEPS = """
import functools, sys

from prominence_executor import ProminenceExecutor

RATE = 3

class Plasma:
    shots = 0

    def __init__(self, current):
        self.current = current

    def heat(self):
        return helper(self.current) * RATE

    def __reduce__(self):
        return Plasma, (self.current,)

class Nowhere:
    def __reduce__(self):
        return "NOWHERE"

NOWHERE = Nowhere()

def helper(x):
    return x + 1

@functools.cache
def make(current):
    return Plasma(current)

def both(current):
    return make(current), NOWHERE, make

url, token, run_id, path, workers = sys.argv[1:]
kind = workers if workers == "warm" else None
with ProminenceExecutor(url, token, run_id=run_id, workers=kind, max_workers=1, poll_interval=(0.05, 0.5)) as executor:
    futures = [executor.submit(both, current) for current in (1, 2)]
    futures[0].save(path)
    assert type(futures[1].result()[0]) is Plasma
"""


@pytest.mark.once
@pytest.mark.parametrize("workers", ["jobs", "warm"])
def test_a_program_without_the_script_has_its_results_too(service: LocalService, tmp_path: Path, workers: str) -> None:
    script, run_id = tmp_path / "keeps.py", f"keeps-{workers}-{time.time_ns()}"
    script.write_text(KEEPS)
    program = [sys.executable, str(script), service.url, service.token, run_id, str(tmp_path / "saved"), workers]
    subprocess.run(program, env=unmeasured(), timeout=100, check=True)
    with ProminenceExecutor.attach(run_id, service.url, service.token, poll_interval=(0.05, 0.5)) as again:
        found = [load(tmp_path / "saved"), *(future.result(60) for future in again.futures())]
    assert [plasma.heat() for plasma, _, _ in found] == [6, 6, 9]
    assert len({type(plasma) for plasma, _, _ in found}) == 1
    assert [type(nowhere).__name__ for _, nowhere, _ in found] == ["Nowhere"] * 3
    assert found[2][2](7).heat() == 24
    for name in ("Plasma", "RATE", "helper", "make", "NOWHERE"):
        assert not hasattr(sys.modules["__main__"], name)
