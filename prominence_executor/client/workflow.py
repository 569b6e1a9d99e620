"""Workflow: jobs that depend on each other, and factories that make many jobs of one.

As with Job, a description is made offline, and each question asks the service when it is asked. Of what the service
accepts, only what it also does right is let through: the rest hangs, runs nothing, or loses outputs silently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..public import public
from .client import ProminenceClient
from .job import Job
from .submitted import Submitted, Verbs, known_id, last_seen
from .validation import BODY_LIMIT, check_labels, encode, whole_number, wrong, wrong_field

__all__ = ["Dependency", "ParameterSweep", "Repeat", "Workflow", "WorkflowPolicies", "Zip"]

_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_VERBS = Verbs(
    create=ProminenceClient.create_workflow,
    describe=ProminenceClient.describe_workflow,
    delete=ProminenceClient.delete_workflow,
    active=ProminenceClient.list_workflows,
)
_JOBS_LIMIT = 100_000  # of one workflow
_EXACT = 2**53  # up to which the steps of a sweep are exact
_SCRATCH = "scratch"  # outputs lie in scratch/<uuid>, and the service replaces the job's name in that path too


@public
@dataclass
class Zip:
    """One job for each position in the lists of values, which have one length.

    Every job gets its values as ``${p}`` in the command, in artifacts and in output names (there only the last
    parameter), and as ``PROMINENCE_PARAMETER_p`` in its environment. It is named ``workflow/job/index`` and has outputs
    of its own place, so that a fixed output name does.
    """

    jobs: Sequence[Job | str]
    """Jobs of the workflow, or their names."""
    parameters: Mapping[str, Sequence[int | str]]
    """Name to values: integers, or words of letters, digits and _ . -"""
    name: str = "zip"

    def json(self) -> dict[str, Any]:
        """Return the JSON of this factory; ValueError for what the service would refuse, or break on."""
        lengths = {len(values) for values in self.parameters.values()}
        if len(lengths) != 1 or not 1 <= max(lengths) <= _JOBS_LIMIT:
            expected = f"one or more lists of values of one length, at most {_JOBS_LIMIT}"
            raise wrong("Zip.parameters", expected, self.parameters)
        parameters = [{"name": name, "values": self._values(name)} for name in _checked_names(self)]
        return {**_factory(self, "zip"), "parameters": parameters}

    def _values(self, name: str) -> list[int | str]:
        values = list(self.parameters[name])
        for value in values:
            word = isinstance(value, str) and _WORD.fullmatch(value)
            if isinstance(value, bool) or not (word or isinstance(value, int)):
                raise wrong(f"Zip.parameters[{name!r}]", "integers, or words of letters, digits and _ . -", value)
        return values


@public
@dataclass
class ParameterSweep:
    """One job for each combination of the parameters' values; each value is used as with ``Zip``."""

    jobs: Sequence[Job | str]
    """Jobs of the workflow, or their names."""
    parameters: Mapping[str, tuple[float, float, float]]
    """Name to start, end (included, as far as the steps meet it) and step."""
    name: str = "sweep"

    def json(self) -> dict[str, Any]:
        """Return the JSON of this factory; ValueError for what the service would refuse, or break on."""
        if not self.parameters:
            raise wrong("ParameterSweep.parameters", "one or more names with start, end and step", self.parameters)
        parameters = [self._range(name) for name in _checked_names(self)]
        steps = ((item["end"] - item["start"]) / item["step"] for item in parameters)
        jobs = math.prod(1 + int(min(number, _JOBS_LIMIT)) for number in steps)
        if jobs > _JOBS_LIMIT:
            raise wrong("ParameterSweep.parameters", f"ranges of at most {_JOBS_LIMIT} combinations", self.parameters)
        return {**_factory(self, "parameterSweep"), "parameters": parameters}

    def _range(self, name: str) -> dict[str, Any]:
        numbers = tuple(self.parameters[name])
        good = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= _EXACT for n in numbers)
        if len(numbers) != 3 or not good or numbers[2] <= 0 or numbers[1] < numbers[0]:
            expected = f"(start, end, step): numbers of at most {_EXACT}, step above 0"
            raise wrong(f"ParameterSweep.parameters[{name!r}]", expected, numbers)
        if any(n + numbers[2] <= n for n in numbers[:2]):
            raise wrong(f"ParameterSweep.parameters[{name!r}]", "numbers to which the step adds something", numbers)
        return {"name": name, "start": numbers[0], "end": numbers[1], "step": numbers[2]}


