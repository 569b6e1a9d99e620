"""Large arguments are uploaded once, and each call gets them as if they had travelled with it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proxy import FaultProxy, reset_before, status

from prominence_executor import NotFoundError, ProminenceExecutor
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
BIG = 300_000  # floats: 2.4 MB


@pytest.fixture(autouse=True)
def nothing_stored(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        executor.purge(older_than=0)


def uploads(executor: ProminenceExecutor) -> int:
    return executor.client.requests_sent["PUT upload"]


def stored(executor: ProminenceExecutor) -> list[str]:
    return [item["name"] for item in executor.client.list_data()]


def data(seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).random(BIG)


def total(values: Any, n: int = 0) -> float:
    return float(values.sum()) + n


# -- scatter -----------------------------------------------------------------------------------------------------------


def test_a_scattered_object_is_uploaded_once_for_all_calls(executor: ProminenceExecutor) -> None:
    values = data()
    reference = executor.scatter(values)
    found = [executor.submit(lambda values, n: float(values[n]), reference, n) for n in range(4)]
    assert [future.result(30) for future in found] == list(values[:4])
    assert uploads(executor) == 1
    pairs = [{"x": [reference], "n": n} for n in range(24)]
    assert list(executor.map(lambda pair: total(pair["x"][0], pair["n"]), pairs)) == [
        total(values, n) for n in range(24)
    ]
    assert uploads(executor) == 3  # the arrays' payloads


def test_the_next_run_does_not_upload_it_again(service: LocalService) -> None:
    for expected in (1, 0):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            reference = executor.scatter(b"the same in both" * 100_000)
            assert executor.submit(len, reference).result(30) == 1_600_000
            assert uploads(executor) == expected


def test_an_object_may_be_of_a_class_of_the_script(executor: ProminenceExecutor) -> None:
    class Mesh:
        def __init__(self, points: list[int]) -> None:
            self.points = points

    mesh = executor.scatter(Mesh([1, 2, 3]))
    assert executor.submit(lambda mesh: sum(mesh.points), mesh).result(30) == 6


def test_a_reference_travels_nowhere_else(executor: ProminenceExecutor) -> None:
    reference: Any = executor.scatter([1])
    with pytest.raises(TypeError, match="executor"):
        pickle.dumps(reference)
    assert str(reference.sha256) in repr(reference)


def test_what_cannot_be_pickled_cannot_be_scattered(executor: ProminenceExecutor) -> None:
    with pytest.raises(TypeError, match="lock"):
        executor.scatter(threading.Lock())


# -- arguments that several calls share --------------------------------------------------------------------------------


def test_an_argument_of_several_calls_is_uploaded_once(executor: ProminenceExecutor) -> None:
    values = data()
    futures = [executor.submit(total, values, n) for n in range(5)]
    assert [future.result(30) for future in futures] == [total(values, n) for n in range(5)]
    assert uploads(executor) == 1
    assert list(executor.map(total, repeat(values), range(48), chunksize=2)) == [total(values, n) for n in range(48)]
    assert uploads(executor) == 3  # of the arrays


def test_it_need_not_be_the_same_object(executor: ProminenceExecutor) -> None:
    futures = [executor.submit(total, data(), n=n) for n in range(3)]
    assert [future.result(30) for future in futures] == [total(data(), n) for n in range(3)]
    assert uploads(executor) == 1


def test_an_argument_that_changes_between_calls_travels_as_it_was(executor: ProminenceExecutor) -> None:
    values = np.zeros(BIG)
    futures = []
    for n in range(3):
        values[:] = n
        futures.append(executor.submit(total, values))

    def growing() -> Iterator[Any]:
        for n in range(3):
            values[:] = n + 10
            yield values

    results = executor.map(total, growing())
    assert [future.result(30) for future in futures] == [0.0, BIG, 2 * BIG]
    assert list(results) == [10.0 * BIG, 11.0 * BIG, 12.0 * BIG]


def test_an_argument_of_one_call_does_not_stay_at_the_service(executor: ProminenceExecutor, until: Until) -> None:
    futures = [executor.submit(total, data(n)) for n in range(3)]
    assert [future.result(30) for future in futures] == [total(data(n)) for n in range(3)]
    until(lambda: stored(executor) == [])
    assert uploads(executor) == 3


def test_a_shared_one_stays_for_the_next_run(service: LocalService) -> None:
    for expected in (1, 0):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            assert [f.result(30) for f in [executor.submit(total, data(), n) for n in range(2)]] == [
                total(data()),
                total(data(), 1),
            ]
            assert uploads(executor) == expected
            assert [name[:3] for name in stored(executor)] == ["px-"]


def test_a_large_function_is_uploaded_once(executor: ProminenceExecutor) -> None:
    values = data()
    assert list(executor.map(lambda n: total(values, n), range(3))) == [total(values, n) for n in range(3)]
    assert uploads(executor) == 1
    futures = [executor.submit(lambda n: total(values, n), n) for n in range(2)]
    assert [future.result(30) for future in futures] == [total(values, n) for n in range(2)]


def test_large_values_inside_small_ones_are_found(executor: ProminenceExecutor) -> None:
    numbers = list(range(400_000))
    deep = {"a": [numbers], "name": "x"}
    futures = [executor.submit(lambda d, n: d["a"][0][n], deep, n) for n in range(3)]
    assert [future.result(30) for future in futures] == [0, 1, 2]
    assert 1 <= uploads(executor) <= 2  # two on a machine so busy that the second call came late


def test_each_call_has_a_copy_of_its_own(executor: ProminenceExecutor) -> None:
    def spoil(values: Any, same: Any) -> tuple[float, bool]:
        before = float(values[0])
        values[0] = 99.0
        return before, values is same

    values = np.ones(BIG)
    arguments = [values] * 4
    assert list(executor.map(spoil, arguments, arguments, chunksize=4)) == [(1.0, True)] * 4


def test_what_is_readonly_stays_so_and_the_rest_can_be_written_to(executor: ProminenceExecutor) -> None:
    fixed = data()
    fixed.flags.writeable = False
    columns = np.asfortranarray(data().reshape(-1, 100))

    def look(fixed: Any, columns: Any, text: bytes) -> Any:
        columns[0, 0] = 7.0
        return fixed.flags.writeable, fixed.flags.aligned, columns.flags.f_contiguous, float(columns[1, 2]), len(text)

    text = b"x" * 2_000_000
    for _ in range(2):
        seen = executor.submit(look, fixed, columns, text).result(30)
        assert seen == (False, True, True, float(columns[1, 2]), 2_000_000)


def test_an_argument_survives_another_attempt(service: LocalService, tmp_path: Path) -> None:
    def dies_once(values: Any, marker: str) -> float:
        import os

        if not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(3)
        return float(values.sum())

    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), retries=1) as executor:
        future = executor.submit(dies_once, data(), str(tmp_path / "marker"))
        assert future.result(60) == total(data())
        assert future.attempts == 2


def test_an_object_that_somebody_deletes_is_uploaded_again(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        assert executor.submit(total, executor.scatter(data())).result(30) == total(data())
    with ProminenceExecutor(service.url, service.token) as executor:
        reference = executor.scatter(data())
        small = executor.scatter([1, 2])
        assert executor.submit(len, small).result(30) == 2  # the service has been asked what it has
        for name in stored(executor):
            executor.client.delete_data(name)
        assert executor.submit(total, reference).result(30) == total(data())
        with pytest.raises(NotFoundError, match="not at the service"):
            executor.submit(len, small).result(30)


def test_an_upload_that_breaks_off_is_made_again(service: LocalService) -> None:
    with (
        FaultProxy(service.url, seed=1) as proxy,
        ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.5)) as executor,
    ):
        proxy.inject(reset_before(), method="PUT", times=2)
        proxy.inject(status(503), method="POST", path="/data/upload", times=1)
        futures = [executor.submit(total, data(), n) for n in range(2)]
        assert [future.result(30) for future in futures] == [total(data()), total(data(), 1)]


# -- purge -------------------------------------------------------------------------------------------------------------


def test_purge_spares_what_is_young_or_in_use(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token) as other:
        other.client.upload("mine", b"not ours")
        unneeded = other.scatter(data(1))
        assert other.submit(total, unneeded).result(30) == total(data(1))
        del unneeded
        used = other.submit(lambda values: time.sleep(60), other.scatter(data(2)))
        until(used.running)
        with ProminenceExecutor(service.url, service.token) as executor:
            assert executor.purge(older_than=3600) == []
            assert len(executor.purge(older_than=0)) == 1
        assert len(stored(other)) == 2
        used.terminate()
        other.client.delete_data("mine")
        with pytest.raises(ValueError, match="older_than"):
            other.purge(-1)


@pytest.mark.parametrize(
    "facts", [{}, {"lastModified": "yesterday"}, {"lastModified": "Mon, 99 Jan 2020 00:00:00 GMT"}]
)
def test_purge_spares_that_of_which_nobody_says_how_old_it_is(
    service: LocalService, facts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [{"name": "px-0123", "size": 1, **facts}]
    with ProminenceExecutor(service.url, service.token) as executor:
        monkeypatch.setattr(executor.client, "list_data", lambda: listed)
        assert executor.purge(older_than=0) == []


# -- journal and attach ------------------------------------------------------------------------------------------------


def test_a_journal_keeps_the_objects_of_unsent_calls(service: LocalService, tmp_path: Path) -> None:
    from prominence_executor.run.journal import Journal
    from prominence_executor.run.objects import Objects
    from prominence_executor.run.uploads import UploadCache

    path = tmp_path / "journal"
    first = ProminenceExecutor(
        "http://127.0.0.1:9", service.token, journal=path, service_timeout=0.5, on_interrupt="leave"
    )
    futures = [first.submit(total, data(3), n) for n in range(2)]
    run_id = first.run_id
    first._run.interrupt()
    assert all(future.exception(30) for future in futures)
    first.shutdown()
    journal = Journal.open(path)
    assert journal is not None
    kept = journal.kept(Objects(UploadCache()))
    assert {reference.size > 8 * BIG for item in kept for reference in item.payload.objects} == {True}
    journal.close()
    with ProminenceExecutor.attach(run_id, service.url, service.token, journal=path) as again:
        assert [future.result(30) for future in again.futures()] == [total(data(3), n) for n in range(2)]
    assert not path.exists()
