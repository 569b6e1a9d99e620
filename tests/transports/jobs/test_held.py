"""A held job is listed as failed, without an end, while it is still in the queue: it is waited for, and runs once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import Gate, square
from proxy import FaultProxy, held, relisted, status

from prominence_executor import JobDeletedError, JobFailedError, ProminenceExecutor, Resources, WorkerLostError
from prominence_executor.client import ProminenceClient
from prominence_executor.client.job import Job, has_ended, is_held
from prominence_executor.client.model import Task
from prominence_executor.client.workflow import Workflow
from prominence_executor.local import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.once]

Until = Callable[..., None]
JOBS = r"^/jobs(/\d+)?(\?|$)"  # lists and descriptions
ACTIVE = r"^/jobs\?constraint=[^&]*$"
CREATED = "POST /jobs"
IMAGE = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url) as proxy:
        yield proxy


@pytest.fixture
def direct(service: LocalService) -> Iterator[ProminenceClient]:
    """To whom no job is held."""
    with ProminenceClient(service.url, service.token) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture
def start(service: LocalService, proxy: FaultProxy, gate: Gate) -> Iterator[Callable[..., ProminenceExecutor]]:
    """Makes executors on the proxy."""
    made: list[ProminenceExecutor] = []

    def executor(**options: Any) -> ProminenceExecutor:
        options = {"poll_interval": (0.05, 0.2), **options}
        made.append(ProminenceExecutor(proxy.url, service.token, **options))
        return made[-1]

    yield executor
    proxy.heal()
    gate.open()
    for each in made:
        each.shutdown(cancel_futures=True)


def looks(proxy: FaultProxy, until: Until, count: int = 4) -> None:
    """Wait until so many lists and descriptions have been answered from now on."""
    before = sum(proxy.injected.values())
    until(lambda: sum(proxy.injected.values()) >= before + count, 60)


def lines(gate: Gate) -> int:
    """How often the call below has run."""
    path = gate.folder / "lines"
    return len(path.read_text().split()) if path.exists() else 0


def marking(gate: Gate) -> Callable[[], str]:
    """A call that leaves a line each time that it runs, and waits at the gate; pickled by value, quick to load."""

    def mark() -> str:
        with open(gate.folder / "lines", "a") as file:
            file.write("ran\n")
        return gate.hold("call")

    return mark


# -- what a description means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "ended"),
    [
        ({"status": "idle", "events": {"createTime": 1}}, False),
        ({"status": "running", "events": {"createTime": 1, "startTime": 2}}, False),
        ({"status": "failed", "events": {"createTime": 1, "startTime": 2}}, False),  # held
        ({"status": "failed", "events": {"createTime": 1, "startTime": 2, "endTime": 3}}, True),
        ({"status": "deleted", "events": {"createTime": 1, "startTime": 2}}, True),  # at first it has no end
        ({"status": "completed", "events": {"createTime": 1, "startTime": 2, "endTime": 3}}, True),
        ({"status": "killed", "events": {"createTime": 1, "startTime": 2, "endTime": 3}}, True),
        ({"status": "unheard of"}, False),
    ],
)
def test_what_has_ended(described: dict[str, Any], ended: bool) -> None:
    assert has_ended(described) is ended
    assert is_held(described) is (described["status"] == "failed" and not ended)


# -- jobs of their own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1])
def test_a_call_whose_job_is_held_for_a_while_runs_once(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], gate: Gate, until: Until, retries: int
) -> None:
    executor = start(retries=retries)
    rule = proxy.inject(held(), method="GET", path=JOBS)
    future = executor.submit(marking(gate))
    until(lambda: lines(gate) == 1)
    looks(proxy, until, 10)
    assert not future.done()
    assert future.status() == "held"
    proxy.heal(rule)
    until(future.running)
    gate.open()
    assert future.result(30) == "call"
    assert (future.attempts, lines(gate)) == (1, 1)


def test_calls_of_an_array_whose_jobs_are_held_run_once(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], gate: Gate, until: Until
) -> None:
    executor = start(retries=1)
    rule = proxy.inject(held(), method="GET", path=JOBS)
    futures = [executor.submit(marking(gate)) for _ in range(22)]
    until(lambda: sum(future.status() == "held" for future in futures) >= 8)
    looks(proxy, until)
    proxy.heal(rule)
    gate.open()
    assert [future.result(60) for future in futures] == ["call"] * 22
    assert {future.attempts for future in futures} == {1}
    assert lines(gate) == 22


def test_a_job_that_stays_held_is_given_up_after_the_services_timeout_and_deleted(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, gate: Gate
) -> None:
    executor = start(service_timeout=2.0)
    proxy.inject(held(), method="GET", path=JOBS)
    began = time.monotonic()
    future = executor.submit(marking(gate))
    error = future.exception(30)
    assert isinstance(error, JobFailedError)
    assert "held the job for" in str(error)
    assert "has been deleted" in str(error)
    assert error.job_id == future.job_id
    assert f"job {future.job_id}" in str(error)
    assert time.monotonic() - began > 2
    assert direct.describe_job(future.job_id or 0)["status"] == "deleted"


def test_before_a_call_is_sent_again_its_held_job_is_deleted(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, gate: Gate, until: Until
) -> None:
    executor = start(service_timeout=2.0, retries=1)
    proxy.inject(held(r"/0$"), method="GET", path=JOBS)  # the first attempt, not the second
    refusal = proxy.inject(status(503), method="DELETE")
    future = executor.submit(marking(gate))
    until(lambda: future.job_id is not None)
    first = future.job_id or 0
    until(lambda: refusal.injected > 0, 30)
    time.sleep(0.5)  # in which it would be sent
    assert proxy.forwarded[CREATED] == 1
    proxy.heal(refusal)
    until(lambda: future.attempts == 2, 30)
    assert direct.describe_job(first)["status"] == "deleted"
    gate.open()
    assert future.result(30) == "call"
    assert proxy.forwarded[CREATED] == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_a_held_job_that_leaves_the_queue_without_an_end_has_ended(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, gate: Gate, retries: int,
    until: Until,
) -> None:  # fmt: skip
    executor = start(retries=retries)
    rules = [proxy.inject(held(r"/0$"), method="GET", path=JOBS)]
    future = executor.submit(marking(gate))
    until(lambda: future.status() == "held")
    direct.delete_job(future.job_id or 0)
    if retries:
        until(lambda: future.attempts == 2, 30)
        gate.open()
        assert future.result(30) == "call"
    else:
        error = future.exception(30)
        assert isinstance(error, JobFailedError)
        assert "held" in str(error)
    proxy.heal(*rules)


def test_a_job_that_is_missing_from_one_list_while_it_is_held_is_waited_for(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], gate: Gate, until: Until
) -> None:
    executor = start(retries=1)
    without = proxy.inject(relisted("without", lambda jobs: []), method="GET", path=ACTIVE, every=2)
    rule = proxy.inject(held(), method="GET", path=JOBS)
    future = executor.submit(marking(gate))
    until(lambda: future.status() == "held")
    looks(proxy, until, 8)
    proxy.heal(rule, without)
    gate.open()
    assert future.result(30) == "call"
    assert (future.attempts, lines(gate)) == (1, 1)


def test_a_held_job_can_be_cancelled(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, until: Until
) -> None:
    executor = start()
    proxy.inject(held(), method="GET", path=JOBS)
    future = executor.with_options(resources=Resources(cpus=100)).submit(square, 3)
    until(lambda: future.status() == "held")
    assert future.cancel()
    until(lambda: direct.describe_job(future.job_id or 0)["status"] == "deleted")


def test_a_job_is_held_that_another_program_finds(
    service: LocalService, proxy: FaultProxy, gate: Gate, until: Until
) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.2)) as executor:
        future = executor.submit(marking(gate))
        until(future.running)
        proxy.inject(held(), method="GET", path=JOBS)
        options: dict[str, Any] = {"poll_interval": (0.05, 0.2), "service_timeout": 3.0}
        with ProminenceExecutor.attach(executor.run_id, proxy.url, service.token, **options) as again:
            (found,) = again.futures()
            assert found.status() == "held"
            looks(proxy, until)
            assert not found.done()
            error = found.exception(30)
            assert isinstance(error, JobFailedError)
            assert "held the job for 3 s" in str(error)
        proxy.heal()
        assert future.running()  # the other program's job has been left to it
        gate.open()
        assert future.result(30) == "call"


def test_a_workflow_that_is_held_before_it_has_made_its_jobs_is_waited_for(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], gate: Gate, until: Until
) -> None:
    executor = start(retries=1)
    asked = proxy.inject(held(), method="GET", path=r"^/workflows/\d+$")
    listed = proxy.inject(held(), method="GET", path=r"^/workflows\?")
    without = proxy.inject(relisted("without", lambda jobs: []), method="GET", path=r"^/jobs\?")
    futures = [executor.submit(marking(gate)) for _ in range(22)]
    until(lambda: asked.injected >= 1 and listed.injected >= 1, 60)
    time.sleep(0.5)  # in which they would be sent
    assert not any(future.done() for future in futures)
    proxy.heal(without, asked, listed)
    gate.open()
    assert [future.result(60) for future in futures] == ["call"] * 22
    assert {future.attempts for future in futures} == {1}
    assert lines(gate) == 22


def test_a_workflow_that_stays_held_is_given_up_and_deleted(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, gate: Gate
) -> None:
    executor = start(service_timeout=2.0)
    proxy.inject(held(), method="GET", path=r"^/workflows")
    proxy.inject(relisted("without", lambda jobs: []), method="GET", path=r"^/jobs\?")
    futures = [executor.submit(marking(gate)) for _ in range(22)]
    for future in futures:
        error = future.exception(90)
        assert isinstance(error, JobFailedError)
        assert "held workflow" in str(error)
    assert direct.list_workflows(constraint=("pxrun", executor.run_id)) == []


# -- the object model --------------------------------------------------------------------------------------------------


@pytest.fixture
def idle(proxy: FaultProxy, service: LocalService) -> Iterator[Job]:
    """A job that does not start, asked after through the proxy."""
    with ProminenceClient(proxy.url, service.token) as client:
        task = Task(IMAGE, "true")
        job = Job(name="idle", tasks=[task], resources=Resources(cpus=100, disk=1, walltime=10), client=client)
        job.create()
        yield job
        proxy.heal()
        if not job.done():
            job.delete()


def test_a_held_job_is_not_done(proxy: FaultProxy, idle: Job) -> None:
    rule = proxy.inject(held(), method="GET", path=JOBS)
    idle.wait(1.0)
    assert idle.status == "failed"
    assert not idle.done()
    proxy.heal(rule)
    idle.refresh()
    assert idle.status == "idle"


def test_a_held_job_that_has_left_the_queue_without_an_end_is_done(
    proxy: FaultProxy, idle: Job, direct: ProminenceClient
) -> None:
    proxy.inject(held(), method="GET", path=JOBS)
    direct.delete_job(idle.id or 0)
    idle.wait(10)
    assert idle.done()


def test_a_held_workflow_is_not_done(proxy: FaultProxy, service: LocalService) -> None:
    with ProminenceClient(proxy.url, service.token) as client:
        inner = Job(name="pxinner", tasks=[Task(IMAGE, "true")], resources=Resources(cpus=100, disk=1, walltime=10))
        workflow = Workflow(name="held", jobs=[inner], client=client)
        workflow.create()
        rule = proxy.inject(held(), method="GET", path=r"^/workflows")
        workflow.wait(1.0)
        assert (workflow.status, workflow.done()) == ("failed", False)
        workflow.delete()
        workflow.wait(10)
        assert workflow.done()  # it is no longer active
        proxy.heal(rule)


# -- warm workers ------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_held_before_it_starts_is_waited_for(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], gate: Gate, until: Until
) -> None:
    proxy.inject(held(), method="GET", path=JOBS)
    silence = proxy.inject(relisted("silence", lambda keys: []), method="GET", path="^/kv/")  # it has not started
    executor = start(workers="warm", max_workers=1)
    future = executor.submit(square, 3)
    looks(proxy, until, 12)
    assert not future.done()
    proxy.heal(silence)
    proxy.heal()
    assert future.result(30) == 9
    assert proxy.forwarded[CREATED] == 1


def test_a_worker_that_stays_held_is_given_up_after_the_services_timeout(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient
) -> None:
    proxy.inject(held(), method="GET", path=JOBS)
    proxy.inject(relisted("silence", lambda keys: []), method="GET", path="^/kv/")  # it has not started
    executor = start(workers="warm", max_workers=1, service_timeout=2.0)
    error = executor.submit(square, 3).exception(60)
    assert isinstance(error, JobFailedError)
    assert "held the job for" in str(error)
    assert direct.describe_job(error.job_id or 0)["status"] == "deleted"


def test_a_worker_that_is_held_while_it_works_is_deleted_and_its_call_goes_to_another(
    proxy: FaultProxy, start: Callable[..., ProminenceExecutor], direct: ProminenceClient, gate: Gate, until: Until
) -> None:
    executor = start(workers="warm", max_workers=1)
    future = executor.submit(marking(gate))
    until(lambda: lines(gate) == 1)
    first = future.job_id or 0
    proxy.inject(held(r"\.w1$"), method="GET", path=JOBS)
    until(lambda: lines(gate) == 2, 60)
    assert direct.describe_job(first)["status"] == "deleted"
    gate.open()
    assert future.result(30) == "call"
    assert future.attempts == 2


def test_calls_of_a_held_worker_are_not_lost_to_a_program_that_looks_on(
    service: LocalService, proxy: FaultProxy, gate: Gate, until: Until
) -> None:
    """The one that looks after them sees to it."""
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        future = executor.submit(marking(gate))
        until(future.running)
        proxy.inject(held(), method="GET", path=JOBS)
        with ProminenceExecutor.attach(executor.run_id, proxy.url, service.token, service_timeout=60.0) as again:
            (found,) = again.futures()
            looks(proxy, until, 8)
            assert not found.done()
            proxy.heal()
            gate.open()
            assert found.result(30) == future.result(30) == "call"


def test_the_mailboxes_of_a_held_worker_are_not_purged(
    service: LocalService, proxy: FaultProxy, gate: Gate, until: Until
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        future = executor.submit(marking(gate))
        until(lambda: lines(gate) == 1)
        proxy.inject(held(), method="GET", path=JOBS)
        with ProminenceExecutor(proxy.url, service.token) as other:
            assert not [name for name in other.purge(older_than=0) if executor.run_id in name]
        gate.open()
        assert future.result(30) == "call"


def test_a_new_owner_deletes_a_held_worker_before_its_calls_are_lost(
    service: LocalService, proxy: FaultProxy, direct: ProminenceClient, gate: Gate, until: Until
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        future = executor.submit(marking(gate))
        until(future.running)
        proxy.inject(held(), method="GET", path=JOBS)
        with ProminenceExecutor.attach(executor.run_id, proxy.url, service.token, takeover=True) as again:
            (found,) = again.futures()
            error = found.exception(60)
            assert isinstance(error, (WorkerLostError, JobDeletedError))
            assert direct.describe_job(future.job_id or 0)["status"] == "deleted"
            proxy.heal()
        executor.shutdown(wait=False, cancel_futures=True)
        gate.open()
