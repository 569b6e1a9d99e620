"""joblib on an executor: results and errors as joblib promises them; what is shared, what is nested, what is ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest
from joblib import Parallel, delayed, parallel_config

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.integrations.joblib import ideal_seconds, register
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once  # what they send, and how it comes back, is tested on every Python without them

Until = Callable[..., None]

register()


def square(number: int) -> int:
    return number * number


def where(number: int) -> int:
    return os.getpid()


def scaled(array: numpy.ndarray, factor: int, *, offset: numpy.ndarray | None = None) -> float:
    return float(array.sum()) * factor + (0 if offset is None else float(offset[0]))


def overwrites(array: numpy.ndarray) -> None:
    array[0] = 7


def fails_at_three(number: int) -> int:
    if number == 3:
        raise LookupError("three")
    return number


def waits_for(path: str, number: int) -> int:
    Path(path, f"began{number}").touch()
    while not Path(path, "gate").exists():
        time.sleep(0.02)
    return number


def first_waits(path: str, number: int) -> int:
    return waits_for(path, number) if number == 0 else number


def inner(count: int) -> tuple[int, str, set[bool]]:
    """What a Parallel inside of a call looks like: how many at once, with which backend, in this process or not."""
    own = os.getpid()
    with Parallel(n_jobs=-1) as parallel:
        pids = parallel(delayed(where)(n) for n in range(count))
        kind = type(parallel._backend).__name__
    return joblib.effective_n_jobs(-1), kind, {pid == own for pid in pids}


def numbers(results: Any) -> list[int]:
    return list(results)


@pytest.fixture(scope="module", params=["jobs", "warm"])
def pool(request: pytest.FixtureRequest, service: LocalService) -> Iterator[ProminenceExecutor]:
    options: dict[str, Any] = {"workers": "warm"} if request.param == "warm" else {"poll_interval": (0.05, 0.5)}
    with ProminenceExecutor(service.url, service.token, max_workers=3, **options) as executor:
        yield executor


def test_parallel_runs_in_jobs_and_keeps_the_order(pool: ProminenceExecutor) -> None:
    with parallel_config("prominence", executor=pool):
        assert numbers(Parallel()(delayed(square)(n) for n in range(7))) == [0, 1, 4, 9, 16, 25, 36]
        assert os.getpid() not in numbers(Parallel(n_jobs=-1, pre_dispatch="all")(delayed(where)(n) for n in range(3)))
        assert numbers(Parallel(n_jobs=2, batch_size=4)(delayed(square)(n) for n in range(7))) == [
            0,
            1,
            4,
            9,
            16,
            25,
            36,
        ]
        assert numbers(Parallel()([])) == []


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_come_as_a_generator(pool: ProminenceExecutor, return_as: str, tmp_path: Path) -> None:
    with parallel_config("prominence", executor=pool):
        results = Parallel(return_as=return_as, batch_size=1)(
            delayed(first_waits)(str(tmp_path), number) for number in range(3)
        )
        if return_as == "generator_unordered":
            assert {next(results), next(results)} == {1, 2}
        (tmp_path / "gate").touch()
        assert numbers(results) == ([0] if return_as == "generator_unordered" else [0, 1, 2])


def test_all_of_an_executor_is_what_it_has(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=5) as executor:
        with parallel_config("prominence", executor=executor):
            assert [joblib.effective_n_jobs(n) for n in (-1, -2, 3)] == [5, 4, 3]
        assert executor.slots() == 5
        assert not executor.client.requests_sent
    with ProminenceExecutor(service.url, service.token, resources=Resources(cpus=2)) as executor:
        with parallel_config("prominence", executor=executor):
            assert joblib.effective_n_jobs(-1) == 4
        assert executor.with_options(resources=Resources(cpus=1, memory=32)).slots() == 2
        assert executor.with_options(resources=Resources(cpus=100)).slots() == 1000  # nobody can say
    with ProminenceExecutor(service.url, service.token, max_workers=1) as executor:
        with parallel_config("prominence", executor=executor):
            assert joblib.effective_n_jobs(-1) == 2  # with 1, joblib would run everything here
            with pytest.raises(ValueError, match="n_jobs == 0"):
                joblib.effective_n_jobs(0)


def test_a_large_array_is_sent_once_and_cannot_be_changed(service: LocalService) -> None:
    array, offset = numpy.ones(300_000), numpy.full(200_000, 5.0)
    with ProminenceExecutor(service.url, service.token, max_workers=4, poll_interval=(0.05, 0.5)) as executor:
        with parallel_config("prominence", executor=executor):
            results = Parallel(batch_size=2)(delayed(scaled)(array, n, offset=offset) for n in range(12))
            assert results == [300_000.0 * n + 5 for n in range(12)]
            uploads = executor.client.requests_sent["POST /data/upload"]
            with pytest.raises(ValueError, match="read-only"):
                Parallel()([delayed(overwrites)(array)] * 2)
        executor.purge(0)
    assert uploads <= 4  # on a slow machine the first batch is sent before the second is there


def test_arrays_that_only_one_call_has_do_not_stay(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=4, poll_interval=(0.05, 0.5)) as executor:
        before = {item["name"] for item in executor.client.list_data()}
        with parallel_config("prominence", executor=executor):
            arrays = (numpy.full(200_000, float(n)) for n in range(4))
            results = Parallel(batch_size=1)(delayed(scaled)(array, 1) for array in arrays)
            assert results == [200_000.0 * n for n in range(4)]
        until(lambda: before >= {item["name"] for item in executor.client.list_data()}, 60)


def test_parallel_within_a_call_stays_in_its_job(pool: ProminenceExecutor) -> None:
    with parallel_config("prominence", executor=pool.with_options(resources=Resources(cpus=2))):
        for at_once, kind, here in Parallel()(delayed(inner)(4) for _ in range(2)):
            assert (at_once, kind, here) == (2, "ThreadingBackend", {True})


def test_batches_grow_by_the_time_of_the_calls_alone(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=2, workers="warm") as executor:
        with parallel_config("prominence", executor=executor):
            assert numbers(Parallel()(delayed(square)(n) for n in range(120))) == [n * n for n in range(120)]
        assert executor.submit(square, 0).index < 60  # so many batches there were


def test_a_batch_is_long_against_what_a_job_costs() -> None:
    assert ideal_seconds(0.0) == (0.2, 1.0)
    assert ideal_seconds(1.5) == (15.0, 75.0)
    assert ideal_seconds(3600.0) == (60.0, 300.0)


def test_an_error_comes_back_as_itself_and_ends_the_rest(service: LocalService, tmp_path: Path, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=2, poll_interval=(0.05, 0.5)) as executor:
        with parallel_config("prominence", executor=executor):
            calls = [delayed(fails_at_three)(3), *(delayed(waits_for)(str(tmp_path), n) for n in range(30))]
            with pytest.raises(LookupError, match="three") as caught:
                Parallel(n_jobs=2, batch_size=1)(calls)
        assert "fails_at_three" in str(caught.value.__cause__)
        until(lambda: all(future.done() for future in executor.futures()))
        assert executor.client.requests_sent["POST /jobs"] < 10


def test_a_time_limit_ends_the_rest(service: LocalService, tmp_path: Path, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=2, poll_interval=(0.05, 0.5)) as executor:
        with parallel_config("prominence", executor=executor), pytest.raises(multiprocessing.TimeoutError):
            Parallel(timeout=0.1)(delayed(waits_for)(str(tmp_path), n) for n in range(4))
        until(lambda: all(future.done() for future in executor.futures()))


def test_an_interruption_ends_the_rest(service: LocalService, tmp_path: Path, until: Until) -> None:
    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        until(lambda: list(tmp_path.glob("began*")), 60)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with ProminenceExecutor(service.url, service.token, max_workers=2, poll_interval=(0.05, 0.5)) as executor:
        thread.start()
        with parallel_config("prominence", executor=executor), pytest.raises(KeyboardInterrupt):
            Parallel()(delayed(waits_for)(str(tmp_path), n) for n in range(8))
        thread.join()
        until(lambda: all(future.done() for future in executor.futures()))
        assert executor.submit(square, 3).result() == 9


def test_a_generator_that_is_left_ends_the_rest(service: LocalService, tmp_path: Path, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=2, poll_interval=(0.05, 0.5)) as executor:
        with parallel_config("prominence", executor=executor), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib's own, of calls that nobody took
            results = Parallel(return_as="generator")(delayed(waits_for)(str(tmp_path), n) for n in range(8))
            results.close()
        until(lambda: all(future.done() for future in executor.futures()))


def test_an_executor_that_is_shut_down_is_an_error_not_a_hang(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        pass
    with parallel_config("prominence", executor=executor), pytest.raises(RuntimeError, match="shutdown"):
        Parallel(n_jobs=2)(delayed(square)(n) for n in range(4))
    with pytest.raises(TypeError, match="needs a ProminenceExecutor"), parallel_config("prominence"):
        pass


def test_a_grid_search_finds_the_same_as_without_jobs(pool: ProminenceExecutor) -> None:
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    data, labels = make_classification(n_samples=200, n_features=6, random_state=0)
    grid = {"C": [0.01, 1.0]}
    here = GridSearchCV(LogisticRegression(), grid, cv=2).fit(data, labels)
    with parallel_config("prominence", executor=pool):
        there = GridSearchCV(LogisticRegression(), grid, cv=2, n_jobs=-1).fit(data, labels)
    assert there.best_params_ == here.best_params_
    assert there.cv_results_["mean_test_score"].tolist() == here.cv_results_["mean_test_score"].tolist()
