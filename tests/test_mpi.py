"""Calls on many MPI ranks, under Debian's OpenMPI: the runner as mpirun starts it, and the executor on top."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import CallCrashedError, ProminenceExecutor, RemoteTraceback, Resources
from prominence_executor.local import LocalService
from prominence_executor.payload import archive
from prominence_executor.payload import calls as payload
from prominence_executor.payload.calls import Identity, Outcomes
from prominence_executor.payload.pickling import dumps
from prominence_executor.run.diagnosis import call_error

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None, reason="no mpirun or no mpi4py here"
)

KEY = bytes(range(32))
IDENTITY = Identity("run-1", 7, 1)
JOB = {"id": 1, "status": "completed"}


class Ranks:
    """A directory as an MPI job has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: subprocess.CompletedProcess[str]

    def run(
        self,
        function: Callable[..., Any],
        *calls: tuple[Any, ...],
        ranks: int = 3,
        nodes: int = 1,
        seconds: float | None = None,
        initializer: Callable[[], None] | None = None,
        apart: bool = False,
        **extras: Any,
    ) -> Outcomes:
        whole = payload.Payload(dumps((function, initializer, ())).blob, [dumps((call, {})).blob for call in calls])
        calls_file = payload.calls_file(whole)
        job = payload.job_file(
            IDENTITY, KEY, calls=("pxcalls", calls_file.sha256()), modules=[], objects={}, seconds=seconds,
            mpi={"nodes": nodes}, **extras,
        )  # fmt: skip
        folders = [self.folder, *(self.folder / f"node{rank}" for rank in range(1, ranks if apart else 1))]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            (folder / "pxrun.pyz").write_bytes(archive.runner_archive("staging", "ranks"))
            (folder / "pxcalls").write_bytes(calls_file.tobytes())
            (folder / "pxjob.json").write_bytes(job)
        words = ["mpirun", "--oversubscribe"]
        for folder in folders:
            count = 1 if apart else ranks
            words += ["-np", str(count), "--wdir", str(folder), sys.executable, "pxrun.pyz", ":"]
        self.done = subprocess.run(
            words[:-1], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
            env={
                **os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "PROMINENCE_CPUS": "6", "PYTHONPATH": str(Path(__file__).parent),
            },
        )  # fmt: skip
        with (self.folder / "pxoutcome").open("rb") as file:
            return payload.read_outcomes(file, KEY, IDENTITY)

    def value(self, outcomes: Outcomes, call: int = 0) -> Any:
        with (self.folder / "pxoutcome").open("rb") as file:
            return payload.unpack(file, outcomes.calls[call], "in job 1")[1]


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)


def rank_of(*values: Any) -> tuple[int, int, Any]:
    return int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"]), *values


def communicate(x: int) -> tuple[int, int, int]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.rank, world.size, world.allreduce(world.rank + x)


def fail_on(rank: int, how: Callable[[], Any]) -> int:
    """One rank fails; the others wait for it in a collective."""
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == rank:
        how()
    return MPI.COMM_WORLD.allreduce(1)


def explode() -> None:
    raise KeyError("plasma")


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_results_of_all_ranks_come_in_their_order(ranks: Ranks, nodes: int) -> None:
    outcomes = ranks.run(communicate, (0,), (1,), nodes=nodes)
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(outcomes, 0) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert ranks.value(outcomes, 1) == [(0, 3, 6), (1, 3, 6), (2, 3, 6)]
    assert ranks.done.stderr == ""


def test_a_call_that_does_not_use_mpi_runs_on_every_rank(ranks: Ranks) -> None:
    outcomes = ranks.run(rank_of, ("x",))
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(outcomes) == [(0, 3, "x"), (1, 3, "x"), (2, 3, "x")]


@pytest.mark.parametrize("nodes", [1, 2])
def test_large_arrays_of_all_ranks_come_whole(ranks: Ranks, nodes: int) -> None:
    import numpy

    def array() -> Any:
        import numpy

        return numpy.arange(300_000) + rank_of()[0], {"small": numpy.zeros(3)}

    outcomes = ranks.run(array, (), nodes=nodes)
    assert ranks.done.returncode == 0, ranks.done.stderr
    for rank, (large, small) in enumerate(ranks.value(outcomes)):
        assert (large == numpy.arange(300_000) + rank).all()
        assert (small["small"] == 0).all()


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("rank", [0, 2])
def test_an_exception_on_one_rank_ends_the_job_and_comes_back_with_its_rank(
    ranks: Ranks, rank: int, nodes: int
) -> None:
    began = time.monotonic()
    outcomes = ranks.run(fail_on, (rank, explode), (rank, explode), nodes=nodes)
    assert time.monotonic() - began < 20
    assert ranks.done.returncode != 0
    error = ranks.value(outcomes)
    assert type(error) is KeyError
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.rank == rank
    assert f"raised on rank {rank} of 3 in job 1" in str(error.__cause__)
    assert "explode" in str(error.__cause__)
    assert 1 not in outcomes.calls