@public
@dataclass
class Repeat:
    """The same job several times; it must have no outputs, since the service would store all of them in one place."""

    jobs: Sequence[Job | str]
    """Jobs of the workflow, or their names."""
    number: int = 1
    name: str = "repeat"

    def json(self) -> dict[str, Any]:
        """Return the JSON of this factory; ValueError for what the service would refuse, or break on."""
        number = whole_number(self, "number", 1, _JOBS_LIMIT)
        return {**_factory(self, "repeat"), "number": number}


Factory = Zip | ParameterSweep | Repeat


@public
@dataclass
class Dependency:
    """The children start when the parent has completed."""

    parent: Job | str
    children: Sequence[Job | str]


@public
@dataclass
class WorkflowPolicies:
    """How the service treats a workflow; None leaves a policy to the service."""

    maximum_retries: int | None = None
    """Reruns of a job that failed, 1 to 10."""
    leave_in_queue: bool | None = None

    def json(self) -> dict[str, Any]:
        """Return the JSON of the policies that are set; ValueError for what the service would refuse, or break on."""
        wire: dict[str, Any] = {}
        if self.maximum_retries is not None:
            wire["maximumRetries"] = whole_number(self, "maximum_retries", 1, 10)
        if self.leave_in_queue is not None:
            if not isinstance(self.leave_in_queue, bool):
                raise wrong_field(self, "leave_in_queue", "True, False or None")
            wire["leaveInQueue"] = self.leave_in_queue
        return wire


