"""Objects that many calls use are uploaded once."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

Until = Callable[..., None]


def uploads(executor: ProminenceExecutor) -> int:
    return executor.client.requests_sent["PUT upload"]


def test_a_scattered_object_is_uploaded_once_for_all_calls(executor: ProminenceExecutor) -> None:
    data = np.arange(1_000_000, dtype=float)
    handle = executor.scatter(data)
    found = [executor.submit(lambda values, n: float(values[n]), handle, n) for n in range(4)]
    assert [future.result(30) for future in found] == [0.0, 1.0, 2.0, 3.0]
    assert uploads(executor) == 1
    assert list(
        executor.map(lambda pair: pair["x"][0].sum() + pair["n"], [{"x": [handle], "n": n} for n in range(20)])
    ) == [data.sum() + n for n in range(20)]
    assert uploads(executor) == 2  # the array's payload


def test_the_next_run_does_not_upload_it_again(service: LocalService) -> None:
    for expected in (1, 0):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            handle = executor.scatter(b"the same in both" * 1000)
            assert executor.submit(len, handle).result(30) == 16_000
            assert uploads(executor) == expected


def test_an_object_may_be_of_a_class_of_the_script_and_hold_others(executor: ProminenceExecutor) -> None:
    class Mesh:
        def __init__(self, points: list[int]) -> None:
            self.points = points

    mesh = executor.scatter(Mesh([1, 2, 3]))
    assert executor.submit(lambda mesh: sum(mesh.points), mesh).result(30) == 6


def test_a_handle_travels_nowhere_else(executor: ProminenceExecutor) -> None:
    with pytest.raises(TypeError, match="executor"):
        pickle.dumps(executor.scatter([1]))
