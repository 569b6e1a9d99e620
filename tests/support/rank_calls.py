"""Calls for the ranks of an MPI job: importable there, and by executors that pickle by name.

The future of an MPI call has the list of the ranks' results, which the type of a call cannot say: hence `Any`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def rank_of(*values: Any) -> Any:
    return int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"]), *values


def communicate(x: int) -> Any:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.rank, world.size, world.allreduce(world.rank + x)


def fail_on(rank: int, how: Callable[[], Any]) -> Any:
    """One rank fails; the others wait for it in a collective."""
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == rank:
        how()
    return MPI.COMM_WORLD.allreduce(1)


def explode() -> None:
    raise KeyError("plasma")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def where() -> Any:
    """Return the machine as well."""
    import socket

    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world.rank, world.size, world.allreduce(world.rank), socket.gethostname()
