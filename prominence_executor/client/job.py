"""Job: the description of a job, and what became of it at the service. (And what jobs and workflows have in common.)

A description is made without network and without token; those are asked for by ``create()``, and by every question
about a job that has an id. Nothing here runs in the background: each call asks the service when it is called.
"""

from __future__ import annotations

import base64
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, overload

from ..errors import InvalidRequestError, NotFoundError, OutputNotFoundError
from ..public import public
from .client import ProminenceClient
from .model import (
    BODY_LIMIT,
    Artifact,
    InputFile,
    JobPolicies,
    Notification,
    Resources,
    Task,
    check_labels,
    check_name,
    encode,
    wrong,
)

__all__ = ["ENDED", "Job", "Submitted", "default_client", "poll_interval"]

ENDED = frozenset({"completed", "failed", "killed", "deleted"})
"""The status words after which nothing happens any more. A word that is not known counts as not ended."""

_FRESH = 1.0  # seconds for which ``status`` answers what it answered last
_jitter = random.SystemRandom()  # it has no state: neither the program's own, nor one that a fork would copy
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Submitted:
    """What is sent to the service by ``create()`` and ends there some time: a job or a workflow."""

    name: str | None

    def __init__(self, id: int | None, client: ProminenceClient | None) -> None:  # noqa: A002
        self._id = id
        self._given_client = client
        self._seen: dict[str, Any] = {}
        self._seen_at = float("-inf")

    @property
    def id(self) -> int | None:
        """The service's number; None before ``create()``."""
        return self._id

    def wait(self, timeout: float = 0) -> None:
        """Blocks until it has ended, or ``timeout`` seconds are over: then ``done()`` is still False.

        0 waits for ever. Asks often at first and ever more seldom, but at least every 30 s.
        """
        if timeout < 0:
            raise wrong("timeout", "0 (for ever) or a number of seconds", timeout)
        began = time.monotonic()
        while True:
            self.refresh()
            elapsed = time.monotonic() - began
            if self.done() or 0 < timeout <= elapsed:
                return
            pause = poll_interval(elapsed)
            time.sleep(min(pause, timeout - elapsed) if timeout else pause)

    def done(self) -> bool:
        """Whether it has ended, in whatever way. Does not ask when it was asked within the last second."""
        return self.status in ENDED

    @property
    def status(self) -> str | None:
        """The service's word (idle, running, completed, ...); at most a second old. None before ``create()``."""
        if self._id is None:
            return None
        if self._seen.get("status") not in ENDED and time.monotonic() - self._seen_at >= _FRESH:
            self.refresh()
        return self._seen.get("status")

    @property
    def status_reason(self) -> str | None:
        """The service's explanation of the status, if it has one."""
        return self._seen.get("statusReason") if self.status else None

    @property
    def events(self) -> dict[str, int]:
        """``createTime``, ``startTime``, ``endTime`` in seconds since the epoch, as far as they have happened."""
        return dict(self._seen.get("events", {})) if self.status else {}

    def refresh(self) -> None:
        """Asks the service for the status now.

        Raises:
            NotFoundError: there is no such thing, or it is somebody else's.
        """
        self._seen = self._look()
        self._seen_at = time.monotonic()

    def _look(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def _client(self) -> ProminenceClient:
        if self._given_client is None:
            self._given_client = default_client()
        return self._given_client

    def _number(self) -> int:
        if self._id is None:
            raise InvalidRequestError(f"This {type(self).__name__} has no id yet: create() it first")
        return self._id

    def _check_new(self) -> None:
        if self._id is not None:
            raise InvalidRequestError(f"This {type(self).__name__} was created already: it is number {self._id}")

    def __repr__(self) -> str:
        number = "not created" if self._id is None else str(self._id)
        name = repr(self.name) if self.name else None
        return f"<{' '.join(filter(None, [type(self).__name__, number, name, self._seen.get('status')]))}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} cannot be pickled: it belongs to a client; pass its id")


