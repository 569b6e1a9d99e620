"""What `read_logs` asks of the service: of jobs that come while it follows, and not of those that never began."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from network_faults import Answer, Fault
from proxy import FaultProxy, corrupted, relisted

from prominence_executor import ProminenceClient, ProminenceExecutor, ProminenceFuture, Resources
from prominence_executor.local import LocalService
from prominence_executor.runs import JobInfo, call_ends, read_calls, read_logs, run_state
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


def odd(number: int) -> int:
    print(f"out {number}")
    print(f"err {number}", file=sys.stderr)
    if number == 2:
        os._exit(3)
    if number == 1:
        raise ValueError(number)
    return number


def printed_by(
    client: ProminenceClient, run_id: str, calls: list[int]
) -> dict[int, list[tuple[str, bytes, int | None]]]:
    found = read_calls(client, run_state(client, run_id), calls)
    return {call: [(piece.stream, piece.content, piece.call) for piece in pieces] for call, pieces in found.items()}


def test_a_call_of_a_chunk_that_has_ended_has_its_own_output(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        futures = executor.submit_many(odd, [0, 1, 2, 3], chunksize=4)
        single = executor.submit(odd, 5)
        ends = [type(future.exception(60)).__name__ for future in [*futures, single]]
    assert ends == ["NoneType", "ValueError", "CallCrashedError", "CallCrashedError", "NoneType"]
    with ProminenceClient(service.url, service.token) as client:
        found = printed_by(client, executor.run_id, [0, 1, 2, 3, 4])
        assert sorted(found) == [0, 1, 2]  # 3 never began, and 4 has its job alone
        assert found[1] == [("stdout", b"out 1\n", 1), ("stderr", b"err 1\n", 1)]
        assert found[2] == [("stdout", b"out 2\n", 2), ("stderr", b"err 2\n", 2)]
        state = run_state(client, executor.run_id)
        ends_of_calls = call_ends(client, executor.run_id, state.jobs)
        kinds = {end.call: end.kind for several in ends_of_calls.values() for end in several}
        assert kinds == {0: "result", 1: "error", 2: "lost", 3: "lost", 4: "result"}
        assert list(call_ends(client, executor.run_id, state.jobs, most=1)) == [single.job_id]


def test_a_call_of_a_warm_worker_has_its_own_output(service: LocalService, until: Until) -> None:
    options = {"workers": "warm", "max_workers": 1, "poll_interval": (0.05, 0.5)}
    with ProminenceExecutor(service.url, service.token, **options) as executor:  # type: ignore[arg-type]
        assert [future.exception(60) is None for future in executor.submit_many(odd, [0, 1, 3])] == [True, False, True]
        with ProminenceClient(service.url, service.token) as client:
            # A worker has told what came of a call a moment before it writes that into its own output.
            until(lambda: sorted(printed_by(client, executor.run_id, [1, 2, 7])) == [1, 2])
            found = printed_by(client, executor.run_id, [1, 2, 7])
    assert found == {
        1: [("stdout", b"out 1\n", 1), ("stderr", b"err 1\n", 1)],
        2: [("stdout", b"out 3\n", 2), ("stderr", b"err 3\n", 2)],
    }


def test_how_calls_have_ended_is_believed_of_signed_outcomes_alone(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        executor.submit(saying, 1).result(60)
    with FaultProxy(service.url) as proxy, ProminenceClient(proxy.url, service.token) as client:
        rule = proxy.inject(corrupted(), path=".*pxoutcome.*")
        assert call_ends(client, executor.run_id, run_state(client, executor.run_id).jobs) == {}
        assert rule.injected


def test_the_last_lines_are_read_though_the_service_s_clock_is_behind(service: LocalService) -> None:
    """Around a job's end the service does not know it for a moment."""

    def speaking() -> None:
        print("the beginning", flush=True)
        time.sleep(3)
        print("the end", flush=True)

    def behind(jobs: list[Any]) -> list[Any]:
        for job in jobs:
            job["events"] = {name: moment - 3600 for name, moment in job["events"].items()}
        return jobs

    def act(exchange: Any) -> None:
        answer = exchange.forward()
        unknown = b"the end" in answer.body and not hidden
        if unknown:
            hidden.append(True)
            answer = Answer(400, [("Content-Type", "application/json")], b'{"error": "Job does not exist"}')
        exchange.answer(answer)

    hidden: list[bool] = []
    with (
        FaultProxy(service.url) as proxy,
        ProminenceClient(proxy.url, service.token) as client,
        ProminenceExecutor(service.url, service.token) as executor,
    ):
        proxy.inject(relisted("behind", behind), method="GET", path=r"^/jobs\?")
        proxy.inject(Fault("unknown", act), path="/stdout")
        future = executor.submit(speaking)
        while not future.running():
            time.sleep(0.01)
        jobs = run_state(client, executor.run_id).jobs
        pieces = read_logs(client, jobs, ["stdout"], follow=True, wait=lambda seconds: future.result(60))
        said = [piece.content for piece in pieces]
    assert b"".join(said) == b"the beginning\nthe end\n"
    assert hidden


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
