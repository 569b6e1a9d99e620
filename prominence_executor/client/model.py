"""The values that describe a job, and their JSON. The service's names of keys are written here and in inputs.py only.

Everything here is pure: no network, no token, no clock, no files. A description may be changed freely, and is checked
as a whole when it is turned into JSON; what the service would refuse, or accept and then break on, is a ValueError that
names field and value.
"""

from __future__ import annotations

import operator
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..public import public
from .inputs import Artifact, InputFile
from .validation import (
    Value,
    encoded,
    one_of,
    whole_number,
    words_of,
    wrong,
    wrong_field,
)

__all__ = [
    "Artifact",
    "InputFile",
    "JobPolicies",
    "Notification",
    "Resources",
    "Task",
]

_WORD_LIMIT = 131_071  # bytes: Linux's MAX_ARG_STRLEN without the final NUL
_QUEUE_LIMIT = 44_640  # minutes: the service's limit, 31 days
_WALLTIME_LIMIT = 5_256_000  # minutes: ten years, beyond which clocks and tokens of a service break
_MACHINE_LIMIT = 1_000_000  # CPUs, GB or nodes
_PRIORITY_LIMIT = 2**31 - 1  # HTCondor's
_RUNTIMES = ("singularity", "udocker")
_TASK_TYPES = ("basic", "openmpi", "intelmpi", "mpich", "sidecar")
_ARCHIVES_FOR_UDOCKER = (".tar", ".tgz", ".tar.gz")


class _Default(int):
    """A default that nobody chose, so that it may give way to a field that excludes it."""


@public
@dataclass(slots=True)
class Task(Value):
    """One command in one container; the tasks of a job run one after the other in the same directory."""

    image: str | None = None
    """Registry name, URL, or the name of an uploaded object."""
    command: str | None = None
    """Split into words as a shell would, but run without one: ``*``, ``|`` and ``&&`` are literal. ``${p}`` is
    replaced by a factory's parameter or the worker's variable first (``$$`` is a dollar), a newline by a space.
    None runs what the image itself runs."""
    runtime: str | None = None
    """``singularity`` or ``udocker``. None: udocker for images that end in .tar, .tgz or .tar.gz, else singularity."""
    type: str = "basic"
    """``basic``, ``openmpi``, ``intelmpi``, ``mpich``, or ``sidecar`` (runs beside the other tasks, ends with them)."""
    workdir: str | None = None
    """Directory inside the container. None: the job's own directory."""
    env: Mapping[str, str | int | float | bool] | None = None
    """Environment variables; numbers travel as their text."""
    procs_per_node: int | None = None
    """MPI processes on each node. None: one for each CPU."""

    def json(self) -> dict[str, Any]:
        """Return the JSON of this task; ValueError for what the service would refuse, or break on."""
        if not self.image or not isinstance(self.image, str):
            raise wrong_field(self, "image", "the name of a container image")
        wire: dict[str, Any] = {"image": self.image}
        if self.command:
            wire["cmd"] = self._checked_command()
        wire["runtime"] = runtime = self._chosen_runtime()
        if self.workdir:
            wire["workdir"] = self.workdir
        if one_of(self, "type", _TASK_TYPES) != "basic":
            wire["type"] = self.type
        if self.type not in ("basic", "sidecar") and not self.command:
            raise wrong_field(self, "command", f"given, since the task's type is {self.type}")
        if self.env:
            wire["env"] = self._checked_env(runtime)
        if self.procs_per_node is not None:
            wire["procsPerNode"] = whole_number(self, "procs_per_node", 1, _MACHINE_LIMIT)
        return wire

    def _chosen_runtime(self) -> str:
        if self.runtime is not None:
            return one_of(self, "runtime", _RUNTIMES)
        path = (self.image or "").partition("?")[0]
        return "udocker" if path.endswith(_ARCHIVES_FOR_UDOCKER) else "singularity"

    def _checked_command(self) -> str:
        """Refuse a command on which the worker script would crash and leave a job "completed" that did nothing."""
        if not isinstance(self.command, str):
            raise wrong_field(self, "command", "a string (shlex.join makes one of a list)")
        words = words_of(self.command)
        if words is None:
            raise wrong_field(self, "command", "words with balanced quotes")
        if "\0" in self.command or any(len(encoded(word)) > _WORD_LIMIT for word in words):
            raise wrong_field(self, "command", f"words of at most {_WORD_LIMIT} bytes without NUL")
        return self.command

    def _checked_env(self, runtime: str) -> dict[str, str]:
        if not isinstance(self.env, Mapping):
            raise wrong_field(self, "env", "a mapping of names to values")
        wire = {}
        for name, value in self.env.items():
            where = f"Task.env[{name!r}]"
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                raise wrong("Task.env", "a mapping of names without '='", name)
            if not isinstance(value, str | int | float | bool):
                raise wrong(where, "a string, number or bool", value)
            text = str(value)
            if "\0" in text or len(encoded(f"{name}={text}")) > _WORD_LIMIT:
                raise wrong(where, f"text of at most {_WORD_LIMIT} bytes, with the name, without NUL", value)
            if runtime == "udocker":  # the service splits its command line by shlex
                if shlex.quote(name) != name:
                    raise wrong("Task.env", "a mapping of names that udocker's command line can hold", name)
                text = shlex.quote(text)
            wire[name] = text
        return wire


