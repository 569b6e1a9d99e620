"""What a workflow description may contain, and which jobs it stands for. No state, no clock.

As with jobs, the sentences are the service's own where it has one. It accepts many workflows that then hang, complete
with nothing run, or write every instance's outputs to one place; those are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .factory import check_type, expanded
from .files import check_objects
from .items import Refused, check_labels, check_policies
from .job import check_job
from .parameters import as_texts

WORKFLOW_ITEMS = {"name", "jobs", "factories", "labels", "policies", "dependencies", "notifications"}


@dataclass
class Member:
    """A job of a workflow, and its instances: (index, parameters), or one with index -1 outside of factories."""

    name: str
    body: dict[str, Any]
    instances: list[tuple[int, dict[str, Any] | None]]
    parents: set[str]


def check_workflow(workflow: Any) -> None:
    """Refuse a workflow description that cannot run."""
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
    """Refuse what is not parents with lists of their children, or goes round in circles."""
    if not isinstance(dependencies, dict):
        raise Refused("dependencies must be defined as a dict")
    for parent, children in dependencies.items():
        if parent not in names:
            raise Refused(f'parent job "{parent}" is not actually defined')
        if not isinstance(children, list):
            raise Refused(f'an array of child jobs must be provided for "{parent}"')
        for child in children:
            if not isinstance(child, str) or child not in names:
                raise Refused(f'child job "{child}" is not actually defined')
    left = set(names)
    while left:
        # What no remaining job leads to can go; if nothing can, the rest goes round in circles.
        free = left - {child for parent in left for child in dependencies.get(parent, [])}
        if not free:
            raise Refused("the dependencies of a workflow must not contain a cycle")
        left -= free


def _check_factories(workflow: dict[str, Any], names: set[str]) -> None:
    factories = workflow.get("factories", [])
    taken: set[str] = set()
    if not isinstance(factories, list):
        raise Refused("an array of factories must be provided")
    for factory in factories:
        if not isinstance(factory, dict):
            raise Refused("each factory must be defined as a dict")
        check_type(factory)
        for item in factory:
            if item not in ("name", "type", "jobs", "parameters", "number"):
                raise Refused(f'invalid item "{item}" in factory')
        jobs = factory.get("jobs")
        if not isinstance(jobs, list) or not jobs:
            raise Refused("a factory must contain an array of jobs")
        for job in jobs:
            _check_factory_job(job, names, taken)
            taken.add(job)
        _check_output_names(workflow, factory)
        expanded(factory)


def _check_factory_job(job: Any, names: set[str], taken: set[str]) -> None:
    if not isinstance(job, str) or job not in names:
        raise Refused(f'job "{job}" of a factory is not actually defined')
    if job in taken:
        raise Refused(f'job "{job}" is used in more than one factory')
    if job in "scratch" or re.fullmatch(r"[0-9a-f\-]+", job):
        # The service replaces the name in "scratch/<uuid>/<name>": all instances would write to one place.
        raise Refused(f'job name "{job}" of a factory can occur in "scratch/<uuid>": choose another')


def _check_output_names(workflow: dict[str, Any], factory: dict[str, Any]) -> None:
    """Refuse other parameters than the last in names of outputs: the service does not replace them there."""
    parameters = factory.get("parameters")
    items = parameters[:-1] if isinstance(parameters, list) else []
    names = [item.get("name") for item in items if isinstance(item, dict)]
    earlier = [re.escape(name) for name in names if isinstance(name, str) and name]
    for job in workflow["jobs"]:
        if job["name"] not in factory["jobs"]:
            continue
        for output in [*job.get("outputFiles", []), *job.get("outputDirs", [])]:
            for name in earlier:
                if re.search(rf"\$(\{{{name}\}}|{name}\b)", output):
                    raise Refused(f'in names of outputs only the last parameter is replaced: not "{name}" in {output}')


def members(workflow: dict[str, Any]) -> dict[str, Member]:
    """Expand the jobs of a checked workflow, by name. Raises Refused when nothing would run."""
    parents: dict[str, set[str]] = {job["name"]: set() for job in workflow["jobs"]}
    for parent, children in workflow.get("dependencies", {}).items():
        for child in children:
            parents[child].add(parent)
    found = {
        job["name"]: Member(job["name"], _with_retries(job, workflow), [(-1, None)], parents[job["name"]])
        for job in workflow["jobs"]
    }
    for factory in workflow.get("factories", []):
        instances = expanded(factory)
        if not instances:
            raise Refused("a factory must give at least one job")
        for name in factory["jobs"]:
            found[name].instances = list(enumerate(instances))
    return found


def _with_retries(job: dict[str, Any], workflow: dict[str, Any]) -> dict[str, Any]:
    """Give a job its workflow's maximumRetries if it says nothing else."""
    retries = workflow.get("policies", {}).get("maximumRetries")
    if retries is None:
        return job
    return {**job, "policies": {"maximumRetries": retries, **job.get("policies", {})}}


def check_member_objects(member: Member, exists: Callable[[str], bool]) -> None:
    """Refuse the whole workflow when an artifact is missing for one instance."""
    varying = any("$" in item["url"] for item in member.body.get("artifacts", []))
    for _, parameters in member.instances if varying else member.instances[:1]:
        check_objects(member.body, exists, as_texts(parameters))
