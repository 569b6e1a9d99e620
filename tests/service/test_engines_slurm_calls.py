"""What executors do runs on Slurm as it does on one machine: retries, futures, sweeps, MPI, packages, limits."""

from __future__ import annotations

import importlib.util
import operator
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from calls import exit_once, square
from one_node_slurm import OneNodeSlurm
from rank_calls import communicate
from wheels import only_these, wheel

from prominence_executor import (
    OutOfMemoryError,
    ProminenceExecutor,
    Resources,
    WalltimeExceededError,
    sweep,
)
from prominence_executor.service import LocalService

Until = Callable[..., None]

pytestmark = pytest.mark.once

LEAVES = """
import sys, time
from prominence_executor import ProminenceExecutor
url, token, run_id = sys.argv[1:]
executor = ProminenceExecutor(url, token, run_id=run_id)
futures = [executor.submit(pow, number, 2) for number in range(3)]
while any(future.job_id is None for future in futures):
    time.sleep(0.05)
print("begun", flush=True)
time.sleep(600)
"""


def executor_on(service: LocalService) -> ProminenceExecutor:
    return ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5))


def test_a_call_that_crashes_is_tried_again(on_slurm: LocalService, tmp_path: Path) -> None:
    with executor_on(on_slurm) as executor:
        future = executor.with_options(retries=1).submit(exit_once, str(tmp_path / "marker"))
        assert future.result(90) == "went on"
        assert future.attempts == 2


def test_futures_are_arguments(on_slurm: LocalService) -> None:
    with executor_on(on_slurm) as executor:
        first = executor.submit(operator.mul, 3, 4)
        assert executor.submit(operator.add, first, 5).result(90) == 17


def test_a_sweep_computes_each_point_once_and_goes_on_from_its_store(on_slurm: LocalService, tmp_path: Path) -> None:
    jobs: list[dict[int, int | None]] = []
    with executor_on(on_slurm) as executor:
        for points in (3, 5):
            scan = list(sweep(square, {"x": range(points)}, executor=executor, store=tmp_path / "store", chunksize=2))
            assert {point.params["x"]: point.result() for point in scan} == {x: x * x for x in range(points)}
            jobs.append({point.params["x"]: point.outcome.job_id for point in scan})
    assert jobs[0].items() <= jobs[1].items()


@pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None, reason="no mpirun or no mpi4py here"
)
def test_ranks_run_on_one_node(on_slurm: LocalService) -> None:
    with executor_on(on_slurm) as executor:
        mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=3))
        assert mpi.submit(communicate, 10).result(90) == [(rank, 3, 33) for rank in range(3)]


def test_packages_travel_to_the_node(on_slurm: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in {**only_these(wheels), "XDG_CACHE_HOME": str(tmp_path / "caches")}.items():
        monkeypatch.setenv(name, value)
    wheel(wheels, "alpha", "7.1")
    with ProminenceExecutor(on_slurm.url, on_slurm.token, requirements=["alpha"]) as executor:
        assert executor.submit(lambda: __import__("alpha").VERSION).result(90) == "7.1"


def test_a_run_that_a_killed_program_began_is_attached_to(on_slurm: LocalService) -> None:
    words = [sys.executable, "-c", LEAVES, on_slurm.url, on_slurm.token, "run-of-a-killed-program"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.kill()
    with ProminenceExecutor.attach("run-of-a-killed-program", on_slurm.url, on_slurm.token) as again:
        assert [future.result(90) for future in again.futures()] == [0, 1, 4]


def test_a_call_that_uses_more_memory_than_it_asked_for_says_so(on_slurm: LocalService, slurm: OneNodeSlurm) -> None:
    if not slurm.limits_memory:
        pytest.skip("this Slurm cannot limit memory: that takes cgroups of version 1 that can be written to")
    with executor_on(on_slurm) as executor:
        future = executor.with_options(resources=Resources(memory=1)).submit(bytearray, 1200 << 20)
        with pytest.raises(OutOfMemoryError, match=r"memory=1 \(GB\)"):
            future.result(90)


@pytest.mark.slow  # Slurm looks at the times of jobs twice a minute
def test_a_job_that_slurm_ends_at_its_time_limit_has_exceeded_its_walltime(
    on_slurm: LocalService, slurm: OneNodeSlurm, until: Until
) -> None:
    with executor_on(on_slurm) as executor:
        future = executor.submit(time.sleep, 600)
        until(future.running, 60)
        # What other tests have left may still be ending: it is known by its name.
        listed = dict(line.split() for line in slurm.asked("squeue", "-h", "-t", "running", "-o", "%j %i").splitlines())
        (number,) = [number for name, number in listed.items() if name.endswith(f"-{future.job_id}")]
        slurm.asked("scontrol", "update", f"jobid={number}", "endtime=now+1")
        with pytest.raises(WalltimeExceededError):
            future.result(180)
        until(lambda: number in slurm.asked("squeue", "-h", "-t", "timeout", "-o", "%i").split(), 60)
