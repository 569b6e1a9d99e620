"""Attaching to a run of which the service says odd things: a sentence, or the run as it is, and nothing else."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from peer import TOKEN, Answer, a_peer
from proxy import FaultProxy, relisted

from prominence_executor import ProminenceError, ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.run.names import parse_array_name, parse_job_name, parse_worker_name

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "name",
    [
        "run/", "run/x", "run/\u00b2", "run/5-3", "run/5-5", "run/05", "run/5.1", "run/5.0", "run/-1", "another/1",
        "run.0-99.10.1/pxcall/10", "run.0-99.10.1/pxcall/-1", "run.0-99.10.1/pxcall/\u00b2", "run.9-0.1.1/pxcall/0",
        "run.0-9.0.1/pxcall/0", "run.0-99.10.1/other/1", "run/" + "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_name_of_a_job_is_none(name: str) -> None:
    assert parse_job_name("run", name) is None


def test_what_is_no_name_of_a_worker_or_array_is_none() -> None:
    assert parse_worker_name("run", "run.w" + "9" * 5000) is None
    assert parse_array_name("run", "run.0-" + "9" * 5000 + ".1.1") is None


def told(content: Any) -> list[dict[str, Any]]:
    """A job of the run, and what an executor has told it."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    given = {"filename": "pxjob.json", "content": base64.b64encode(text).decode()}
    return [{"id": 5, "status": "running", "name": "run/0", "inputs": [given]}]


@pytest.mark.parametrize(
    "answer",
    [
        [None], [{}], {}, [{"id": "5", "status": "idle", "name": "run/0"}], b"[" * 100_000, b"<html>",
        [{"id": 5, "status": "running", "name": "run/0-999999999"}],
        [{"id": 5, "status": "running", "name": "run/999999999999"}],
        [{"id": 5, "status": "running", "name": "run.0-999999999.1.1"}],
        [{"id": 5, "status": "running", "name": "run/0", "inputs": [{"filename": "pxjob.json", "content": "\u00b2"}]}],
        told(b"{"), told([]), told({}), told({"format": "1"}), told({"format": 1, "run": "run", "key": 7}),
        told({"format": 1, "run": "run", "key": "xy"}), told(b"[" * 100_000), told({"format": None, "run": "run"}),
    ],
    ids=lambda answer: str(answer)[:70],
)  # fmt: skip
def test_an_odd_answer_is_an_error_that_says_so(answer: Any) -> None:
    with a_peer() as peer:
        peer.answer(Answer(body=answer))
        began = time.monotonic()
        with pytest.raises(ProminenceError):
            ProminenceExecutor.attach("run", peer.url, TOKEN)
        assert time.monotonic() - began < 5


def test_jobs_with_names_that_cannot_be_are_left_alone(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        futures = [executor.submit(pow, n, 2) for n in range(2)]
        assert [future.result(30) for future in futures] == [0, 1]
        run_id = executor.run_id
    ends = ("/0-999999999", "/9999999999", "/5-3", "/\u00b2", ".0-999999999.1.1", ".0-99.10.1/pxcall/999999999")
    odd = [{"id": 10**6 + n, "status": "running", "name": run_id + end} for n, end in enumerate(ends)]
    with FaultProxy(service.url) as proxy:
        proxy.inject(relisted("odd names", lambda jobs: [*odd, *jobs]), path="all=true")
        with ProminenceExecutor.attach(run_id, proxy.url, service.token, poll_interval=(0.05, 0.5)) as again:
            assert [future.result(30) for future in again.futures()] == [0, 1]