@public
class Workflow(Submitted):
    """A workflow; every attribute may be changed until ``create()``.

    Attributes:
        name: letters, digits and _ . - only.
        jobs: the descriptions, each with a name of its own; ``instances()`` returns the jobs that came of them.
        labels: the workflow's own; the labels of the jobs inside are what jobs are listed by.

    ``Workflow(id=n)`` is an existing workflow: it can be asked everything, but its description stays empty here.

    What asks the service (all methods but ``json``, and the properties that the service knows) blocks, and raises what
    the methods of `ProminenceClient` do. A description that the service would refuse is a ValueError before it is sent.
    """

    def __init__(
        self,
        id: int | None = None,  # upstream's word
        *,
        name: str | None = None,
        jobs: Iterable[Job] = (),
        factories: Iterable[Factory] = (),
        dependencies: Iterable[Dependency] = (),
        labels: Mapping[str, str] | None = None,
        policies: WorkflowPolicies | None = None,
        client: ProminenceClient | None = None,
    ) -> None:
        super().__init__(id, client, _VERBS)
        self.name = name
        self.jobs = list(jobs)
        self.factories = list(factories)
        self.dependencies = list(dependencies)
        self.labels = dict(labels or {})
        self.policies = WorkflowPolicies() if policies is None else policies

    def json(self) -> dict[str, Any]:
        """Return the JSON that creates this workflow, checked as a whole; nothing is sent.

        Raises:
            ValueError: the service would refuse it, or accept it and go wrong silently.
            OSError: an input file without content cannot be read.
        """
        jobs = self._checked_jobs()
        factories = [factory.json() for factory in self.factories]
        for factory in factories:
            _check_factory(factory, jobs)
        wire: dict[str, Any] = {"name": _checked_word("Workflow.name", self.name), "jobs": list(jobs.values())}
        optional = {
            "factories": factories,
            "dependencies": self._checked_dependencies(jobs),
            "labels": check_labels(self.labels, "Workflow.labels"),
            "policies": self.policies.json(),
        }
        wire.update((key, value) for key, value in optional.items() if value)
        if (size := len(encode(wire))) > BODY_LIMIT:
            raise wrong("Workflow.jobs", f"small enough for the {BODY_LIMIT} bytes that the service reads", size)
        return wire

    @property
    def progress(self) -> dict[str, int]:
        """Number of jobs: total, done, failed, queued, waiting. The service counts loosely, and somewhat late."""
        return dict(last_seen(self, "progress", {}))

    def instances(self) -> list[Job]:
        """Return the jobs that have come of this workflow so far, in the order of their ids; they can be asked."""
        listed = self.client.list_jobs(workflow_id=known_id(self), all=True, num=-1)
        return [Job.of_listing(item, self.client) for item in sorted(listed, key=lambda item: int(item["id"]))]

    def _checked_jobs(self) -> dict[str, dict[str, Any]]:
        jobs: dict[str, dict[str, Any]] = {}
        for job in self.jobs:
            if not isinstance(job, Job):
                raise wrong("Workflow.jobs", "a list of Job", job)
            name = _checked_word("Job.name", job.name)
            if name in jobs:
                raise wrong("Workflow.jobs", "jobs with different names", name)
            jobs[name] = job.json()
        if not jobs:
            raise wrong("Workflow.jobs", "at least one Job", self.jobs)
        return jobs

    def _checked_dependencies(self, jobs: Mapping[str, Any]) -> dict[str, list[str]]:
        wire: dict[str, list[str]] = {}
        for dependency in self.dependencies:
            names = [_name(job) for job in (dependency.parent, *dependency.children)]
            for name in names:
                if name not in jobs:
                    raise wrong("Dependency", "between jobs of the workflow", name)
            wire.setdefault(names[0], []).extend(names[1:])
        return wire


def _name(job: Job | str) -> str:
    return job if isinstance(job, str) else job.name or ""


def _factory(factory: Factory, kind: str) -> dict[str, Any]:
    if isinstance(factory.jobs, str) or not factory.jobs:
        raise wrong(f"{type(factory).__name__}.jobs", "a list of jobs or their names", factory.jobs)
    name = _checked_word(f"{type(factory).__name__}.name", factory.name)
    return {"name": name, "type": kind, "jobs": [_name(job) for job in factory.jobs]}


def _checked_names(factory: Zip | ParameterSweep) -> list[str]:
    for name in factory.parameters:
        if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
            raise wrong(f"{type(factory).__name__}.parameters", "named by letters, digits and _", name)
    return list(factory.parameters)


def _checked_word(field: str, value: str | None) -> str:
    if not isinstance(value, str) or len(value) >= 512 or not _WORD.fullmatch(value) or not value.strip("."):
        raise wrong(field, "a name of letters, digits and _ . -", value)
    return value


def _check_factory(factory: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]]) -> None:
    for name in factory["jobs"]:
        if name not in jobs:
            raise wrong("Factory.jobs", "jobs of the workflow", name)
        short = len(name) <= 3 and set(name) <= set(_SCRATCH + "0123456789abcdef-")
        if name in _SCRATCH or short or re.fullmatch(r"[0-9a-f-]+", name):
            raise wrong("Job.name", 'a name that cannot occur inside "scratch/<uuid>", where outputs lie', name)
        outputs = [*jobs[name].get("outputFiles", ()), *jobs[name].get("outputDirs", ())]
        if factory["type"] == "repeat" and outputs:
            raise wrong("Repeat.jobs", "jobs without outputs, which would all be stored in one place", name)
        lost = {parameter["name"] for parameter in factory.get("parameters", [])[:-1]}
        for output in outputs:
            if lost & {braced or plain for braced, plain in _REFERENCE.findall(output)}:
                raise wrong("Job.output_files", "without parameters but the last, which alone is replaced", output)
