"""What `read_logs` asks of the service: of jobs that come while it follows, and not of those that never began."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from proxy import FaultProxy

from prominence_executor import ProminenceClient, ProminenceExecutor, ProminenceFuture, Resources
from prominence_executor.local import LocalService
from prominence_executor.runs import JobInfo, read_logs, run_state
from prominence_executor.runs.logs import may_have_printed, patience

pytestmark = pytest.mark.once

Until = Callable[..., None]
JOB = JobInfo(1, "r/0", "completed", started=100.0, ended=130.0)


def saying(number: int) -> int:
    print(f"out {number}")
    return number


def test_only_around_its_end_a_job_s_output_is_waited_for() -> None:
    assert [patience(JOB, now) > 0 for now in (131.0, 134.0, 136.0, 9000.0)] == [True, True, False, False]
    assert patience(replace(JOB, ended=None, active=True), 9000.0) > 0
    assert may_have_printed(JOB)
    assert may_have_printed(replace(JOB, started=None, active=True))
    assert not may_have_printed(replace(JOB, started=None, status="deleted"))


def test_jobs_that_were_deleted_before_they_began_are_not_asked_for(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, resources=Resources(cpus=1000)) as executor:
        futures = [executor.submit(saying, number) for number in range(3)]
        until(lambda: all(future.job_id for future in futures))
        assert all(future.cancel() for future in futures)
    with FaultProxy(service.url) as proxy, ProminenceClient(proxy.url, service.token) as client:
        until(lambda: not run_state(client, executor.run_id).active)
        assert list(read_logs(client, run_state(client, executor.run_id).jobs)) == []
        assert not [kind for kind in proxy.forwarded if "std" in kind]


def test_who_follows_a_run_reads_the_jobs_that_come_later(service: LocalService) -> None:
    run_id = f"run-{uuid.uuid4()}"
    with (
        ProminenceClient(service.url, service.token) as client,
        ProminenceExecutor(service.url, service.token, run_id=run_id, poll_interval=(0.05, 0.5)) as executor,
    ):
        assert executor.submit(saying, 0).result(60) == 0
        later: list[ProminenceFuture[int]] = []

        def wait(seconds: float) -> None:
            if not later:
                later.extend(executor.submit_many(saying, [1, 2], chunksize=2))
                later[0].result(60)
            time.sleep(0.05)

        jobs = run_state(client, run_id).jobs
        pieces = list(read_logs(client, jobs, ["stdout"], follow=True, run_id=run_id, wait=wait))
        assert b"".join(piece.content for piece in pieces) == b"out 0\nout 1\nout 2\n"
        only = list(read_logs(client, jobs, ["stdout"], follow=True, run_id=run_id, calls=[0], wait=wait))
        assert b"".join(piece.content for piece in only) == b"out 0\n"
