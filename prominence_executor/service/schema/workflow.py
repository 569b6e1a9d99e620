"""What a workflow description may contain, and which jobs it stands for. No state, no clock.

As with jobs, the sentences are the service's own where it has one. It accepts many workflows that then hang, complete
with nothing run, or write every instance's outputs to one place; those are refused here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .job import Refused, check_job, check_labels, check_objects, check_policies, is_whole

WORKFLOW_ITEMS = {"name", "jobs", "factories", "labels", "policies", "dependencies", "notifications"}
LARGEST_WORKFLOW = 100_000
_BREAKS_VALUES = re.compile(r"[\s=\"'\\\x00]")


@dataclass
class Member:
    """A job of a workflow, and its instances: (index, parameters), or one with index -1 outside of factories."""

    name: str
    body: dict[str, Any]
    instances: list[tuple[int, dict[str, Any] | None]]
    parents: set[str]


def check_workflow(workflow: Any) -> None:
    """Raises Refused."""
    if not isinstance(workflow, dict):
        raise Refused("a workflow must contain jobs")
    for item in workflow:
        if item not in WORKFLOW_ITEMS:
            raise Refused(f'invalid item "{item}" in workflow description')
    if "jobs" not in workflow:
        raise Refused("a workflow must contain jobs")
    if not isinstance(workflow["jobs"], list) or not workflow["jobs"]:
        raise Refused("an array of jobs must be provided")
    names: set[str] = set()
    for job in workflow["jobs"]:
        check_job(job)
        _check_member_name(job.get("name", ""), names)
        names.add(job["name"])
    check_labels(workflow.get("labels", {}))
    check_policies(workflow.get("policies", {}))
    _check_dependencies(workflow.get("dependencies", {}), names)
    _check_factories(workflow, names)
    name = workflow.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9\-_./]+", name):
        raise Refused("Workflow submission failed")
    if len(name) >= 512:
        raise Refused("workflow name must be less than 512 characters in length")


def _check_member_name(name: str, taken: set[str]) -> None:
    if not name:
        raise Refused("all jobs must have names")
    if name in taken:
        raise Refused(f'all jobs must have unique names: "{name}" is used more than once')
    if name in (".", ".."):
        raise Refused("Unable to create job sandbox directories")
    if "/" in name or " " in name:
        raise Refused("Workflow submission failed")


def _check_dependencies(dependencies: Any, names: set[str]) -> None:
    """Parents with lists of their children."""
    if not isinstance(dependencies, dict):
        raise Refused("dependencies must be defined as a dict")
    for parent, children in dependencies.items():
        if parent not in names:
            raise Refused(f'parent job "{parent}" is not actually defined')
        if not isinstance(children, list):
            raise Refused(f'an array of child jobs must be provided for "{parent}"')
        for child in children:
            if child not in names:
                raise Refused(f'child job "{child}" is not actually defined')
    left = set(names)
    while left:
        # What no remaining job leads to can go; if nothing can, the rest goes round in circles.
        free = left - {child for parent in left for child in dependencies.get(parent, [])}
        if not free:
            raise Refused("the dependencies of a workflow must not contain a cycle")
        left -= free


def _check_factories(workflow: dict[str, Any], names: set[str]) -> None:
    factories, taken = workflow.get("factories", []), set()
    if not isinstance(factories, list):
        raise Refused("an array of factories must be provided")
    for factory in factories:
        if not isinstance(factory, dict):
            raise Refused("each factory must be defined as a dict")
        if factory.get("type") not in _VALUES:
            raise Refused("invalid factory type")
        for item in factory:
            if item not in ("name", "type", "jobs", "parameters", "number"):
                raise Refused(f'invalid item "{item}" in factory')
        jobs = factory.get("jobs")
        if not isinstance(jobs, list) or not jobs:
            raise Refused("a factory must contain an array of jobs")
        for job in jobs:
            if job not in names:
                raise Refused(f'job "{job}" of a factory is not actually defined')
            if job in taken:
                raise Refused(f'job "{job}" is used in more than one factory')
            if job in "scratch" or re.fullmatch(r"[0-9a-f\-]+", job):
                # The service replaces the name in "scratch/<uuid>/<name>": all instances would write to one place.
                raise Refused(f'job name "{job}" of a factory can occur in "scratch/<uuid>": choose another')
            taken.add(job)
        _check_output_names(workflow, factory)
        _VALUES[factory["type"]](factory)


def _check_output_names(workflow: dict[str, Any], factory: dict[str, Any]) -> None:
    """The service replaces the last parameter only in names of outputs."""
    earlier = [item.get("name") for item in factory.get("parameters", [])[:-1] if isinstance(item, dict)]
    for job in workflow["jobs"]:
        if job["name"] not in factory["jobs"]:
            continue
        for output in [*job.get("outputFiles", []), *job.get("outputDirs", [])]:
            for name in filter(None, earlier):
                if re.search(rf"\$(\{{{name}\}}|{name}\b)", output):
                    raise Refused(f'in names of outputs only the last parameter is replaced: not "{name}" in {output}')


def _parameters(factory: dict[str, Any], items: set[str]) -> list[dict[str, Any]]:
    parameters = factory.get("parameters")
    if not isinstance(parameters, list) or not parameters:
        raise Refused("a factory must contain an array of parameters")
    for parameter in parameters:
        if not isinstance(parameter, dict) or not isinstance(parameter.get("name"), str):
            raise Refused("each parameter must have a name")
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", parameter["name"]):
            raise Refused(f'parameter name "{parameter["name"]}" is invalid')
        if parameter.keys() != items | {"name"}:
            raise Refused(f"each parameter of a {factory['type']} factory must contain {', '.join(sorted(items))}")
    if len({parameter["name"] for parameter in parameters}) < len(parameters):
        raise Refused("all parameters must have unique names")
    return parameters


def _zip(factory: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = _parameters(factory, {"values"})
    lists = [parameter["values"] for parameter in parameters]
    if not all(isinstance(values, list) for values in lists) or len({len(values) for values in lists}) > 1:
        raise Refused("all parameters must lists of values the same length")
    for value in itertools.chain(*lists):
        if not isinstance(value, (str, int, float)) or value == "" or _BREAKS_VALUES.search(str(value)):
            wanted = "numbers, or texts without spaces, quotes, = and backslashes"
            raise Refused(f"value {value!r} of a zip factory is invalid: {wanted}")
    names = [parameter["name"] for parameter in parameters]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _sweep(factory: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations, the last parameter changing fastest. `end` is reached only if the steps add up to it."""
    parameters, lists = _parameters(factory, {"start", "end", "step"}), []
    for parameter in parameters:
        start, end, step = parameter["start"], parameter["end"], parameter["step"]
        for number in (start, end, step):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                raise Refused("start, end and step of a parameter must be numbers")
        if step <= 0 or not abs(end - start) / step <= LARGEST_WORKFLOW:
            raise Refused("step of a parameter must be greater than 0, and not too small")
        values, value = [], start
        while value <= end:
            values.append(int(value) if float(value).is_integer() else value)
            value += step
        lists.append(values)
    names, count = [parameter["name"] for parameter in parameters], 1
    for values in lists:
        count *= len(values)
    if count > LARGEST_WORKFLOW:
        raise Refused(f"a workflow may have at most {LARGEST_WORKFLOW} jobs")
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]


