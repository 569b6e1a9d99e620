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

from prominence_executor import CallCrashedError, RemoteTraceback, payload
from prominence_executor.diagnosis import call_error
from prominence_executor.payload import Identity, Outcomes
from prominence_executor.pickling import dumps

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
        **extras: Any,
    ) -> Outcomes:
        whole = payload.Payload(dumps((function, initializer, ())).blob, [dumps((call, {})).blob for call in calls])
        calls_file = payload.calls_file(whole)
        job = payload.job_file(
            IDENTITY, KEY, calls=("pxcalls", calls_file.sha256()), modules=[], objects={}, seconds=seconds, mpi=True,
            **extras,
        )  # fmt: skip
        (self.folder / "pxrun.pyz").write_bytes(payload.runner_archive("staging", "ranks"))
        (self.folder / "pxcalls").write_bytes(calls_file.tobytes())
        (self.folder / "pxjob.json").write_bytes(job)
        self.done = subprocess.run(
            ["mpirun", "--oversubscribe", "-np", str(ranks), sys.executable, "pxrun.pyz"],
            cwd=self.folder, capture_output=True, text=True, timeout=100, check=False,
            env={
                **os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "PROMINENCE_CPUS": "6", "PYTHONPATH": str(Path(__file__).parent), "PROMINENCE_NODES": str(nodes),
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