@public
class Job(Submitted):
    """A job; every attribute may be changed until ``create()``.

    Attributes:
        name: letters, digits, spaces and - _ . / only; need not be unique.
        tasks: run one after the other.
        resources: by default one CPU, 1 GB of memory, 10 GB of disk, 30 days.
        input_files, artifacts: what lies in the job's directory when it starts.
        output_files, output_directories: paths below the job's directory, kept after the job under their base names;
            a job that does not leave them all behind fails. A directory is kept as .tgz.
        labels: names of letters and digits, values of letters, digits and _ . / -; jobs can be listed by them.

    ``Job(id=n)`` is an existing job: it can be asked everything, but its description stays empty here.
    """

    def __init__(
        self,
        id: int | None = None,  # noqa: A002  (upstream's word)
        *,
        name: str | None = None,
        tasks: Iterable[Task] = (),
        resources: Resources | None = None,
        input_files: Iterable[InputFile] = (),
        artifacts: Iterable[Artifact] = (),
        output_files: Iterable[str] = (),
        output_directories: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        policies: JobPolicies | None = None,
        notifications: Iterable[Notification] = (),
        client: ProminenceClient | None = None,
    ) -> None:
        super().__init__(id, client)
        self.name = name
        self.tasks = list(tasks)
        self.resources = Resources() if resources is None else resources
        self.input_files = list(input_files)
        self.artifacts = list(artifacts)
        self.output_files = list(output_files)
        self.output_directories = list(output_directories)
        self.labels = dict(labels or {})
        self.policies = JobPolicies() if policies is None else policies
        self.notifications = list(notifications)
        self._details: dict[str, Any] | None = None

    @classmethod
    def of_listing(cls, listed: Mapping[str, Any], client: ProminenceClient) -> Job:
        """The existing job that this item of a list is about; its status counts as just asked."""
        job = cls(int(listed["id"]), name=listed.get("name") or None, client=client)
        job._seen, job._seen_at = dict(listed), time.monotonic()
        return job

    # -- the description -----------------------------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """The JSON that creates this job, checked as a whole; nothing is sent.

        Raises:
            ValueError: a value, a combination of values, or the size of the whole is one that the service cannot run.
            OSError: an input file without content cannot be read.
        """
        wire: dict[str, Any] = {}
        if self.name:
            wire["name"] = check_name(self.name, "Job.name")
        wire["tasks"] = _listed("tasks", self.tasks, Task)
        (wire["resources"],) = _listed("resources", [self.resources], Resources)
        _check_tasks(wire["tasks"], wire["resources"])
        (policies,) = _listed("policies", [self.policies], JobPolicies)
        optional = {
            "inputs": _listed("input_files", self.input_files, InputFile),
            "artifacts": _listed("artifacts", self.artifacts, Artifact),
            "outputFiles": _checked_paths("output_files", self.output_files),
            "outputDirs": _checked_paths("output_directories", self.output_directories),
            "labels": check_labels(self.labels, "Job.labels"),
            "policies": policies,
            "notifications": _listed("notifications", self.notifications, Notification),
        }
        _check_collisions(optional)
        wire.update((key, value) for key, value in optional.items() if value)
        if (size := len(encode(wire))) > BODY_LIMIT:
            raise ValueError(
                f"Job.input_files must leave the whole description within the {BODY_LIMIT} bytes that the service "
                f"reads, not make it {size} (files count in base64); upload the larger ones and use Artifacts"
            )
        return wire

    def to_dict(self) -> dict[str, Any]:
        """Answers what ``json()`` answers; it is upstream's name."""
        return self.json()

    # -- its life ------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Sends the job to the service, once; from then on it has an id.

        Raises:
            ValueError: see ``json()``; nothing was sent.
            ServiceUnavailableError: no answer. If its ``request_sent`` is True the job may have come to be all the
                same: look for it by name or label before trying again.
        """
        self._check_new()
        self._id = self._client.create_job(self.json())

    @property
    def execution(self) -> dict[str, Any]:
        """What the worker reports: site, retries, and for each task exitCode (negative: a signal), times, memory."""
        return dict(self._described().get("execution", {}))

    def _look(self) -> dict[str, Any]:
        # The short form first: the long one repeats the inline inputs, which may be large.
        found = self._client.list_jobs(ids=[self._number()])
        seen = found[0] if found else self._client.describe_job(self._number())
        if self.name is None:
            self.name = seen.get("name") or None
        return seen

    def delete(self) -> None:
        """Ends the job. NotFoundError: it has ended already."""
        self._client.delete_job(self._number())
        self._seen_at = float("-inf")

    def remove(self) -> None:
        """Takes the ended job out of the queue that ``policies.leave_in_queue`` left it in."""
        self._client.remove_job(self._number())

    # -- what it wrote -------------------------------------------------------------------------------------------------

    def stdout(self, node: int = 0, offset: int = 0) -> str:
        """The standard output so far, from byte ``offset`` on; bytes that are not UTF-8 become U+FFFD."""
        return self._client.stdout(self._number(), node, offset).decode("utf-8", "replace")

    def stderr(self, node: int = 0, offset: int = 0) -> str:
        """The standard error so far, from byte ``offset`` on; bytes that are not UTF-8 become U+FFFD."""
        return self._client.stderr(self._number(), node, offset).decode("utf-8", "replace")

    def get_input_file(self, name: str) -> bytes:
        """The content of an inline input file, by its base name, as the service has it."""
        for item in self._described().get("inputs", []):
            if item.get("filename") == name:
                return base64.b64decode(item["content"])
        raise NotFoundError(f"job {self._id} has no input file {name!r}")

    @overload
    def get_output_file(self, name: str, save_as: None = None) -> bytes: ...
    @overload
    def get_output_file(self, name: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_output_file(self, name: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """An output file, under the name given in ``output_files``: its bytes, or streamed to the path ``save_as``.

        Raises:
            OutputNotFoundError: there is none of that name, or the job has not, or not yet, left it behind.
            TransferError: it did not arrive whole; nothing is at ``save_as`` then.
        """
        return self._download("outputFiles", name, save_as)

    @overload
    def get_output_directory(self, name: str, save_as: None = None) -> bytes: ...
    @overload
    def get_output_directory(self, name: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_output_directory(self, name: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """An output directory as a .tgz archive; otherwise as ``get_output_file``."""
        return self._download("outputDirs", name, save_as)

    def execute(self, command: Sequence[str]) -> bytes:
        """Runs a command inside the running job; answers its output."""
        return self._client.execute(self._number(), command)

    @overload
    def get_snapshot(self, path: str, save_as: None = None) -> bytes: ...
    @overload
    def get_snapshot(self, path: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_snapshot(self, path: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """A file or directory of the running job as it is now: a .tgz archive, or streamed to the path ``save_as``."""
        self._client.create_snapshot(self._number(), path)
        return self._fetch(self._client.snapshot_url(self._number()), save_as)

    def _download(self, kind: str, name: str, save_as: str | os.PathLike[str] | None) -> bytes | None:
        described = self._client.describe_job(self._number())  # now: its URLs are fresh
        for item in described.get(kind, []):
            if item.get("name") == name:
                break
        else:
            raise OutputNotFoundError(f"job {self._id} declares no output {name!r}")
        if not item.get("url"):
            raise OutputNotFoundError(f"job {self._id} ({described.get('status')}) has not uploaded {name!r}")
        try:
            return self._fetch(item["url"], save_as)
        except NotFoundError as error:
            raise OutputNotFoundError(f"output {name!r} of job {self._id} is gone", error.status_code) from error

    def _fetch(self, url: str, save_as: str | os.PathLike[str] | None) -> bytes | None:
        if save_as is None:
            return self._client.download(url)
        self._client.download(url, save_as)
        return None

    def _described(self) -> dict[str, Any]:
        """The job in detail; asked for once more until it has ended, since nothing changes then."""
        if self._details is None or self._details.get("status") not in ENDED:
            self._details = self._client.describe_job(self._number())
        return self._details


class _Described(Protocol):
    def json(self) -> dict[str, Any]: ...


_clients: dict[tuple[object, ...], ProminenceClient] = {}
_clients_lock = threading.Lock()


def default_client() -> ProminenceClient:
    """The client that the environment describes: one for all jobs, made when the first of them needs it."""
    values = [os.environ.get(f"PROMINENCE_{name}") for name in ("URL", "TOKEN", "SSL_VERIFY")]
    key = (values[0], hash(values[1]), values[2])
    with _clients_lock:
        if key not in _clients:
            _clients[key] = ProminenceClient()
        return _clients[key]


def poll_interval(elapsed: float) -> float:
    """Seconds to wait before asking again after ``elapsed`` seconds: a tenth of them, from 0.2 up to 30, and jitter."""
    return min(30.0, max(0.2, elapsed / 10)) * _jitter.uniform(0.8, 1.0)


def _listed(field: str, values: Iterable[_Described], kind: type[_Described]) -> list[dict[str, Any]]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise wrong(f"Job.{field}", f"a list of {kind.__name__}", values)
    for value in values:
        if not isinstance(value, kind):
            raise wrong(f"Job.{field}", f"made of {kind.__name__}", value)
    return [value.json() for value in values]


def _check_tasks(tasks: list[dict[str, Any]], resources: dict[str, Any]) -> None:
    if all(task.get("type") == "sidecar" for task in tasks):
        raise wrong("Job.tasks", "a list with at least one task that is not a sidecar", tasks)
    for task in tasks:
        processes = task.get("procsPerNode", 0)
        if processes > resources.get("cpus", processes):
            raise wrong("Task.procs_per_node", f"at most the number of cpus, {resources['cpus']}", processes)


def _checked_paths(field: str, paths: Iterable[str]) -> list[str]:
    if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):
        raise wrong(f"Job.{field}", "a list of paths", paths)
    for path in paths:
        bad = not isinstance(path, str) or path.startswith("/") or path.rpartition("/")[2] in ("", ".", "..")
        if bad or _CONTROL.search(path):
            raise wrong(f"Job.{field}", "paths below the job's directory that end in a name", path)
    return list(paths)


def _check_collisions(wire: Mapping[str, Any]) -> None:
    """Refuses what would be stored under one name: the service keeps the last of them and says nothing."""
    inputs = [item["filename"] for item in wire["inputs"]]
    artifacts = [item["url"].partition("?")[0].rpartition("/")[2] for item in wire["artifacts"]]
    outputs = [path.rpartition("/")[2] for path in wire["outputFiles"]]
    outputs += [path.rpartition("/")[2] + ".tgz" for path in wire["outputDirs"]]
    for field, names in (("input_files and artifacts", inputs + artifacts), ("output_files", outputs)):
        for name in names:
            if names.count(name) > 1:
                raise wrong(f"Job.{field}", "different in their base names, under which they are stored", name)
