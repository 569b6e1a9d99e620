"""Job: the description of a job, and what became of it at the service.

A description is made without network and without token; those are asked for by ``create()``, and by every question
about a job that has an id. Nothing here runs in the background: each call asks the service when it is called.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, overload

from ..errors import NotFoundError, OutputNotFoundError
from ..public import public
from .client import ProminenceClient
from .model import Artifact, InputFile, JobPolicies, Notification, Resources, Task
from .status import ENDED, has_ended, is_held
from .submitted import Submitted, Verbs, default_client, known_id, poll_interval, remember
from .validation import BODY_LIMIT, check_labels, check_name, encode, has_control_characters, wrong

__all__ = ["ENDED", "Job", "Submitted", "default_client", "has_ended", "is_held", "poll_interval"]


def _describe(client: ProminenceClient, job_id: int) -> dict[str, Any]:
    # The short form first: the long one repeats the inline inputs, which may be large.
    found = client.list_jobs(ids=[job_id])
    return found[0] if found else client.describe_job(job_id)


_VERBS = Verbs(
    create=ProminenceClient.create_job,
    describe=_describe,
    delete=ProminenceClient.delete_job,
    active=ProminenceClient.list_jobs,
)


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

    What asks the service (all methods but ``json``, and the properties that the service knows) blocks, and raises what
    the methods of `ProminenceClient` do. A description that the service would refuse is a ValueError before it is sent.
    """

    def __init__(
        self,
        id: int | None = None,  # upstream's word
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
        super().__init__(id, client, _VERBS)
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
        """Make the existing job that this item of a list is about; its status counts as just asked."""
        job = cls(int(listed["id"]), client=client)
        remember(job, listed)
        return job

    # -- the description -----------------------------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """Return the JSON that creates this job, checked as a whole; nothing is sent.

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

    # -- its life ------------------------------------------------------------------------------------------------------

    @property
    def execution(self) -> dict[str, Any]:
        """What the worker reports: site, retries, and for each task exitCode (negative: a signal), times, memory."""
        return dict(self._described().get("execution") or {})

    def remove(self) -> None:
        """Take the ended job out of the queue that ``policies.leave_in_queue`` left it in."""
        self.client.remove_job(known_id(self))

    # -- what it wrote -------------------------------------------------------------------------------------------------

    def stdout(self, node: int = 0, offset: int = 0) -> str:
        """Return the standard output so far, from byte ``offset`` on; bytes that are not UTF-8 become U+FFFD.

        Blocks; about a second behind a running job. ``node`` counts from 0.
        """
        return self.client.stdout(known_id(self), node, offset).decode("utf-8", "replace")

    def stderr(self, node: int = 0, offset: int = 0) -> str:
        """Return the standard error so far, from byte ``offset`` on; bytes that are not UTF-8 become U+FFFD.

        Blocks; about a second behind a running job. ``node`` counts from 0.
        """
        return self.client.stderr(known_id(self), node, offset).decode("utf-8", "replace")

    def get_input_file(self, name: str) -> bytes:
        """Return the content of an inline input file, by its base name, as the service has it. Blocks.

        Raises:
            NotFoundError: the job has none of that name.
        """
        for item in self._described().get("inputs") or ():
            if item.get("filename") == name:
                return base64.b64decode(item["content"])
        raise NotFoundError(f"job {self.id} has no input file {name!r}")

    @overload
    def get_output_file(self, name: str, save_as: None = None) -> bytes: ...
    @overload
    def get_output_file(self, name: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_output_file(self, name: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """Return an output file, by the name given in ``output_files``, or stream it to the path ``save_as``.

        Raises:
            OutputNotFoundError: the job has no output of that name, or has not uploaded it (yet).
            TransferError: it did not arrive whole; nothing is at ``save_as`` then.
        """
        return self._download("outputFiles", name, save_as)

    @overload
    def get_output_directory(self, name: str, save_as: None = None) -> bytes: ...
    @overload
    def get_output_directory(self, name: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_output_directory(self, name: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """Return an output directory as a .tgz archive; otherwise as ``get_output_file``."""
        return self._download("outputDirs", name, save_as)

    def execute(self, command: Sequence[str]) -> bytes:
        """Run a command inside the running job, and return its output; blocks until it has ended."""
        return self.client.execute(known_id(self), command)

    @overload
    def get_snapshot(self, path: str, save_as: None = None) -> bytes: ...
    @overload
    def get_snapshot(self, path: str, save_as: str | os.PathLike[str]) -> None: ...
    def get_snapshot(self, path: str, save_as: str | os.PathLike[str] | None = None) -> bytes | None:
        """Return a .tgz archive of a file or directory of the running job as it is now, or stream it to ``save_as``.

        Blocks until it is made and has come.

        Raises:
            InvalidRequestError: the job does not run, or has no such path.
            TransferError: it did not arrive whole; nothing is at ``save_as`` then.
        """
        self.client.create_snapshot(known_id(self), path)
        return self._fetch(self.client.snapshot_url(known_id(self)), save_as)

    def _download(self, kind: str, name: str, save_as: str | os.PathLike[str] | None) -> bytes | None:
        described = self.client.describe_job(known_id(self))  # now: its URLs are fresh
        for item in described.get(kind) or ():
            if isinstance(item, dict) and item.get("name") == name:
                break
        else:
            raise OutputNotFoundError(f"job {self.id} declares no output {name!r}")
        if not item.get("url"):
            raise OutputNotFoundError(f"job {self.id} ({described.get('status')}) has not uploaded {name!r}")
        try:
            return self._fetch(item["url"], save_as)
        except NotFoundError as error:
            raise OutputNotFoundError(f"output {name!r} of job {self.id} is gone", error.status_code) from error

    def _fetch(self, url: str, save_as: str | os.PathLike[str] | None) -> bytes | None:
        if save_as is None:
            return self.client.download(url)
        self.client.download(url, save_as)
        return None

    def _facts(self, seen: Mapping[str, Any]) -> list[tuple[str, object]]:
        tasks = [(task.image, task.command) for task in self.tasks]
        tasks = tasks or [(task.get("image"), task.get("cmd")) for task in seen.get("tasks") or ()]
        return super()._facts(seen) + [
            ("task", f"{image}: {command}" if command else f"{image}") for image, command in tasks
        ]

    def _described(self) -> dict[str, Any]:
        """Return the job in detail; it is asked for again until it has ended, since nothing changes then."""
        if self._details is None or not has_ended(self._details):
            self._details = self.client.describe_job(known_id(self))
        return self._details


class _Described(Protocol):
    def json(self) -> dict[str, Any]: ...


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
        if bad or has_control_characters(path):
            raise wrong(f"Job.{field}", "paths below the job's directory that end in a name", path)
    return list(paths)


def _check_collisions(wire: Mapping[str, Any]) -> None:
    """Refuse what would be stored under one name: the service keeps the last of them and says nothing."""
    inputs = [item["filename"] for item in wire["inputs"]]
    artifacts = [item["url"].partition("?")[0].rpartition("/")[2] for item in wire["artifacts"]]
    outputs = [path.rpartition("/")[2] for path in wire["outputFiles"]]
    outputs += [path.rpartition("/")[2] + ".tgz" for path in wire["outputDirs"]]
    for field, names in (("input_files and artifacts", inputs + artifacts), ("output_files", outputs)):
        for name in names:
            if names.count(name) > 1:
                raise wrong(f"Job.{field}", "paths with different base names, under which they are stored", name)
