"""The service in front of Slurm is killed at any moment, and started again: no call is lost, none runs twice."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from one_node_slurm import OneNodeSlurm
from service_program import ServiceProgram

from prominence_executor import ProminenceExecutor

KILLS, CALLS = 10, 2  # so many times, after so many calls each
OPTIONS = ("--engine", "slurm", "--engine-option", "poll_seconds=0.5")

pytestmark = [pytest.mark.once, pytest.mark.slow]


def mark(folder: str, number: int) -> int:
    """Leave a mark each time that it runs."""
    descriptor = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b".")
    os.close(descriptor)
    time.sleep(0.2)
    return number


def test_killed_at_ten_moments_of_a_stream_of_calls_it_loses_none_and_none_runs_twice(
    slurm: OneNodeSlurm, tmp_path: Path
) -> None:
    seed = int(os.environ.get("PROMINENCE_SEED", random.randrange(1_000_000)))
    print(f"PROMINENCE_SEED={seed}")
    moments, marks = random.Random(seed), tmp_path / "marks"
    marks.mkdir()
    with ServiceProgram(tmp_path / "state", *OPTIONS, env=slurm.variables) as service:
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            futures: list[Future[int]] = []
            for _ in range(KILLS):
                for _ in range(CALLS):
                    futures.append(executor.submit(mark, str(marks), len(futures)))
                    time.sleep(moments.uniform(0, 0.3))  # a stream, not a wait for anything
                time.sleep(moments.choice((0, moments.uniform(0, 1.5))))
                service.kill()
                service.start()
            assert [future.result(120) for future in futures] == list(range(CALLS * KILLS))
    assert {int(path.name): path.read_text() for path in marks.iterdir()} == dict.fromkeys(range(CALLS * KILLS), ".")
