"""Calls on many MPI ranks through the executor; tests/remote/test_ranks.py has the remote side alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rank_calls import communicate, explode, fail_on, kill, rank_of

from prominence_executor import CallCrashedError, ProminenceExecutor, RemoteTraceback, Resources
from prominence_executor.local import LocalService

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None, reason="no mpirun or no mpi4py here"
)


def test_a_call_runs_on_every_rank_of_all_nodes(executor: ProminenceExecutor) -> None:
    mpi = executor.with_options(task_type="openmpi", resources=Resources(nodes=2, cpus=2), procs_per_node=2)
    future = mpi.submit(communicate, 10)
    assert future.result(60) == [(rank, 4, 46) for rank in range(4)]
    assert future.status() == "completed"
    assert executor.submit(os.getenv, "OMPI_COMM_WORLD_RANK").result(60) is None


def test_an_exception_comes_back_as_itself_and_is_not_repeated(executor: ProminenceExecutor) -> None:
    mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=2), retries=2)
    future = mpi.submit(fail_on, 1, explode)
    with pytest.raises(KeyError, match="plasma") as caught:
        future.result(60)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert caught.value.__cause__.rank == 1
    assert future.attempts == 1


def test_calls_of_one_job_run_one_after_the_other_until_one_fails(executor: ProminenceExecutor) -> None:
    mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=2))
    assert list(mpi.map(communicate, range(3), chunksize=3)) == [
        [(rank, 2, 1 + 2 * x) for rank in range(2)] for x in range(3)
    ]
    results = mpi.map(fail_on, [9, 1, 9], [explode] * 3, chunksize=3)
    assert next(results) == [2, 2]
    with pytest.raises(KeyError):
        next(results)


def test_calls_behind_a_failed_one_say_so_or_go_again(executor: ProminenceExecutor) -> None:
    mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=2))
    mpi.map(fail_on, [1, 9], [explode] * 2, chunksize=2)
    first, second = mpi.futures()
    assert isinstance(first.exception(60), KeyError)
    with pytest.raises(CallCrashedError, match="call 0 of the run failed on rank 1, which ended their MPI job"):
        second.result(60)
    again = mpi.with_options(retries=1)
    again.map(fail_on, [1, 9], [explode] * 2, chunksize=2)
    first, second = again.futures()
    assert isinstance(first.exception(60), KeyError)
    assert second.result(60) == [2, 2]


def test_a_crash_names_the_rank(executor: ProminenceExecutor) -> None:
    mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=2))
    with pytest.raises(CallCrashedError, match="rank 1 of the MPI job was ended by signal 11"):
        mpi.submit(fail_on, 1, kill).result(60)


@pytest.mark.slow
def test_mpi_calls_travel_as_arrays_with_files(executor: ProminenceExecutor) -> None:
    def copy(call: int) -> Any:
        rank, _ = rank_of()
        Path(f"out.{rank}").write_bytes(Path("given").read_bytes() * call)
        return rank

    mpi = executor.with_options(
        task_type="openmpi", resources=Resources(cpus=2), files={"given": b"x"}, outputs=["out.*"]
    )
    futures = [mpi.submit(copy, call) for call in range(20)]
    for call, future in enumerate(futures):
        assert future.result(100) == [0, 1]
        assert {name: path.read_bytes() for name, path in future.files.items()} == {
            "out.0": b"x" * call,
            "out.1": b"x" * call,
        }
    assert executor.client.requests_sent["POST /workflows"] >= 1


def test_warm_workers_leave_mpi_calls_to_jobs_and_others_find_their_results(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", poll_interval=(0.05, 0.5)) as executor:
        mpi = executor.with_options(task_type="openmpi", procs_per_node=2)
        assert mpi.submit(communicate, 0).result(60) == [(0, 2, 1), (1, 2, 1)]
        assert executor.workers() == []
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as again:
        assert [future.result() for future in again.futures()] == [[(0, 2, 1), (1, 2, 1)]]


def test_wrong_options_are_refused(executor: ProminenceExecutor) -> None:
    refused: list[dict[str, Any]] = [
        {"task_type": "mpi"}, {"task_type": "sidecar"}, {"procs_per_node": 0}, {"procs_per_node": 1.5},
    ]  # fmt: skip
    for wrong in refused:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            executor.with_options(**wrong)
