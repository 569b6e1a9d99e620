"""What a workflow description may contain, and which jobs it stands for. No state, no clock.

As with jobs, the sentences are the service's own where it has one. It accepts many workflows that then hang, complete
with nothing run, or write every instance's outputs to one place; those are refused here.
"""

from __future__ import annotations

import graphlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .bounds import (
    LARGEST_STORED,
    LARGEST_WORKFLOW,
    LONGEST_NAME,
    LONGEST_PATH,
    LONGEST_TEXT,
    LONGEST_WORD,
    MOST_LOOKUPS,
)
from .document import check_parts
from .factory import check_type, expanded
from .files import check_objects, fits
from .items import Refused, check_labels, check_policies, shown
from .job import check_described, check_notifications
from .parameters import as_texts, references

_ROW = 64  # bytes that a stored job or label takes beside its texts, at least
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
    check_parts(workflow)
    if not isinstance(workflow, dict):
        raise Refused("a workflow must contain jobs")
    for item in workflow:
        if item not in WORKFLOW_ITEMS:
            raise Refused(f'invalid item "{shown(item)}" in workflow description')
    if "jobs" not in workflow:
        raise Refused("a workflow must contain jobs")
    if not isinstance(workflow["jobs"], list) or not workflow["jobs"]:
        raise Refused("an array of jobs must be provided")
    names: set[str] = set()
    for job in workflow["jobs"]:
        check_described(job)
        _check_member_name(job.get("name", ""), names)
        names.add(job["name"])
    check_labels(workflow.get("labels", {}))
    check_policies(workflow.get("policies", {}))
    check_notifications(workflow.get("notifications", []))
    _check_dependencies(workflow.get("dependencies", {}), names)
    _check_factories(workflow, names)
    name = workflow.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9\-_./]+", name):
        raise Refused("Workflow submission failed")
    if len(name) >= LONGEST_TEXT:
        raise Refused("workflow name must be less than 512 characters in length")


def _check_member_name(name: str, taken: set[str]) -> None:
    if not name:
        raise Refused("all jobs must have names")
    if name in taken:
        raise Refused(f'all jobs must have unique names: "{name}" is used more than once')
    if name in (".", "..") or len(name) > LONGEST_NAME:
        raise Refused("Unable to create job sandbox directories")
    if "/" in name or " " in name:
        raise Refused("Workflow submission failed")


def _check_dependencies(dependencies: Any, names: set[str]) -> None:
    """Refuse what is not parents with lists of their children, or goes round in circles."""
    if not isinstance(dependencies, dict):
        raise Refused("dependencies must be defined as a dict")
    for parent, children in dependencies.items():
        if parent not in names:
            raise Refused(f'parent job "{shown(parent)}" is not actually defined')
        if not isinstance(children, list):
            raise Refused(f'an array of child jobs must be provided for "{parent}"')
        for child in children:
            if not isinstance(child, str) or child not in names:
                raise Refused(f'child job "{shown(child)}" is not actually defined')
    try:
        graphlib.TopologicalSorter(dependencies).prepare()
    except graphlib.CycleError:
        raise Refused("the dependencies of a workflow must not contain a cycle") from None


def _check_factories(workflow: dict[str, Any], names: set[str]) -> None:
    factories = workflow.get("factories", [])
    jobs = {job["name"]: job for job in workflow["jobs"]}
    taken: set[str] = set()
    total = len(names)
    if not isinstance(factories, list):
        raise Refused("an array of factories must be provided")
    for factory in factories:
        _check_factory(factory)
        for job in factory["jobs"]:
            _check_factory_job(job, names, taken)
            taken.add(job)
        made = [jobs[name] for name in factory["jobs"]]
        _check_output_names(made, factory)
        instances = expanded(factory)
        total += (len(instances) - 1) * len(made)
        if total > LARGEST_WORKFLOW:
            raise Refused(f"a workflow may have at most {LARGEST_WORKFLOW} jobs")
        longest = max((len(str(value).encode()) for values in instances for value in values.values()), default=0)
        for job in made:
            _check_substituted(job, longest)


