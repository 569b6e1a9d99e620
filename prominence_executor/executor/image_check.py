"""What an image has, against this machine: one tiny job, and a table of what it told.

It needs no cloudpickle and no particular Python in the image. It blocks, and knows nothing of runs and their threads.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..client.client import ProminenceClient
from ..client.job import Job
from ..client.model import InputFile, JobPolicies, Resources, Task
from ..errors import JobError, NotFoundError, ProminenceError
from ..images.files import shown
from ..payload.installed import requirements_of_script
from ..public import public
from ..remote import probe
from ..run import diagnosis
from ..run.context import RunContext
from ..run.options import Options
from ..shown import table

__all__ = ["ImageReport", "Row", "check", "check_image"]

Verdict = Literal["same", "differs", "missing there", "only there"]
_PROGRAM = "pxprobe.py"
_MINUTES = 10  # of walltime


class Row(NamedTuple):
    """One line of the table; None where there is no such thing."""

    name: str
    here: str | None
    there: str | None

    @property
    def verdict(self) -> Verdict:
        """How the two versions compare."""
        if self.here is None:
            return "only there"
        if self.there is None:
            return "missing there"
        return "same" if self.here == self.there else "differs"


@public
@dataclass(frozen=True)
class ImageReport:
    """What an image has, as `ProminenceExecutor.check_image` found it. Its text is a table.

    Attributes:
        image: the image's name.
        job_id: the job that looked.
        python: the version of its Python, and of this program's: ``here["python"]``.
        executable: the path of its Python.
        platform: system and C library.
        packages: the versions of its packages by name, as pip spells names: ``foo-bar``; of those that travel with the
            executor's calls (``requirements=``), too.
        here: the same of this program, by these names.
    """

    image: str
    job_id: int | None
    python: str
    executable: str
    platform: str
    machine: str
    packages: dict[str, str]
    here: dict[str, Any] = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether calls of this program can run in the image: the minor versions of Python must be the same."""
        return _minor(self.python) == _minor(self.here["python"])

    def rows(self, verdict: Verdict | None = None) -> list[Row]:
        """Return the packages by name: all, or those with this verdict."""
        here: dict[str, str] = self.here["packages"]
        rows = [Row(name, here.get(name), self.packages.get(name)) for name in sorted({*here, *self.packages})]
        return [row for row in rows if verdict is None or row.verdict == verdict]

    @property
    def differs(self) -> dict[str, tuple[str | None, str | None]]:
        """Packages whose versions are not the same: (here, there)."""
        return {row.name: (row.here, row.there) for row in self.rows("differs")}

    @property
    def missing(self) -> list[str]:
        """Packages that only this machine has."""
        return [row.name for row in self.rows("missing there")]

    @property
    def requirements(self) -> list[str]:
        """What the image lacks of the packages that the running script imports, as ``requirements=`` takes it."""
        there = {name: line for name, line in requirements_of_script().items() if name not in self.packages}
        return [there[name] for name in sorted(there)]

    def _repr_html_(self) -> str:
        here = self.here
        verdict = "same" if self.python == here["python"] else "differs"
        rows = [
            ("Python", here["python"], self.python, verdict if self.usable else "differs: calls cannot run there"),
            ("platform", here["platform"], self.platform, ""),
            *((row.name, row.here or "-", row.there or "-", row.verdict) for row in self.rows()),
        ]
        return table(f"image {self.image} (job {self.job_id})", ("", "here", "in the image", ""), rows)

    def __str__(self) -> str:
        python = "same" if self.python == self.here["python"] else "differs"
        if not self.usable:
            python = "differs: calls cannot run there"
        facts = [
            ("Python", self.here["python"], self.python, python),
            ("", self.here["executable"], self.executable, ""),
            ("platform", self.here["platform"], self.platform, ""),
        ]
        packages = [(row.name, row.here or "-", row.there or "-", row.verdict) for row in self.rows()]
        lines = [("", "here", "in the image", ""), *facts, *packages]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        table = ["  ".join([*(word.ljust(width) for word, width in zip(line, widths, strict=False)), line[3]])
                 for line in lines]  # fmt: skip
        advice = (
            [f"to have travel what this script imports: requirements={lacks}"] if (lacks := self.requirements) else []
        )
        return "\n".join([f"image {self.image} (job {self.job_id})", *(line.rstrip() for line in table), *advice])


def check(
    client: ProminenceClient,
    task: Task,
    name: str,
    *,
    resources: Resources | None = None,
    policies: JobPolicies | None = None,
    labels: dict[str, str] | None = None,
    timeout: float = 0,
) -> ImageReport:
    """Run one job in a task's image and tell what it has; the task's command is replaced.

    ``timeout``: seconds, 0 for none.

    Raises:
        TimeoutError: the job has not ended in time; it is deleted.
        JobError: it failed; without Python in the image a `JobFailedError` that says so.
    """
    task.command = f"python3 {_PROGRAM}"
    job = Job(
        name=name, tasks=[task], policies=policies, labels=labels, client=client,
        resources=resources or Resources(walltime=_MINUTES, disk=1),
        input_files=[InputFile(_PROGRAM, Path(probe.__file__).read_bytes())],
    )  # fmt: skip
    job.create()
    try:
        job.wait(timeout)
    except BaseException:  # Ctrl-C, or the service is away: whoever waits is told that, and not of what follows
        with suppress(ProminenceError):
            _delete(job)
        raise
    if not job.done():
        _delete(job)
        raise TimeoutError(f"the job that checks the image {task.image!r} has not ended after {timeout} s: {job}")
    told = next((line for line in job.stdout().splitlines() if line.startswith(probe.MARK)), None)
    if told is None:
        raise _error(client, job)
    there = json.loads(told.removeprefix(probe.MARK))
    return ImageReport(image=shown(str(task.image)), job_id=job.id, here=probe.probe(), **there)  # type: ignore[no-untyped-call]


def _error(client: ProminenceClient, job: Job) -> JobError:
    return diagnosis.job_error(client.describe_job(job.id or 0), job.stderr())


def _delete(job: Job) -> None:
    with suppress(NotFoundError):  # it has ended meanwhile
        job.delete()


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def check_image(context: RunContext, options: Options, timeout: float) -> ImageReport:
    """Check the image that calls with these options run in; see `ProminenceExecutor.check_image`."""
    image = context.images.place(context.client, options.image, options.runtime)
    task = replace(options, image=image, task_type="basic", procs_per_node=None).task("true")
    name, labels = f"{context.run_id}.check", dict(options.labels)
    report = check(context.client, task, name, policies=options.policies, labels=labels, timeout=timeout)
    travelling = options.requirements.versions if options.requirements is not None else {}
    return replace(report, packages={**report.packages, **travelling})
