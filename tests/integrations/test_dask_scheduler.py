"""dask takes an executor as its scheduler: delayed calls, bags, arrays and tables, by jobs and by warm workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dask
import dask.array
import dask.bag
import dask.dataframe
import numpy
import pandas  # type: ignore[import-untyped]
import pytest

from prominence_executor import ProminenceExecutor, Warm
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once  # what they send, and how it comes back, is tested on every Python without them

Until = Callable[..., None]

MEGABYTE = 140_000  # float64 of a chunk that is larger than a call's arguments may be inside of a job's description


@pytest.fixture(scope="module", params=["jobs", "warm"])
def pool(request: pytest.FixtureRequest, service: LocalService) -> Iterator[ProminenceExecutor]:
    workers = Warm(max_workers=3) if request.param == "warm" else None
    with ProminenceExecutor(service.url, service.token, workers=workers, poll_interval=(0.05, 0.5)) as executor:
        yield executor


def increment(number: int) -> int:
    return number + 1


def refuses(number: int) -> int:
    raise LookupError(f"no {number}")


def calls_of(executor: ProminenceExecutor) -> int:
    return executor.submit(increment, 0).index


def test_delayed_calls(pool: ProminenceExecutor) -> None:
    parts = [dask.delayed(increment)(number) for number in range(3)]
    total = dask.delayed(sum)(parts)
    assert dask.compute(total, parts[0], scheduler=pool) == (6, 1)


def test_a_bag_in_batches(pool: ProminenceExecutor) -> None:
    bag = dask.bag.from_sequence(range(40), partition_size=1).map(increment)
    before = calls_of(pool)
    with dask.config.set(chunksize=20):  # tasks in one call
        assert bag.compute(scheduler=pool) == list(range(1, 41))
    assert calls_of(pool) - before < 10


def test_an_array_whose_chunks_are_large(pool: ProminenceExecutor) -> None:
    array = dask.array.from_array(numpy.arange(2.0 * MEGABYTE), chunks=MEGABYTE)
    with dask.config.set(scheduler=pool):
        shifted, mean = dask.compute(array + 1, array.mean())
    assert shifted.tolist() == list(range(1, 2 * MEGABYTE + 1))
    assert mean == (2 * MEGABYTE - 1) / 2


def test_arrays_stay_with_warm_workers(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers=Warm(max_workers=2)) as executor:
        array = dask.array.from_array(numpy.arange(4.0 * MEGABYTE), chunks=MEGABYTE)
        with dask.config.set(scheduler=executor):
            assert float((array * 2).sum()) == 4 * MEGABYTE * (4 * MEGABYTE - 1)
        names = [str(job["name"]) for job in executor.client.list_jobs(all=True)]
        assert not [name for name in names if name.startswith(executor.run_id) and ".w" not in name]


def test_a_table(pool: ProminenceExecutor) -> None:
    table = pandas.DataFrame({"kind": ["a", "b"] * 50, "size": range(100)})
    sums = dask.dataframe.from_pandas(table, npartitions=2).groupby("kind")["size"].sum()
    with dask.config.set(chunksize=8):
        assert sums.compute(scheduler=pool).to_dict() == {"a": 2450, "b": 2500}


def test_an_error_of_a_task_comes_back(pool: ProminenceExecutor) -> None:
    with pytest.raises(LookupError, match="no 5"):
        dask.delayed(refuses)(5).compute(scheduler=pool)
