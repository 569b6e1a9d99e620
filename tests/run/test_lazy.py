"""Large results stay at the service until they are asked for."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proxy import FaultProxy, reset_before, truncated

from prominence_executor import ProminenceExecutor, RemotePicklingError, TransferError, load
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
BIG = 500_000  # floats: 4 MB


@pytest.fixture
def lazy(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), lazy=True) as executor:
        yield executor


def ramp(start: float) -> Any:
    return np.arange(start, start + BIG)


def test_a_large_result_comes_when_it_is_asked_for(lazy: ProminenceExecutor) -> None:
    futures = [lazy.submit(ramp, n) for n in range(2)]
    assert not wait(futures, 30).not_done
    downloads = lazy.client.requests_sent["GET output"]
    for n, future in enumerate(futures):
        result = future.result()
        assert np.array_equal(result, ramp(n))
        assert future.result() is result
    assert lazy.client.requests_sent["GET output"] == downloads + 2


def test_small_ones_and_exceptions_come_at_once(lazy: ProminenceExecutor) -> None:
    def mixed(n: int) -> Any:
        if n == 1:
            raise ValueError("one")
        return "x" * 3_000_000 if n == 2 else n

    results = lazy.map_unordered(mixed, [0, 2, 3], chunksize=3)
    assert sorted(str(result)[:3] for result in results) == ["0", "3", "xxx"]
    future = lazy.submit(mixed, 1)
    with pytest.raises(ValueError, match="one"):
        future.result(30)


def test_the_client_holds_nothing_of_it(lazy: ProminenceExecutor, tmp_path: Path) -> None:
    future = lazy.submit(bytes, 40_000_000)
    tracemalloc.start()
    try:
        assert not wait([future], 30).not_done
        future.save(tmp_path / "result")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "result").stat().st_size > 40_000_000
    assert load(tmp_path / "result") == bytes(40_000_000)
    (tmp_path / "other").write_bytes(b"something")
    with pytest.raises(ValueError, match="other was not written"):
        load(tmp_path / "other")


def test_a_result_goes_to_a_file(lazy: ProminenceExecutor, tmp_path: Path) -> None:
    large, small = lazy.submit(ramp, 5), lazy.submit(abs, -3)
    large.save(tmp_path / "large", timeout=30)
    small.save(tmp_path / "small", timeout=30)
    found = load(tmp_path / "large")
    assert np.array_equal(found, ramp(5))
    found[0] = 7.0  # a copy of this program's own
    assert load(tmp_path / "large")[0] == 5.0
    assert load(tmp_path / "small") == 3
    assert {path.name for path in tmp_path.iterdir()} == {"large", "small"}
    with pytest.raises(FileNotFoundError):
        large.save(tmp_path / "nowhere" / "large")
    with pytest.raises(ZeroDivisionError):
        lazy.submit(divmod, 1, 0).save(tmp_path / "none", timeout=30)


def test_it_can_be_asked_for_after_the_end_and_from_another_program(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, lazy=True) as executor:
        future = executor.submit(ramp, 1)
    assert np.array_equal(future.result(), ramp(1))
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, lazy=True) as again:
        (found,) = again.futures()
        assert np.array_equal(found.result(30), ramp(1))


def test_a_result_that_comes_at_once_is_writable_where_it_was(executor: ProminenceExecutor) -> None:
    def two(start: float) -> Any:
        fixed, free = ramp(start), ramp(start)
        fixed.flags.writeable = False
        return {"fixed": fixed, "free": free, "same": free, "text": "x" * 100_000}

    (found,) = executor.map(two, [3.0])
    assert found["same"] is found["free"]
    found["free"][0] = 1.0
    assert np.array_equal(found["fixed"], ramp(3.0))
    assert (found["fixed"].flags.writeable, found["free"].flags.aligned, len(found["text"])) == (False, True, 100_000)


def test_asyncio_gets_it(lazy: ProminenceExecutor) -> None:
    async def ask() -> Any:
        return await asyncio.wrap_future(lazy.submit(ramp, 2))

    assert np.array_equal(asyncio.run(ask()), ramp(2))


def test_a_result_that_does_not_unpickle_says_so(lazy: ProminenceExecutor) -> None:
    class OnlyThere:
        def __init__(self) -> None:
            self.data = b"x" * 2_000_000

        def __setstate__(self, state: dict[str, Any]) -> None:
            raise ValueError("not here")

    future = lazy.submit(lambda: OnlyThere())
    with pytest.raises(RemotePicklingError, match="not here"):
        future.result(30)
    assert isinstance(future.exception(), RemotePicklingError)


def test_a_service_that_is_away_can_be_asked_again(service: LocalService) -> None:
    with (
        FaultProxy(service.url, seed=1) as proxy,
        ProminenceExecutor(
            proxy.url, service.token, poll_interval=(0.05, 0.5), service_timeout=1.0, lazy=True
        ) as executor,
    ):
        future = executor.submit(ramp, 3)
        assert not wait([future], 30).not_done
        rule = proxy.inject(reset_before(), method="GET", path=r"pxoutcome")
        with pytest.raises(TransferError):
            future.result()

        async def ask() -> Any:
            return await asyncio.wrap_future(future)

        with pytest.raises(TransferError):
            asyncio.run(ask())
        proxy.heal(rule)
        proxy.inject(truncated(), method="GET", path=r"pxoutcome", times=1)
        assert np.array_equal(future.result(), ramp(3))
