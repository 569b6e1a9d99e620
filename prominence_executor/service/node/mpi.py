"""Tasks with more than one process: the command that starts their ranks, and the nodes on which the others run.

On one machine nodes are emulated: all ranks are its processes, and share one directory. Pure functions.
"""

from __future__ import annotations

from typing import Any

from ..schema.task import PARALLEL_TYPES


def with_mpirun(words: list[str], task: dict[str, Any], env: dict[str, str], *, apart: bool = False) -> list[str]:
    """Put the words of a task's command behind the ``mpirun`` of its image if the task is a parallel one.

    As many ranks on each node as the task says, or as the node has CPUs. Where nodes are machines apart, mpirun is
    told so: it would fill the first one, as far as that has CPUs.
    """
    kind = task.get("type", "basic")
    if kind not in PARALLEL_TYPES:
        return words
    each = int(task.get("procsPerNode", env["PROMINENCE_CPUS"]))
    count = ["-np", str(each * int(env["PROMINENCE_NODES"]))]
    if kind == "openmpi":
        # More ranks than cores are normal for emulated nodes; a container's user may be root.
        where = ["--map-by", f"ppr:{each}:node"] if apart else []
        return ["mpirun", *count, *where, "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", *words]
    return ["mpirun", *count, *(["-ppn", str(each)] if apart else []), *words]


def nodes_of(task: dict[str, Any], policies: dict[str, Any], nodes: int) -> range:
    """Return the numbers of the nodes on which a task is started: mpirun is started on the first one."""
    everywhere = policies.get("runSerialTasksOnAllNodes") and task.get("type", "basic") == "basic"
    return range(nodes if everywhere else 1)
