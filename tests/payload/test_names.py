"""What a script has, and pickles by its name alone, is not taken for something of the program that runs the call."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any

import pytest
from calls import applied

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

without_mpi = shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None


@pytest.fixture(params=["error_text", "main", "run_calls"])
def cached(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], str]:
    """What ``@functools.cache`` makes of a function of the script; its name is one that the runner has, too."""

    def function(x: object) -> str:
        return f"the script's {x}"

    function.__module__, function.__qualname__ = "__main__", request.param
    wrapped = functools.cache(function)
    monkeypatch.setattr(sys.modules["__main__"], request.param, wrapped, raising=False)
    return wrapped


@pytest.fixture(params=["jobs", "warm", pytest.param("mpi", marks=pytest.mark.skipif(without_mpi, reason="no mpirun"))])
def way(request: pytest.FixtureRequest, service: LocalService) -> Iterator[ProminenceExecutor]:
    kinds: dict[str, dict[str, Any]] = {
        "jobs": {}, "warm": {"workers": "warm", "max_workers": 1}, "mpi": {"task_type": "openmpi"},
    }  # fmt: skip
    options = kinds[request.param]
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options) as executor:
        yield executor


def test_it_runs_as_a_function_as_an_argument_and_in_an_object_of_its_own(
    way: ProminenceExecutor, cached: Callable[[object], str]
) -> None:
    futures = [way.submit(cached, 3), *(way.submit(applied, given, 3) for given in (cached, way.scatter(cached)))]
    for future in futures:
        assert future.result(60) in ("the script's 3", ["the script's 3"])  # of the one rank


def test_so_does_each_of_many_in_an_array(executor: ProminenceExecutor, cached: Callable[[object], str]) -> None:
    futures = [executor.submit(cached, number) for number in range(11)]
    futures += [executor.submit(applied, cached, number) for number in range(11)]
    wait(futures, 100)
    assert executor.client.requests_sent["POST /workflows"]
    assert [future.result(0) for future in futures] == [f"the script's {number}" for number in (*range(11), *range(11))]