def kill() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_crashes_is_named(ranks: Ranks, rank: int) -> None:
    outcomes = ranks.run(fail_on, (rank, kill))
    error = call_error(outcomes, 0, 0, JOB)
    assert isinstance(error, CallCrashedError)
    assert f"the process of rank {rank} of the MPI job was ended by signal 11 (SIGSEGV)" in str(error)


def test_a_result_that_cannot_be_pickled_names_its_rank(ranks: Ranks) -> None:
    def lock() -> Any:
        import threading

        return threading.Lock() if rank_of()[0] == 1 else None

    outcomes = ranks.run(lock, ())
    assert outcomes.calls[0].kind == "unpicklable"
    assert outcomes.calls[0].header["rank"] == 1


def test_an_initializer_runs_on_every_rank(ranks: Ranks) -> None:
    def begin() -> None:
        os.environ["BEGUN"] = "on " + os.environ["OMPI_COMM_WORLD_RANK"]

    outcomes = ranks.run(os.getenv, ("BEGUN",), initializer=begin)
    assert ranks.value(outcomes) == ["on 0", "on 1", "on 2"]


def test_a_call_that_takes_too_long_ends_before_the_walltime(ranks: Ranks) -> None:
    outcomes = ranks.run(time.sleep, (60,), seconds=1.5)
    assert outcomes.job is not None
    assert outcomes.job.kind == "walltime"


def test_the_ranks_of_a_node_share_its_cpus(ranks: Ranks) -> None:
    outcomes = ranks.run(os.getenv, ("OMP_NUM_THREADS",))
    assert ranks.value(outcomes) == ["2", "2", "2"]


def test_all_ranks_find_files_and_what_they_write_is_collected(ranks: Ranks) -> None:
    import hashlib

    def copy() -> bytes:
        content = Path("in/put").read_bytes()
        Path(f"out.{rank_of()[0]}").write_bytes(content)
        return content

    (ranks.folder / "staged").write_bytes(b"given")
    files = {"in/put": {"name": "staged", "sha256": hashlib.sha256(b"given").hexdigest()}}
    outcomes = ranks.run(copy, (), files=files, outputs=["out.*"])
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(outcomes) == [b"given"] * 3
    assert outcomes.calls[0].header["files"]["count"] == 3


def test_nodes_that_share_no_directory_send_their_results_through_mpi4py(ranks: Ranks) -> None:
    outcomes = ranks.run(communicate, (0,), (1,), nodes=3, apart=True)
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(outcomes, 0) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert ranks.value(outcomes, 1) == [(0, 3, 6), (1, 3, 6), (2, 3, 6)]


@pytest.mark.slow
def test_a_rank_that_fails_on_such_a_node_ends_the_job_and_says_why_on_its_standard_error(ranks: Ranks) -> None:
    outcomes = ranks.run(fail_on, (1, explode), nodes=3, apart=True)
    assert isinstance(call_error(outcomes, 0, 0, JOB), CallCrashedError)
    assert "rank 1:" in ranks.done.stderr
    assert "KeyError: 'plasma'" in ranks.done.stderr


# -- from the executor -----------------------------------------------------------------------------------------------


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
    def copy(call: int) -> int:
        rank, _ = rank_of()
        Path(f"out.{rank}").write_bytes(Path("given").read_bytes() * call)
        return rank

    mpi = executor.with_options(
        task_type="openmpi", resources=Resources(cpus=2), files={"given": b"x"}, outputs=["out.*"]
    )
    futures = [mpi.submit(copy, call) for call in range(8)]
    for call, future in enumerate(futures):
        assert future.result(100) == [0, 1]
        assert {name: path.read_bytes() for name, path in future.files.items()} == {
            "out.0": b"x" * call,
            "out.1": b"x" * call,
        }
    assert executor.client.requests_sent["POST /workflows"] == 1


def test_warm_workers_leave_mpi_calls_to_jobs_and_others_find_their_results(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", poll_interval=(0.05, 0.5)) as executor:
        mpi = executor.with_options(task_type="openmpi", procs_per_node=2)
        assert mpi.submit(communicate, 0).result(60) == [(0, 2, 1), (1, 2, 1)]
        assert executor.workers() == []
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as again:
        assert [future.result() for future in again.futures()] == [[(0, 2, 1), (1, 2, 1)]]


def test_wrong_options_are_refused(executor: ProminenceExecutor) -> None:
    for wrong in ({"task_type": "mpi"}, {"task_type": "sidecar"}, {"procs_per_node": 0}, {"procs_per_node": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            executor.with_options(**wrong)  # type: ignore[arg-type]
