"""The runner as mpirun starts it, under Debian's OpenMPI, without a service around it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_directory import JobDirectory
from paths import SUPPORT
from rank_calls import communicate, explode, fail_on, kill, rank_of
from variables import unmeasured

from prominence_executor import CallCrashedError, RemoteTraceback
from prominence_executor.payload.outcomes import OutcomeFile
from prominence_executor.run.diagnosis import call_error

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None, reason="no mpirun or no mpi4py here"
)

JOB = {"id": 1, "status": "completed"}


class Ranks(JobDirectory):
    """The directory of an MPI job, or those of its nodes."""

    done: subprocess.CompletedProcess[str]

    def start(
        self,
        function: Callable[..., Any],
        *calls: tuple[Any, ...],
        ranks: int = 3,
        nodes: int = 1,
        apart: bool = False,
        **options: Any,
    ) -> OutcomeFile:
        """Run the calls on all ranks; ``apart``: each in a directory of its own."""
        folders = [self.folder, *(self.folder / f"node{rank}" for rank in range(1, ranks if apart else 1))]
        words = ["mpirun", "--oversubscribe"]
        for folder in folders:
            JobDirectory(folder).prepare(function, *calls, parts=("files", "mpi"), mpi={"nodes": nodes}, **options)
            count = 1 if apart else ranks
            words += ["-np", str(count), "--wdir", str(folder), sys.executable, "pxrun.py", ":"]
        self.done = subprocess.run(
            words[:-1], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
            env=unmeasured(
                OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PROMINENCE_CPUS="6",
                PYTHONPATH=str(SUPPORT),
            ),
        )  # fmt: skip
        return self.outcomes()


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_results_of_all_ranks_come_in_their_order(ranks: Ranks, nodes: int) -> None:
    ranks.start(communicate, (0,), (1,), nodes=nodes)
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(0) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert ranks.value(1) == [(0, 3, 6), (1, 3, 6), (2, 3, 6)]
    assert ranks.done.stderr == ""


def test_a_call_that_does_not_use_mpi_runs_on_every_rank(ranks: Ranks) -> None:
    ranks.start(rank_of, ("x",))
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value() == [(0, 3, "x"), (1, 3, "x"), (2, 3, "x")]


@pytest.mark.parametrize("nodes", [1, 2])
def test_large_arrays_of_all_ranks_come_whole(ranks: Ranks, nodes: int) -> None:
    import numpy

    def array() -> Any:
        import numpy

        return numpy.arange(300_000) + rank_of()[0], {"small": numpy.zeros(3)}

    ranks.start(array, (), nodes=nodes)
    assert ranks.done.returncode == 0, ranks.done.stderr
    for rank, (large, small) in enumerate(ranks.value()):
        assert (large == numpy.arange(300_000) + rank).all()
        assert (small["small"] == 0).all()


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("rank", [0, 2])
def test_an_exception_on_one_rank_ends_the_job_and_comes_back_with_its_rank(
    ranks: Ranks, rank: int, nodes: int
) -> None:
    began = time.monotonic()
    outcomes = ranks.start(fail_on, (rank, explode), (rank, explode), nodes=nodes)
    assert time.monotonic() - began < 20
    assert ranks.done.returncode != 0
    error = ranks.value()
    assert type(error) is KeyError
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.rank == rank
    assert f"raised on rank {rank} of 3 in job 1" in str(error.__cause__)
    assert "explode" in str(error.__cause__)
    assert 1 not in outcomes.calls


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("how", [explode, kill])
def test_a_rank_that_fails_lets_rank_0_end_the_calls_before(ranks: Ranks, how: Callable[[], None], nodes: int) -> None:
    def call(number: int) -> int:
        if number and rank_of()[0] == 1:
            how()
        if rank_of()[0] == 0:
            time.sleep(1.5)
        return number

    outcomes = ranks.start(call, (0,), (1,), (2,), nodes=nodes)
    assert ranks.done.returncode != 0
    assert ranks.value(0) == [0, 0, 0]
    if how is explode:
        assert isinstance(ranks.value(1), KeyError)
    else:
        error = call_error(outcomes, 1, 0, JOB)
        assert "the process of rank 1 of the MPI job was ended by signal 11 (SIGSEGV)" in str(error)
    assert 2 not in outcomes.calls


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_crashes_is_named(ranks: Ranks, rank: int) -> None:
    outcomes = ranks.start(fail_on, (rank, kill))
    error = call_error(outcomes, 0, 0, JOB)
    assert isinstance(error, CallCrashedError)
    assert f"the process of rank {rank} of the MPI job was ended by signal 11 (SIGSEGV)" in str(error)


def test_a_result_that_cannot_be_pickled_names_its_rank(ranks: Ranks) -> None:
    def lock() -> Any:
        import threading

        return threading.Lock() if rank_of()[0] == 1 else None

    outcomes = ranks.start(lock, ())
    assert outcomes.calls[0].kind == "unpicklable"
    assert outcomes.calls[0].header["rank"] == 1


def test_an_initializer_runs_on_every_rank(ranks: Ranks) -> None:
    def begin() -> None:
        os.environ["BEGUN"] = "on " + os.environ["OMPI_COMM_WORLD_RANK"]

    ranks.start(os.getenv, ("BEGUN",), initializer=begin)
    assert ranks.value() == ["on 0", "on 1", "on 2"]


def test_a_call_that_takes_too_long_ends_before_the_walltime(ranks: Ranks) -> None:
    outcomes = ranks.start(time.sleep, (60,), seconds=1.5)
    assert outcomes.job is not None
    assert outcomes.job.kind == "walltime"


def test_the_ranks_of_a_node_share_its_cpus(ranks: Ranks) -> None:
    ranks.start(os.getenv, ("OMP_NUM_THREADS",))
    assert ranks.value() == ["2", "2", "2"]


def test_all_ranks_find_files_and_what_they_write_is_collected(ranks: Ranks) -> None:
    import hashlib

    def copy() -> bytes:
        content = Path("in/put").read_bytes()
        Path(f"out.{rank_of()[0]}").write_bytes(content)
        return content

    (ranks.folder / "staged").write_bytes(b"given")
    files = {"in/put": {"name": "staged", "sha256": hashlib.sha256(b"given").hexdigest()}}
    outcomes = ranks.start(copy, (), files=files, outputs=["out.*"])
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value() == [b"given"] * 3
    assert outcomes.calls[0].header["files"]["count"] == 3


def test_nodes_that_share_no_directory_send_their_results_through_mpi4py(ranks: Ranks) -> None:
    ranks.start(communicate, (0,), (1,), nodes=3, apart=True)
    assert ranks.done.returncode == 0, ranks.done.stderr
    assert ranks.value(0) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert ranks.value(1) == [(0, 3, 6), (1, 3, 6), (2, 3, 6)]


@pytest.mark.slow
def test_a_rank_that_fails_on_such_a_node_ends_the_job_and_says_why_on_its_standard_error(ranks: Ranks) -> None:
    outcomes = ranks.start(fail_on, (1, explode), nodes=3, apart=True)
    assert isinstance(call_error(outcomes, 0, 0, JOB), CallCrashedError)
    assert "rank 1:" in ranks.done.stderr
    assert "KeyError: 'plasma'" in ranks.done.stderr