def _repeat(factory: dict[str, Any]) -> list[dict[str, Any]]:
    number = factory.get("number")
    if not isinstance(number, int) or not is_whole(number):
        raise Refused("number of repeats must be an integer")
    if number < 1:
        raise Refused("number of repeats must be at least 1")
    if number > LARGEST_WORKFLOW:
        raise Refused(f"a workflow may have at most {LARGEST_WORKFLOW} jobs")
    return [{} for _ in range(number)]


_VALUES: dict[Any, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "zip": _zip,
    "parameterSweep": _sweep,
    "repeat": _repeat,
}


def members(workflow: dict[str, Any]) -> dict[str, Member]:
    """The jobs of a checked workflow by name, expanded. Raises Refused when nothing would run."""
    parents: dict[str, set[str]] = {job["name"]: set() for job in workflow["jobs"]}
    for parent, children in workflow.get("dependencies", {}).items():
        for child in children:
            parents[child].add(parent)
    expanded = {
        job["name"]: Member(job["name"], _with_retries(job, workflow), [(-1, None)], parents[job["name"]])
        for job in workflow["jobs"]
    }
    for factory in workflow.get("factories", []):
        instances = _VALUES[factory["type"]](factory)
        if not instances:
            raise Refused("a factory must give at least one job")
        for name in factory["jobs"]:
            expanded[name].instances = list(enumerate(instances))
    return expanded


def _with_retries(job: dict[str, Any], workflow: dict[str, Any]) -> dict[str, Any]:
    """A workflow's maximumRetries holds for each of its jobs that says nothing else."""
    retries = workflow.get("policies", {}).get("maximumRetries")
    if retries is None:
        return job
    return {**job, "policies": {"maximumRetries": retries, **job.get("policies", {})}}


def check_member_objects(member: Member, exists: Callable[[str], bool]) -> None:
    """An artifact that is missing for one instance refuses the whole workflow."""
    varying = any("$" in item["url"] for item in member.body.get("artifacts", []))
    for _, parameters in member.instances if varying else member.instances[:1]:
        values = {name: str(value) for name, value in (parameters or {}).items()}
        check_objects(member.body, exists, values)
