"""How a call's job is to run: `Options`, checked before anything is sent.

Frozen values only: no HTTP, no threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..client.model import JobPolicies, Resources, Task
from ..client.validation import check_labels
from ..environments.locks import Lock
from ..environments.platforms import target
from ..environments.store import LIMIT, lock_of, locked
from ..images.files import resolved
from ..payload.files import Files, checked_files, checked_outputs, seen_again
from ..payload.instructions import PYTHON
from ..payload.modules import DATA_LIMIT
from .retry import Retries, check_retries, most

RUN_LABEL = "pxrun"
WORKER_LABEL = "pxwarm"  # of jobs that are warm workers
FUNCTION_LABEL = "pxfunction"  # the name of the function that is called
NAME_LABEL = "pxname"  # the executor's ``name``, which several runs may have
MPI_TYPES = ("openmpi", "intelmpi", "mpich")


@dataclass(frozen=True)
class Options:
    """How a call's job is to run; `ProminenceExecutor.with_options` replaces some of them for some calls."""

    image: str = f"python:{PYTHON}-slim"  # or the absolute path of a file of this machine
    runtime: str | None = None
    resources: Resources = field(default_factory=Resources)
    policies: JobPolicies | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    retries: Retries = 0  # more jobs for a call whose job ended without an outcome
    time_limit: float | None = None  # seconds that a call may take
    files: Files = field(default_factory=dict)  # by the name in the call's working directory
    outputs: tuple[str, ...] = ()  # patterns of files that come back
    outputs_dir: str | None = None  # where they go; None: a temporary directory
    task_type: str = "basic"
    procs_per_node: int | None = None
    package_data: float = field(default=DATA_LIMIT, compare=False)  # MB of it at most; modules are packed at submit
    requirements: Lock | None = None  # packages that travel, in the versions that were chosen
    requirements_limit: float = field(default=LIMIT, compare=False)  # MB of them at most

    def changed(self, **changes: Any) -> Options:
        """Return a checked copy with some options replaced; None leaves one as it is.

        Raises:
            ValueError: a value that the service would not take.
            FileNotFoundError: a file that is not there, or an image that is to be a file of this machine.
            RequirementsError: versions that are to be chosen now for ``requirements`` cannot be.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        for name, check in (("files", checked_files), ("outputs", checked_outputs), ("outputs_dir", os.path.abspath)):
            if name in changes:
                changes[name] = check(changes[name])
        if isinstance(changes.get("image"), (str, os.PathLike)):
            changes["image"] = resolved(changes["image"])
        if changes.get("time_limit") == math.inf:
            changes["time_limit"] = None
        platform = changes.pop("requirements_platform", None)
        requirements = changes.pop("requirements", None)
        changed = replace(self, **changes)
        changed.check()
        if requirements is not None or platform is not None:
            changed = replace(changed, requirements=self._locked(requirements, platform))
        return changed

    def _locked(self, requirements: Any, platform: str | None) -> Lock | None:
        """Choose versions, for the machines that these options are for already if nobody says otherwise."""
        if requirements is not None:
            usual = self.requirements.wanted.target.name if self.requirements is not None else None
            return locked(requirements, platform or usual)
        if self.requirements is None:
            raise ValueError("requirements_platform says for which machines requirements= are: there are none")
        return lock_of(replace(self.requirements.wanted, target=target(platform)))

    @cached_property
    def of_worker(self) -> Options:
        """Those of a warm worker that can run such calls: retries and limits are the calls' own."""
        own = self.retries or self.time_limit is not None
        return replace(self, retries=0, time_limit=None) if own else self

    @property
    def most_retries(self) -> int:
        """How many more attempts a call may have."""
        return most(self.retries)

    def check(self) -> None:
        """Raise ValueError for what the service would not take, or TypeError, naming the field."""
        if not self.image or not isinstance(self.image, str):
            raise ValueError(f"image must name a container image, not {self.image!r}")
        if not isinstance(self.resources, Resources):
            raise TypeError(f"resources must be Resources(cpus=..., memory=...), not {self.resources!r}")
        if not isinstance(self.env, Mapping):
            raise TypeError(f"env must be a mapping of names to values, not {self.env!r}")
        check_labels(self.labels)
        for own in (RUN_LABEL, WORKER_LABEL, FUNCTION_LABEL, NAME_LABEL):
            if own in self.labels:
                raise ValueError(f"labels: {own!r} is the executor's own label")
        check_retries(self.retries)
        if self.task_type not in ("basic", *MPI_TYPES):
            raise ValueError(f"task_type must be one of basic, {', '.join(MPI_TYPES)}, not {self.task_type!r}")
        self._check_limit()
        if not isinstance(self.package_data, (int, float)) or not self.package_data >= 0:
            raise ValueError(f"package_data must be 0 MB or more, not {self.package_data!r}")
        if not isinstance(self.requirements_limit, (int, float)) or not self.requirements_limit > 0:
            raise ValueError(f"requirements_limit must be above 0 MB, not {self.requirements_limit!r}")
        self.task("true").json()
        self.resources.json()
        if self.policies is not None:
            self.policies.json()

    def _check_limit(self) -> None:
        limit = self.time_limit
        if limit is None:
            return
        if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not 0 < limit < math.inf:
            raise ValueError(f"time_limit must be seconds above 0, or math.inf for none, not {limit!r}")
        if self.task_type != "basic":
            raise ValueError(
                f"time_limit: calls of task_type {self.task_type!r} cannot have one, since their ranks cannot go on in "
                "new processes; resources.walltime bounds their job, and time_limit=math.inf takes the limit away"
            )

    def fresh(self) -> Options:
        """Return the same with the local files as they are now. FileNotFoundError: one does not exist any more."""
        files = seen_again(self.files)
        return self if files is self.files else replace(self, files=files)

    def task(self, command: str) -> Task:
        """Return the task that runs ``command`` under these options."""
        return Task(
            image=self.image,
            runtime=self.runtime,
            command=command,
            env=dict(self.env),
            type=self.task_type,
            procs_per_node=self.procs_per_node,
        )

    @property
    def needs_job(self) -> bool:
        """Whether its calls need jobs of their own, and cannot go to warm workers."""
        return bool(self.files or self.outputs or self.task_type != "basic")