def _check_factory(factory: Any) -> None:
    if not isinstance(factory, dict):
        raise Refused("each factory must be defined as a dict")
    check_type(factory)
    for item in factory:
        if item not in ("name", "type", "jobs", "parameters", "number"):
            raise Refused(f'invalid item "{shown(item)}" in factory')
    if not isinstance(factory.get("name", ""), str) or len(factory.get("name", "")) >= LONGEST_TEXT:
        raise Refused("factory name must be a string of less than 512 characters in length")
    if not isinstance(factory.get("jobs"), list) or not factory["jobs"]:
        raise Refused("a factory must contain an array of jobs")


def _check_factory_job(job: Any, names: set[str], taken: set[str]) -> None:
    if not isinstance(job, str) or job not in names:
        raise Refused(f'job "{shown(job)}" of a factory is not actually defined')
    if job in taken:
        raise Refused(f'job "{job}" is used in more than one factory')
    if job in "scratch" or re.fullmatch(r"[0-9a-f\-]+", job):
        # The service replaces the name in "scratch/<uuid>/<name>": all instances would write to one place.
        raise Refused(f'job name "{job}" of a factory can occur in "scratch/<uuid>": choose another')


def _check_output_names(jobs: list[dict[str, Any]], factory: dict[str, Any]) -> None:
    """Refuse other parameters than the last in names of outputs: the service does not replace them there."""
    parameters = factory.get("parameters")
    items = parameters[:-1] if isinstance(parameters, list) else []
    earlier = {name for item in items if isinstance(item, dict) and isinstance(name := item.get("name"), str)}
    for job in jobs:
        for output in [*job.get("outputFiles", []), *job.get("outputDirs", [])]:
            for name in sorted(earlier & references(output)):
                raise Refused(
                    f'in names of outputs only the last parameter is replaced: not "{name}" in {shown(output)}'
                )


def _check_substituted(job: dict[str, Any], longest: int) -> None:
    """Refuse what is short enough itself, but not with a value of so many bytes in each of its places."""
    for output in [*job.get("outputFiles", []), *job.get("outputDirs", [])]:
        if not fits(output, output.count("$") * longest):
            raise Refused(f'"{shown(output)}" with parameters in it may be too long for the name of an output')
    for item in job.get("artifacts", []):
        for text in (item["url"], item.get("mountpoint", "")):
            if len(text.encode()) + text.count("$") * longest >= LONGEST_PATH:
                raise Refused(f'"{shown(text)}" of an artifact may be too long with parameters in it')
    for task in job["tasks"]:
        command = task.get("cmd", "")
        more = command.count("$") * longest
        if more and len(command.encode()) + more >= LONGEST_WORD:
            raise Refused(f"cmd with parameters in it must be less than {LONGEST_WORD} bytes in length")


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


def check_stored(expanded_members: dict[str, Member]) -> None:
    """Refuse a workflow whose jobs together are too large for the database: each has its own tasks and labels there."""
    size = 0
    for member in expanded_members.values():
        labels = sum(len(key) + len(value) + _ROW for key, value in member.body.get("labels", {}).items())
        size += (len(json.dumps(member.body["tasks"])) + labels + _ROW) * len(member.instances)
    if size > LARGEST_STORED:
        raise Refused("a workflow must be smaller: its jobs have tasks and labels of more than "
                      f"{LARGEST_STORED >> 20} MB together")  # fmt: skip


def _with_retries(job: dict[str, Any], workflow: dict[str, Any]) -> dict[str, Any]:
    """Give a job its workflow's maximumRetries if it says nothing else."""
    retries = workflow.get("policies", {}).get("maximumRetries")
    if retries is None:
        return job
    return {**job, "policies": {"maximumRetries": retries, **job.get("policies", {})}}


def check_members_objects(found: dict[str, Member], exists: Callable[[str], bool]) -> None:
    """Refuse the whole workflow when an artifact is missing for one instance."""
    lookups = 0
    for member in found.values():
        for item in member.body.get("artifacts", []):
            varying = member.instances if "$" in item["url"] else member.instances[:1]
            lookups += len(varying)
            if lookups > MOST_LOOKUPS:
                raise Refused(f"a workflow's jobs may name at most {MOST_LOOKUPS} artifacts together")
            for _, parameters in varying:
                check_objects({"artifacts": [item], "tasks": []}, exists, as_texts(parameters))
        check_objects({"tasks": member.body["tasks"]}, exists)
