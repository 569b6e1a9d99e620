"""What a script has, and pickles by its name alone, is never taken for something of the program that runs the call."""

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

from prominence_executor import ProminenceExecutor, RemoteEnvironmentError
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


def test_a_function_that_is_a_name_of_the_script_is_refused(
    way: ProminenceExecutor, cached: Callable[[object], str]
) -> None:
    error = way.submit(cached, 3).exception(60)
    assert isinstance(error, RemoteEnvironmentError)
    assert "put it into a module beside the script" in str(error)


def test_so_is_an_argument_and_an_object_of_its_own(way: ProminenceExecutor, cached: Callable[[object], str]) -> None:
    for given in (cached, way.scatter(cached)):
        error = way.submit(applied, given, 3).exception(60)
        assert isinstance(error, AttributeError)
        assert "put it into a module beside the script" in str(error)


def test_so_is_each_of_many_in_an_array(executor: ProminenceExecutor, cached: Callable[[object], str]) -> None:
    futures = [executor.submit(cached, number) for number in range(11)]
    futures += [executor.submit(applied, cached, number) for number in range(11)]
    wait(futures, 100)
    assert executor.client.requests_sent["POST /workflows"]
    for future in futures:
        assert "put it into a module beside the script" in str(future.exception(0))
