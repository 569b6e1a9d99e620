"""A thousand jobs on Slurm: few commands, whatever their number. The commands are counted, and are the real ones.

The jobs wait in a partition that takes them and starts none, so that nobody waits for a thousand programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calls import square
from one_node_slurm import Counted, OneNodeSlurm

from prominence_executor import ProminenceExecutor
from prominence_executor.service import LocalService

Until = Callable[..., None]

pytestmark = [pytest.mark.once, pytest.mark.slow]

JOBS = 1000
TICK = 1.0  # seconds between two looks at the queue


@pytest.fixture
def counted(slurm: OneNodeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted(tmp_path / "commands")
    monkeypatch.setenv("PATH", counted.path())
    return counted


@pytest.fixture
def service(counted: Counted, tmp_path: Path) -> Iterator[LocalService]:
    options = {"partition": "closed", "poll_seconds": str(TICK)}
    with LocalService(tmp_path / "state", engine="slurm", engine_options=options) as running:
        yield running


def in_queue(slurm: OneNodeSlurm) -> int:
    return len(slurm.asked("squeue", "-h", "-r", "-p", "closed", "-t", "pending", "-o", "%i").split())


def test_a_thousand_jobs_are_few_submissions_one_look_a_tick_and_few_cancellations(
    service: LocalService, slurm: OneNodeSlurm, counted: Counted, until: Until
) -> None:
    began = time.monotonic()
    with ProminenceExecutor(service.url, service.token) as executor:
        futures = [executor.submit(square, number) for number in range(JOBS)]
        until(lambda: in_queue(slurm) == JOBS, 120)
        before = counted.calls("squeue")
        until(lambda: counted.calls("squeue") >= before + 2, 60)  # nothing happens, and it goes on looking
        executor.shutdown(cancel_futures=True)
        until(lambda: in_queue(slurm) == 0, 120)
        assert all(future.cancelled() for future in futures)
    ticks = (time.monotonic() - began) / TICK
    assert counted.calls("sbatch") <= 5
    assert counted.calls("squeue") <= ticks + 2
    assert counted.calls("scancel") <= 20
    assert counted.calls("scontrol") + counted.calls("sinfo") <= 5
