"""The values that describe a job, and their JSON: the only place where the service's key names are written.

Everything here is pure: no network, no token, no clock. (One exception: an InputFile without content reads its file.)
A description may be changed freely, and is checked as a whole when it is turned into JSON; what the service would
refuse, or accept and then break on, is a ValueError that names field and value.
"""

from __future__ import annotations

import base64
import json
import operator
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..public import public

__all__ = [
    "BODY_LIMIT",
    "Artifact",
    "InputFile",
    "JobPolicies",
    "Notification",
    "Resources",
    "Task",
    "check_labels",
    "check_name",
    "encode",
    "wrong",
]

BODY_LIMIT = 1_048_576
"""The largest request body that the service reads, in bytes. Inline files count in base64, so about 780 KB of them."""

_WORD_LIMIT = 131_071  # bytes: Linux's MAX_ARG_STRLEN without the final NUL
_QUEUE_LIMIT = 44_640  # minutes: the service's limit, 31 days
_RUNTIMES = ("singularity", "udocker")
_TASK_TYPES = ("basic", "openmpi", "intelmpi", "mpich", "sidecar")
_ARCHIVES_FOR_UDOCKER = (".tar", ".tgz", ".tar.gz")
_WORKERS_OWN_NAMES = frozenset({"logs", "json", "promlet.py", ".job.json"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Default(int):
    """A default that nobody chose, so that it may give way to a field that excludes it."""


class _Value:
    __slots__ = ()

    def json(self) -> dict[str, Any]:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Answers what ``json()`` answers; it is upstream's name."""
        return self.json()

    def _wrong(self, field: str, expected: str) -> ValueError:
        return wrong(f"{type(self).__name__}.{field}", expected, getattr(self, field))

    def _whole(self, field: str, low: int, high: int | None = None, unit: str = "") -> int:
        """The field as an int; numpy's integers count, bool and float do not (the service wants digits)."""
        value = getattr(self, field)
        expected = f"a whole number{unit} of at least {low}" + ("" if high is None else f" and at most {high}")
        try:
            number = operator.index(value)
        except TypeError:
            raise self._wrong(field, expected) from None
        if isinstance(value, bool) or number < low or (high is not None and number > high):
            raise self._wrong(field, expected)
        return int(number)

    def _one_of(self, field: str, allowed: tuple[str, ...]) -> str:
        value = getattr(self, field)
        if value not in allowed:
            raise self._wrong(field, "one of " + ", ".join(allowed))
        return str(value)


@public
@dataclass(slots=True)
class Task(_Value):
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
        if not self.image or not isinstance(self.image, str):
            raise self._wrong("image", "the name of a container image")
        wire: dict[str, Any] = {"image": self.image}
        if self.command:
            wire["cmd"] = self._checked_command()
        wire["runtime"] = runtime = self._chosen_runtime()
        if self.workdir:
            wire["workdir"] = self.workdir
        if self._one_of("type", _TASK_TYPES) != "basic":
            wire["type"] = self.type
        if self.type not in ("basic", "sidecar") and not self.command:
            raise self._wrong("command", f"given, since the task's type is {self.type}")
        if self.env:
            wire["env"] = self._checked_env(runtime)
        if self.procs_per_node is not None:
            wire["procsPerNode"] = self._whole("procs_per_node", 1)
        return wire

    def _chosen_runtime(self) -> str:
        if self.runtime is not None:
            return self._one_of("runtime", _RUNTIMES)
        path = (self.image or "").partition("?")[0]
        return "udocker" if path.endswith(_ARCHIVES_FOR_UDOCKER) else "singularity"

    def _checked_command(self) -> str:
        """The command, unless the worker script would crash on it and leave a job "completed" that did nothing."""
        if not isinstance(self.command, str):
            raise self._wrong("command", "a string (shlex.join makes one of a list)")
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise self._wrong("command", f"words with balanced quotes ({error})") from None
        if "\0" in self.command or any(len(word.encode()) > _WORD_LIMIT for word in words):
            raise self._wrong("command", f"words of at most {_WORD_LIMIT} bytes without NUL")
        return self.command

    def _checked_env(self, runtime: str) -> dict[str, str]:
        if not isinstance(self.env, Mapping):
            raise self._wrong("env", "a mapping of names to values")
        wire = {}
        for name, value in self.env.items():
            where = f"Task.env[{name!r}]"
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                raise wrong("Task.env", "a mapping of names without '='", name)
            if not isinstance(value, str | int | float | bool):
                raise wrong(where, "a string, number or bool", value)
            text = str(value)
            if "\0" in text:
                raise wrong(where, "text without NUL", value)
            if runtime == "udocker" and any(character.isspace() for character in text):
                raise wrong(where, "text without white space, which breaks the service's udocker command line", value)
            wire[name] = text
        return wire


@public
@dataclass(slots=True)
class Resources(_Value):
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
    walltime: int = 43200
    """Minutes after which the job is killed, and its output files with it."""
    memory_per_cpu: int | None = None
    """GB for each CPU, whole."""
    cpus_range: tuple[int, int] | None = None
    """Fewest and most CPUs of a node."""
    cpus_options: tuple[int, int] | None = None
    """The two possible numbers of CPUs of a node."""
    total_cpus_range: tuple[int, int] | None = None
    """Fewest and most CPUs of all nodes together."""

    def json(self) -> dict[str, Any]:
        wire: dict[str, Any] = {}
        if not self._gives_way("cpus", "cpus_range", "cpus_options"):
            wire["cpus"] = self._whole("cpus", 1)
        if not self._gives_way("memory", "memory_per_cpu"):
            wire["memory"] = self._whole("memory", 1, unit=" of GB")
        wire["disk"] = self._whole("disk", 1, unit=" of GB")
        if not self._gives_way("nodes", "total_cpus_range"):
            wire["nodes"] = self._whole("nodes", 1)
        wire["walltime"] = self._whole("walltime", 1, unit=" of minutes")
        if self.memory_per_cpu is not None:
            wire["memoryPerCpu"] = self._whole("memory_per_cpu", 1, unit=" of GB")
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
        expected = "two whole numbers, the smaller first"
        try:
            low, high = (operator.index(number) for number in getattr(self, field))
        except (TypeError, ValueError):
            raise self._wrong(field, expected) from None
        if not 1 <= low <= high:
            raise self._wrong(field, expected)
        return [low, high]


@public
@dataclass(slots=True)
class InputFile(_Value):
    """A small file that travels inside the job's description and lies, by its base name, in the job's directory.

    Without ``content`` the file called ``filename`` is read from disk, each time that JSON is made.
    """

    filename: str | os.PathLike[str]
    content: str | bytes | None = field(default=None, repr=False)
    """Text goes as UTF-8. Raw size up to about 780 KB for all inputs of a job together; may be empty."""
    executable: bool = False

    @property
    def name(self) -> str:
        """The base name, under which the job finds the file."""
        return os.path.basename(os.fspath(self.filename))

    def json(self) -> dict[str, Any]:
        """The wire form. Reads the file when there is no content.

        Raises:
            ValueError: the service breaks on such a name, or the content exceeds the limit of a request.
            OSError: the file cannot be read.
        """
        wire: dict[str, Any] = {"filename": self._checked_name(), "content": self._base64()}
        if self.executable:
            wire["executable"] = True
        return wire

    def _checked_name(self) -> str:
        name = self.name
        if not name or name in (".", "..") or name != name.strip() or _CONTROL.search(name):
            raise self._wrong("filename", "the name of a file")
        if "," in name:
            raise self._wrong("filename", "free of commas, which hold the job until it fails")
        if name in _WORKERS_OWN_NAMES:
            raise self._wrong("filename", "another name: the worker uses this one itself")
        return name

    def _base64(self) -> str:
        content = self.content
        if content is None:
            self._check_size(os.path.getsize(self.filename))
            with open(self.filename, "rb") as file:
                content = file.read()
        elif isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes | bytearray):
            raise self._wrong("content", "str, bytes or None")
        self._check_size(len(content))
        return base64.b64encode(content).decode("ascii")

    def _check_size(self, size: int) -> None:
        if size > BODY_LIMIT // 4 * 3:
            raise ValueError(
                f"InputFile {self.name!r} has {size} bytes: more than the {BODY_LIMIT} bytes, in base64, "
                "that a whole request may have; upload it and use an Artifact"
            )


@public
@dataclass(slots=True)
class Artifact(_Value):
    """A file that the worker downloads into the job's directory; archives are unpacked there and removed."""

    url: str
    """A URL, or the name of an uploaded object."""
    directory_name: str | None = None
    """The file or directory in the job's directory that ``mount_point`` shows."""
    mount_point: str | None = None
    """Absolute path inside the container."""
    executable: bool = False

    def json(self) -> dict[str, Any]:
        if not isinstance(self.url, str) or not self.url or _CONTROL.search(self.url):
            raise self._wrong("url", "a URL or the name of an uploaded object")
        wire: dict[str, Any] = {"url": self.url}
        if self.directory_name is not None or self.mount_point is not None:
            if not self.directory_name or "/" in self.directory_name or ":" in self.directory_name:
                raise self._wrong("directory_name", "a name without '/' and ':', beside a mount_point")
            if not self.mount_point or not self.mount_point.startswith("/") or ":" in self.mount_point:
                raise self._wrong("mount_point", "an absolute path without ':', beside a directory_name")
            wire["mountpoint"] = f"{self.directory_name}:{self.mount_point}"
        if self.executable:
            wire["executable"] = True
        return wire


_POLICY_BOUNDS: dict[str, tuple[int, int | None]] = {
    "maximum_retries": (1, 6),
    "maximum_task_retries": (1, 6),
    "maximum_time_in_queue": (0, _QUEUE_LIMIT),
    "priority": (0, None),
}


@public
@dataclass(slots=True)
class JobPolicies(_Value):
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
    report_job_success_on_task_failure: bool | None = None

    def json(self) -> dict[str, Any]:
        wire: dict[str, Any] = {}
        for policy in fields(self):
            value = getattr(self, policy.name)
            if value is None:
                continue
            if policy.name in _POLICY_BOUNDS:
                value = self._whole(policy.name, *_POLICY_BOUNDS[policy.name])
            elif not isinstance(value, bool):
                raise self._wrong(policy.name, "True, False or None")
            first, *rest = policy.name.split("_")
            wire[first + "".join(word.title() for word in rest)] = value
        return wire


@public
@dataclass(slots=True)
class Notification(_Value):
    """A mail to the job's owner."""

    event: str = "jobFinished"
    type: str = "email"

    def json(self) -> dict[str, Any]:
        return {"event": self._one_of("event", ("jobFinished",)), "type": self._one_of("type", ("email",))}


def encode(description: Mapping[str, Any]) -> bytes:
    """A description as the request body that carries it."""
    return json.dumps(description, separators=(",", ":"), allow_nan=False).encode("ascii")


def check_name(name: str, field: str = "name") -> str:
    """Answers the name of a job or workflow, if the service takes it."""
    if not isinstance(name, str) or len(name) >= 512 or not re.fullmatch(r"[a-zA-Z0-9_ ./-]*", name):
        raise wrong(field, "fewer than 512 letters, digits, spaces and - _ . /", name)
    return name


def check_labels(labels: Mapping[str, str], field: str = "labels") -> dict[str, str]:
    """Answers the labels as a dict, if the service takes them."""
    if not isinstance(labels, Mapping):
        raise wrong(field, "a mapping of names to values", labels)
    for name, value in labels.items():
        if not isinstance(name, str) or len(name) >= 512 or not re.fullmatch(r"[a-zA-Z0-9]+", name):
            raise wrong(field, "names of letters and digits only", name)
        if not isinstance(value, str) or len(value) >= 512 or not re.fullmatch(r"[\w./-]+", value):
            raise wrong(f"{field}[{name!r}]", "a string of fewer than 512 letters, digits and _ . / -", value)
    return dict(labels)


def wrong(where: str, expected: str, value: object) -> ValueError:
    """The one form of the sentence: what must be what, and what it was instead."""
    shown = repr(value)
    return ValueError(f"{where} must be {expected}, not {shown if len(shown) <= 100 else shown[:97] + '...'}")