@public
@dataclass(slots=True)
class Resources(Value):
    """What a job needs, for each of its nodes.

    ``memory`` and ``memory_per_cpu`` exclude each other, as do ``cpus``, ``cpus_range`` and ``cpus_options``, and
    ``nodes`` and ``total_cpus_range``: setting both is a ValueError, but a default gives way.
    """

    cpus: int | None = _Default(1)
    """CPUs of a node."""
    memory: int | None = _Default(1)
    """GB of a node, whole."""
    disk: int = 10
    """GB, whole."""
    nodes: int | None = _Default(1)
    """Machines that the job has at once, each with these CPUs, memory and disk."""
    walltime: int = 43200
    """Minutes after which the job is killed, and its output files with it; at most ten years."""
    memory_per_cpu: int | None = None
    """GB for each CPU, whole."""
    cpus_range: tuple[int, int] | None = None
    """Fewest and most CPUs of a node."""
    cpus_options: tuple[int, int] | None = None
    """The two possible numbers of CPUs of a node."""
    total_cpus_range: tuple[int, int] | None = None
    """Fewest and most CPUs of all nodes together."""

    def json(self) -> dict[str, Any]:
        """Return the JSON of these resources; ValueError for what the service would refuse, or break on."""
        wire: dict[str, Any] = {}
        if not self._gives_way("cpus", "cpus_range", "cpus_options"):
            wire["cpus"] = whole_number(self, "cpus", 1, _MACHINE_LIMIT)
        if not self._gives_way("memory", "memory_per_cpu"):
            wire["memory"] = whole_number(self, "memory", 1, _MACHINE_LIMIT, unit=" of GB")
        wire["disk"] = whole_number(self, "disk", 1, _MACHINE_LIMIT, unit=" of GB")
        if not self._gives_way("nodes", "total_cpus_range"):
            wire["nodes"] = whole_number(self, "nodes", 1, _MACHINE_LIMIT)
        wire["walltime"] = whole_number(self, "walltime", 1, _WALLTIME_LIMIT, unit=" of minutes")
        if self.memory_per_cpu is not None:
            wire["memoryPerCpu"] = whole_number(self, "memory_per_cpu", 1, _MACHINE_LIMIT, unit=" of GB")
        if self.cpus_range is not None:
            wire["cpusRange"] = self._pair("cpus_range")
        if self.cpus_options is not None:
            wire["cpusOptions"] = self._pair("cpus_options")
        if self.total_cpus_range is not None:
            wire["totalCpusRange"] = self._pair("total_cpus_range")
        return wire

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the defaults that nobody chose: a pickle is to name nothing but the public class.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        chosen = {name: value for name, value in values.items() if not isinstance(value, _Default)}
        return type(self), (), (getattr(self, "__dict__", None), chosen)

    def _gives_way(self, field: str, *others: str) -> bool:
        given = [name for name in (field, *others) if not isinstance(getattr(self, name), _Default | None)]
        if len(given) > 1:
            values = " and ".join(f"{name}={getattr(self, name)!r}" for name in given)
            raise ValueError(f"Resources: {values} exclude each other; give one of them")
        return bool(given) and given[0] != field

    def _pair(self, field: str) -> list[int]:
        expected = f"two whole numbers, the smaller first, of at most {_MACHINE_LIMIT}"
        try:
            low, high = (operator.index(number) for number in getattr(self, field))
        except (TypeError, ValueError):
            raise wrong_field(self, field, expected) from None
        if not 1 <= low <= high <= _MACHINE_LIMIT:
            raise wrong_field(self, field, expected)
        return [low, high]


_POLICY_BOUNDS: dict[str, tuple[int, int]] = {
    "maximum_retries": (1, 6),
    "maximum_task_retries": (1, 6),
    "maximum_time_in_queue": (0, _QUEUE_LIMIT),
    "priority": (0, _PRIORITY_LIMIT),
}


@public
@dataclass(slots=True)
class JobPolicies(Value):
    """How the service treats a job; None leaves a policy to the service."""

    maximum_task_retries: int | None = None
    """Reruns of a task that failed, 1 to 6."""
    maximum_retries: int | None = None
    """Reruns of the whole job, 1 to 6; the outputs are the last run's."""
    maximum_time_in_queue: int | None = None
    """Minutes, up to 44,640 (31 days)."""
    priority: int | None = None
    """Among one's own jobs; higher runs earlier."""
    leave_in_queue: bool | None = None
    """Keep the ended job among the active ones until it is removed."""
    ignore_task_failures: bool | None = None
    """Run the next tasks even after one that failed."""
    run_serial_tasks_on_all_nodes: bool | None = None
    """Run a task that is not of MPI on each node; otherwise on the first one alone."""
    report_job_success_on_task_failure: bool | None = None
    """Have a job end as completed whose task has failed."""

    def json(self) -> dict[str, Any]:
        """Return the JSON of the policies that are set; ValueError for what the service would refuse, or break on."""
        wire: dict[str, Any] = {}
        for policy in fields(self):
            value = getattr(self, policy.name)
            if value is None:
                continue
            if policy.name in _POLICY_BOUNDS:
                value = whole_number(self, policy.name, *_POLICY_BOUNDS[policy.name])
            elif not isinstance(value, bool):
                raise wrong_field(self, policy.name, "True, False or None")
            first, *rest = policy.name.split("_")
            wire[first + "".join(word.title() for word in rest)] = value
        return wire


@public
@dataclass(slots=True)
class Notification(Value):
    """A mail to the job's owner."""

    event: str = "jobFinished"
    """The only one there is."""
    type: str = "email"
    """The only one there is."""

    def json(self) -> dict[str, Any]:
        """Return the JSON of this notification; ValueError for what the service would refuse, or break on."""
        return {"event": one_of(self, "event", ("jobFinished",)), "type": one_of(self, "type", ("email",))}
