"""What a job may ask of a machine, and the sentences that refuse it."""

from __future__ import annotations

from typing import Any

from .bounds import MOST_MINUTES, MOST_NODES, MOST_OF_A_MACHINE
from .items import Refused, is_whole, shown

RESOURCE_ITEMS = {
    "cpus", "memory", "memoryPerCpu", "disk", "nodes", "walltime", "cpusRange", "cpusOptions", "totalCpusRange",
}  # fmt: skip
_CPUS = {"cpus", "cpusRange", "cpusOptions"}
_MOST = {"walltime": MOST_MINUTES, "nodes": MOST_NODES}


def check_resources(resources: Any) -> None:
    """Refuse resources that no machine has or that contradict each other."""
    if not isinstance(resources, dict):
        raise Refused("resources must be defined as a dict")
    for item in resources:
        if item not in RESOURCE_ITEMS:
            raise Refused(f'invalid item "{shown(item)}" in resources')
    _check_presence(resources)
    _check_numbers(resources)
    for item in ("cpusRange", "cpusOptions", "totalCpusRange"):
        if item in resources:
            _check_pair(item, resources[item])
    if len(_CPUS & resources.keys()) > 1:
        raise Refused("only one of cpus, cpusRange, cpusOptions can be defined")
    if "nodes" in resources and "totalCpusRange" in resources:
        raise Refused("nodes and totalCpusRange cannot both be defined")


def _check_presence(resources: dict[str, Any]) -> None:
    if not _CPUS & resources.keys():
        raise Refused("one of cpus, cpusRange, cpusOptions must be defined")
    if "memory" not in resources and "memoryPerCpu" not in resources:
        raise Refused("memory or memoryPerCpu (in GB) must be defined")
    if "memory" in resources and "memoryPerCpu" in resources:
        raise Refused("memory and memoryPerCpu cannot both be defined")
    if "disk" not in resources:
        raise Refused("disk (in GB) must be defined")


def _check_numbers(resources: dict[str, Any]) -> None:
    for item, must, least in (
        ("nodes", "number of nodes must be an integer", "number of nodes must be at least 1"),
        ("cpus", "number of cpus must be an integer", "number of cpus must be at least 1"),
        ("memory", "memory must be an integer", "memory must be at least 1"),
        ("memoryPerCpu", "memoryPerCpu must be an integer", "memoryPerCpu must be at least 1"),
        ("disk", "disk must be an integer", "disk must be at least 1"),
        ("walltime", "required walltime must be an integer", "walltime must be at least 1 minute"),
    ):
        if item in resources:
            if not is_whole(resources[item]):
                raise Refused(must)
            if resources[item] < 1:
                raise Refused(least)
            if resources[item] > _MOST.get(item, MOST_OF_A_MACHINE):
                raise Refused(f"{item} must be at most {_MOST.get(item, MOST_OF_A_MACHINE)}")


def _check_pair(item: str, pair: Any) -> None:
    if not isinstance(pair, list) or len(pair) != 2 or not all(is_whole(number) and number >= 1 for number in pair):
        raise Refused(f"{item} must be an array of two integers of at least 1")
    if pair[0] > pair[1]:
        raise Refused(f"the first number of {item} must not be above the second")
    if pair[1] > MOST_OF_A_MACHINE:
        raise Refused(f"numbers of {item} must be at most {MOST_OF_A_MACHINE}")
