"""What a job gets of this machine: which of the CPUs and nodes that it may have, and how many slots those take.

Pure functions. Several nodes are emulated: each is this machine, so together they take no more slots than there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .bounds import MOST_NODES


@dataclass(frozen=True)
class Allocation:
    """CPUs and memory (GB) of each node, and the number of nodes."""

    cpus: int
    memory: int
    nodes: int

    def slots(self, cpus: int, memory: int) -> tuple[int, int]:
        """Return CPUs and memory that all nodes together take of a machine that has so much."""
        return _emulated(self.cpus, self.nodes, cpus), _emulated(self.memory, self.nodes, memory)


def _emulated(each: int, nodes: int, machine: int) -> int:
    """Return slots for all nodes; one that is too large for the machine stays too large: its job never starts."""
    return each if each > machine else min(each * nodes, machine)


def allocate(resources: dict[str, Any], machine: int) -> Allocation:
    """Choose what a checked description of resources gets on a machine with so many CPUs.

    Of a range the most CPUs that there are, of two options the larger one that there is; of a total the most nodes.
    """
    cpus = _cpus(resources, machine)
    nodes = resources.get("nodes", 1)
    if "totalCpusRange" in resources:
        low, high = resources["totalCpusRange"]
        nodes = min(max(1, -(-low // cpus), min(high, machine) // cpus), MOST_NODES)
    return Allocation(cpus, resources.get("memory", resources.get("memoryPerCpu", 1) * cpus), nodes)


def _cpus(resources: dict[str, Any], machine: int) -> int:
    if "cpus" in resources:
        return int(resources["cpus"])
    if "cpusRange" in resources:
        low, high = resources["cpusRange"]
        return int(max(low, min(high, machine)))
    smaller, larger = sorted(resources["cpusOptions"])
    return int(larger if larger <= machine else smaller)
