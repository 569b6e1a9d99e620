"""Many calls that are submitted together travel as few requests, and behave as those that travel alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import pytest
from calls import Gate
from proxy import Fault, FaultProxy, dropped, edited, late, status

from prominence_executor import (
    CallCrashedError,
    InitializerError,
    JobDeletedError,
    ProminenceExecutor,
    Resources,
)
from prominence_executor.client.client import ProminenceClient
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
NOWHERE = Resources(cpus=1000)  # no slot is that large: such a job waits


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url, seed=7) as proxy:
        yield proxy


def on(service: LocalService, proxy: FaultProxy, **options: object) -> ProminenceExecutor:
    return ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.5), **options)  # type: ignore[arg-type]


def workflows_of(client: ProminenceClient, executor: ProminenceExecutor) -> list[dict[str, object]]:
    return client.list_workflows(constraint=("pxrun", executor.run_id), all=True)


def submissions(executor: ProminenceExecutor) -> Counter[str]:
    return Counter({kind: n for kind, n in executor.client.requests_sent.items() if kind.startswith(("POST", "PUT"))})


def test_calls_of_a_loop_travel_in_a_few_workflows(executor: ProminenceExecutor) -> None:
    found = [executor.submit(pow, n, 2) for n in range(30)]
    assert [future.result(60) for future in found] == [n * n for n in range(30)]
    sent = submissions(executor)
    assert sum(sent.values()) <= 10
    assert 1 <= sent["POST /workflows"] <= 3
    assert sent["POST /jobs"] <= 1  # the first, when the second was late
    assert len({future.job_id for future in found}) == 30


def test_one_call_goes_out_as_a_plain_job(executor: ProminenceExecutor) -> None:
    assert executor.submit(pow, 2, 2).result(30) == 4
    assert submissions(executor) == {"POST /jobs": 1}


def test_a_few_calls_go_out_as_plain_jobs(executor: ProminenceExecutor) -> None:
    assert list(executor.map(pow, range(19), [2] * 19)) == [n * n for n in range(19)]
    assert submissions(executor) == {"POST /jobs": 19}


def test_chunks_and_a_shorter_last_one(executor: ProminenceExecutor) -> None:
    assert list(executor.map(pow, range(225), [2] * 225, chunksize=10)) == [n * n for n in range(225)]
    assert submissions(executor) == {"POST /data/upload": 2, "PUT upload": 2, "POST /workflows": 2}


def test_calls_of_many_threads_and_options(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        other = executor.with_options(env={"X": "1"})
        found: dict[int, futures.Future[int]] = {}

        def submit(start: int) -> None:
            for n in range(start, start + 12):
                found[n] = (other if start % 24 else executor).submit(pow, n, 2)

        threads = [threading.Thread(target=submit, args=(start,)) for start in range(0, 48, 12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[n].result(60) for n in range(48)] == [n * n for n in range(48)]


def test_a_large_call_among_small_ones(executor: ProminenceExecutor) -> None:
    contents = [b"x" * (500_000 if n == 5 else n) for n in range(20)]
    assert list(executor.map(len, contents)) == list(map(len, contents))


def test_crashes_and_exceptions_cost_their_own_call(executor: ProminenceExecutor) -> None:
    def call(n: int) -> int:
        import os

        if n == 3:
            os._exit(3)
        return 1 // (n - 4)

    found = [executor.submit(call, n) for n in range(22)]
    futures.wait(found, 60)
    assert isinstance(found[3].exception(), CallCrashedError)
    assert isinstance(found[4].exception(), ZeroDivisionError)
    assert [found[n].result() for n in (0, 5, 9)] == [-1, 1, 0]
    assert "ZeroDivisionError" in str(found[4].exception().__cause__)  # type: ignore[union-attr]


def test_an_initializer_runs_in_each_of_its_jobs(service: LocalService, tmp_path: Path) -> None:
    def initializer(path: str) -> None:
        with open(path, "a") as file:
            file.write("once\n")

    with ProminenceExecutor(
        service.url, service.token, initializer=initializer, initargs=(str(tmp_path / "log"),), poll_interval=0.05
    ) as executor:
        assert list(executor.map(abs, range(40), chunksize=2)) == list(range(40))
    assert (tmp_path / "log").read_text() == "once\n" * 20
    with ProminenceExecutor(service.url, service.token, initializer=pow, initargs=("x", 2), poll_interval=0.05) as bad:
        for future in [bad.submit(abs, n) for n in range(22)]:
            with pytest.raises(InitializerError, match="TypeError"):
                future.result(30)


def test_retries_of_an_array(service: LocalService, tmp_path: Path) -> None:
    def call(n: int) -> int:
        import os

        mark = tmp_path / str(n)
        if n % 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return n

    with ProminenceExecutor(service.url, service.token, retries=1, poll_interval=(0.05, 0.5)) as executor:
        found = [executor.submit(call, n) for n in range(22)]
        assert [future.result(60) for future in found] == list(range(22))
        assert [future.attempts for future in found] == [1, 2] * 11


def test_cancelling_some_deletes_their_jobs_and_no_others(
    executor: ProminenceExecutor, client: ProminenceClient, tmp_path: Path, until: Until
) -> None:
    gate = Gate(tmp_path)
    found = [executor.submit(gate.hold, str(n)) for n in range(24)]  # there is room for 8
    until(lambda: sum(future.running() for future in found) == 8)
    waiting = [future for future in found if not future.running()]
    assert all(future.cancel() for future in waiting[:6])
    # They are deleted a moment later: those that begin before run to their end.
    label = ("pxrun", executor.run_id)
    until(lambda: sum(job["status"] == "deleted" for job in client.list_jobs(constraint=label, all=True)) == 6)
    gate.open()
    kept = [future for future in found if not future.cancelled()]
    assert len([future.result(60) for future in kept]) == 18
    executor.shutdown()
    statuses = Counter(job["status"] for job in client.list_jobs(constraint=("pxrun", executor.run_id), all=True))
    assert statuses == {"completed": 18, "deleted": 6}


def test_cancelling_all_deletes_each_workflow_with_one_request(
    executor: ProminenceExecutor, client: ProminenceClient, until: Until
) -> None:
    found = [executor.with_options(resources=NOWHERE).submit(pow, n, 2) for n in range(30)]
    until(lambda: all(future.job_id for future in found[1:]))
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in found)
    workflows = workflows_of(client, executor)
    assert {workflow["status"] for workflow in workflows} == {"deleted"}
    assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []
    assert executor.client.requests_sent["DELETE /workflows/id"] == len(workflows) <= 3
    assert executor.client.requests_sent["DELETE /jobs"] <= 1


def test_cancelling_at_once_leaves_nothing(executor: ProminenceExecutor, client: ProminenceClient) -> None:
    found = [executor.submit(time.sleep, 60) for _ in range(30)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in found)
    assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []
    assert {workflow["status"] for workflow in workflows_of(client, executor)} <= {"deleted"}


def test_terminate_in_an_array_ends_its_own_job(executor: ProminenceExecutor, tmp_path: Path, until: Until) -> None:
    gate = Gate(tmp_path)
    found = [executor.submit(gate.hold, str(n)) for n in range(24)]
    until(lambda: sum(future.running() for future in found) == 8)
    ended = [future for future in found if future.running()][2]
    assert ended.terminate()
    with pytest.raises(JobDeletedError, match="terminate"):
        ended.result(20)
    gate.open()
    assert [future.result(30) for future in found if future is not ended] == [
        str(n) for n, future in enumerate(found) if future is not ended
    ]


def test_a_workflow_that_is_deleted_from_elsewhere_ends_all_of_its_calls(
    executor: ProminenceExecutor, client: ProminenceClient, until: Until
) -> None:
    found = [executor.with_options(resources=NOWHERE).submit(pow, n, 2) for n in range(25)]
    until(lambda: len(workflows_of(client, executor)) == 2)
    for workflow in workflows_of(client, executor):
        client.delete_workflow(workflow["id"])  # type: ignore[arg-type]
    for future in found[1:]:
        with pytest.raises(JobDeletedError):
            future.result(30)
    found[0].cancel()


def hiding(first: int) -> Fault:
    """Lists do not show the jobs of arrays from this position on: as if the service had not made them yet."""

    def change(listed: list[dict[str, object]]) -> list[dict[str, object]]:
        return [
            job for job in listed if "/pxcall/" not in str(job["name"]) or int(str(job["name"]).split("/")[-1]) < first
        ]

    return edited("hiding", change)


def test_jobs_that_were_never_seen_active_are_found_once_they_have_ended(
    service: LocalService, proxy: FaultProxy
) -> None:
    rule = proxy.inject(hiding(5), method="GET", path=r"^/jobs\?constraint=[^&]*$")
    with on(service, proxy) as executor:
        assert list(executor.map(pow, range(24), [2] * 24)) == [n * n for n in range(24)]
        assert submissions(executor)["POST /workflows"] == 2
    assert rule.injected


@pytest.mark.slow
def test_jobs_that_a_deleted_workflow_never_made_are_deleted_ones(
    service: LocalService, proxy: FaultProxy, client: ProminenceClient, until: Until
) -> None:
    proxy.inject(hiding(0), method="GET", path=r"^/jobs\?")
    with on(service, proxy, resources=NOWHERE) as executor:
        results = executor.map(pow, range(24), [2] * 24)
        until(lambda: len(workflows_of(client, executor)) == 2)
        for workflow in workflows_of(client, executor):
            client.delete_workflow(workflow["id"])  # type: ignore[arg-type]
        with pytest.raises(JobDeletedError, match="workflow"):
            next(results)


def test_an_array_is_found_again_with_and_without_jobs(
    service: LocalService, proxy: FaultProxy, client: ProminenceClient, until: Until
) -> None:
    """The jobs that the second program does not see at first show later."""
    executor = ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), on_interrupt="leave")
    results = executor.map(pow, range(225), [2] * 225, chunksize=10)
    until(lambda: client.list_jobs(constraint=("pxrun", executor.run_id), all=True))
    rule = proxy.inject(hiding(0), method="GET", path=r"^/jobs\?.*constraint=", times=3)
    with ProminenceExecutor.attach(executor.run_id, proxy.url, service.token, poll_interval=(0.05, 0.5)) as again:
        assert [future.result(30) for future in again.futures()] == [n * n for n in range(225)]
    assert rule.injected == 3
    assert list(results) == [n * n for n in range(225)]
    executor.shutdown()


def test_cancelling_an_attached_array_cancels_it_at_the_service(
    service: LocalService, client: ProminenceClient, until: Until
) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), resources=NOWHERE) as executor:
        found = [executor.submit(pow, n, 2) for n in range(25)]
        until(lambda: all(future.job_id for future in found))
        with ProminenceExecutor.attach(executor.run_id, service.url, service.token, poll_interval=0.1) as again:
            assert all(future.cancel() for future in again.futures())
        for future in found:
            with pytest.raises(JobDeletedError):
                future.result(30)
    assert {workflow["status"] for workflow in workflows_of(client, executor)} == {"deleted"}


@pytest.mark.parametrize("code", [404, 405, 403, 400, 500])
def test_a_service_without_workflows_gets_plain_jobs(service: LocalService, proxy: FaultProxy, code: int) -> None:
    proxy.inject(status(code, body='{"error": "no"}'), path="^/workflows")
    with on(service, proxy) as executor:
        assert list(executor.map(pow, range(21), [2] * 21)) == [n * n for n in range(21)]
        assert submissions(executor)["POST /jobs"] == 21


def test_of_a_workflow_whose_answer_was_lost_each_call_runs_once(
    service: LocalService, proxy: FaultProxy, tmp_path: Path, client: ProminenceClient
) -> None:
    path = str(tmp_path / "lines")

    def call(n: int) -> int:
        with open(path, "a") as file:
            file.write(f"{n}\n")
        return n

    proxy.inject(dropped(), method="POST", path="^/workflows$", times=1)
    with on(service, proxy) as executor:
        assert list(executor.map(call, range(30))) == list(range(30))
    assert sorted(map(int, Path(path).read_text().split())) == list(range(30))
    assert len(workflows_of(client, executor)) == 3


def test_of_two_workflows_of_one_array_nothing_is_left(
    service: LocalService, proxy: FaultProxy, client: ProminenceClient
) -> None:
    proxy.inject(late(5), method="POST", path="^/workflows$", times=1)
    with on(service, proxy) as executor:
        found = [executor.submit(time.sleep, 2) for _ in range(24)]
        assert [future.result(60) for future in found] == [None] * 24
    assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []
    assert len(workflows_of(client, executor)) == 3
    assert client.list_workflows(constraint=("pxrun", executor.run_id)) == []


def test_the_uploaded_payload_is_removed(executor: ProminenceExecutor, client: ProminenceClient) -> None:
    assert list(executor.map(abs, range(21))) == list(range(21))
    executor.shutdown()
    assert [item for item in client.list_data() if executor.run_id in str(item)] == []


def test_max_workers_bounds_the_jobs_of_arrays(service: LocalService, client: ProminenceClient) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=10, poll_interval=(0.05, 0.2)) as executor:
        found = [executor.submit(time.sleep, 0.2) for _ in range(40)]
        most = 0
        while futures.wait(found, 0.05).not_done:
            most = max(most, len(client.list_jobs(constraint=("pxrun", executor.run_id))))
        assert most <= 10


def test_calls_of_a_loop_that_travel_alone_are_created_in_their_order(
    executor: ProminenceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("_APART", "_PREPARING"):  # else on a busy machine one that takes long is overtaken, as it should
        monkeypatch.setattr(f"prominence_executor.transports.jobs.turn.{patience}", 30.0)
    futures = [executor.with_options(env={"NUMBER": str(number)}).submit(abs, number) for number in range(7)]
    for future in futures:
        future.result(60)
    assert [future.job_id for future in futures] == sorted(future.job_id or 0 for future in futures)
