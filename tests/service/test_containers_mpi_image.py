"""Calls on all ranks of an MPI job in a real container, with the mpirun and the mpi4py of its image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import container_images as images
import pytest
from container_images import same_python

from prominence_executor import ProminenceExecutor, RemoteTraceback, Resources
from prominence_executor.service import LocalService

pytestmark = [pytest.mark.slow, same_python]


@pytest.fixture
def executor(containers: LocalService, runtime: str, image: Path) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(
        containers.url, containers.token, image=image, runtime=runtime, poll_interval=(0.05, 0.5),
        task_type="openmpi", resources=Resources(nodes=2, cpus=2), procs_per_node=2,
    ) as executor:  # fmt: skip
        yield executor


def test_a_call_in_an_image_with_mpi_runs_on_every_rank(executor: ProminenceExecutor) -> None:
    def total(x: int) -> Any:  # of each rank, so that the result is a list
        from mpi4py import MPI

        with open("/etc/os-release") as file:
            release = file.read()
        world = MPI.COMM_WORLD
        return world.allreduce(world.rank * x), world.rank, os.getcwd(), release

    results = executor.submit(total, 10).result(120)
    assert [result[:3] for result in results] == [(60, rank, "/home/user") for rank in range(4)]
    assert all(images.SUITE in result[3] for result in results)
    assert executor.check_image(timeout=60).packages["mpi4py"]


def test_what_one_rank_raises_ends_the_job_and_comes_back(executor: ProminenceExecutor) -> None:
    def fail_on_one() -> None:
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 1:
            raise ValueError("of one rank")
        MPI.COMM_WORLD.barrier()

    with pytest.raises(ValueError, match="of one rank") as raised:
        executor.submit(fail_on_one).result(120)
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert raised.value.__cause__.rank == 1
