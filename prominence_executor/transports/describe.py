"""What the descriptions of all jobs have in common: the task, inputs inline, and what is uploaded before.

It knows what the service takes and what it costs: an inline input starts at once but comes back in every detailed
answer, an artifact costs a second at the start of a job. It creates no jobs and settles no futures. Uploading
blocks.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..client.validation import BODY_LIMIT
from ..payload.blob import Blob
from ..payload.files import FileSource
from ..payload.modules import ModuleZip
from ..remote.wire import FILES_FILE, OUTCOME_FILE, RUNNER_FILE
from ..run.context import RunContext
from ..run.environments import Packages
from ..run.objects import MODULES_PREFIX
from ..run.options import FUNCTION_LABEL, NAME_LABEL, RUN_LABEL, Options

INLINE_LIMIT = BODY_LIMIT - 16_384  # bytes of inputs in base64: the rest of a request's body is the description
_INLINE_FILE = 1 << 17  # bytes of a file of the user's that may travel inside the description, or the bundle


def describe(
    context: RunContext, options: Options, inputs: Mapping[str, bytes], *words: str, function: str = ""
) -> dict[str, Any]:
    """Describe a job, or the member of an array, without its name; uploads its image if that is a local file.

    Args:
        words: what the runner is told.
        function: what `function_word` calls what it runs. It stands in a label, by which jobs are found, and behind
            the command, where lists of jobs show it: the labels they do not.
    """
    image = context.images.place(context.client, options.image, options.runtime)
    if context.images.is_slow(image, options.runtime):
        text = (
            "run %s: the image %s is an archive, which singularity converts anew for every job, in tens of seconds; "
            "a .sif file is used as it is: apptainer build IMAGE.sif docker-archive://IMAGE.tar"
        )
        context.log.warning(text, context.run_id, options.image)
    options = replace(options, image=image)
    description: dict[str, Any] = {
        "tasks": [options.task(" ".join(filter(None, ("python3", RUNNER_FILE, *words, function)))).json()],
        "resources": options.resources.json(),
        "labels": {**options.labels, **_labels(context, function)},
        "inputs": [
            {"filename": name, "content": base64.b64encode(content).decode("ascii")} for name, content in inputs.items()
        ],
        "outputFiles": [OUTCOME_FILE, FILES_FILE] if options.outputs else [OUTCOME_FILE],
    }
    if options.policies is not None and (policies := options.policies.json()):
        description["policies"] = policies
    return description


def _labels(context: RunContext, function: str) -> dict[str, str]:
    labels = {NAME_LABEL: context.name or "", FUNCTION_LABEL: function, RUN_LABEL: context.run_id}
    return {name: value for name, value in labels.items() if value}


def parts_of_runner(options: Options, modules: bool, results: bool = False) -> list[str]:
    """Name what the runner needs for these options, for modules of the user's own, and to fetch results."""
    parts = ["files"] if options.files or options.outputs else []
    parts += ["limits"] if options.time_limit is not None else []
    parts += ["modules"] if modules else []
    parts += ["results"] if results else []
    parts += ["packages"] if options.requirements is not None else []
    return [*parts, "mpi"] if options.task_type != "basic" else parts


def extra_instructions(options: Options, names: Mapping[str, str], packages: Packages | None) -> dict[str, Any]:
    """Tell the runner where it finds files (``names`` are by digest) and packages, and what it collects."""
    extras = packages_instructions(options, packages)
    if options.files:
        extras["files"] = {
            name: {"sha256": source.sha256, "name": names[source.sha256]} for name, source in options.files.items()
        }
    if options.outputs:
        extras["outputs"] = list(options.outputs)
    if options.time_limit is not None:
        extras["limit"] = options.time_limit
    if options.task_type != "basic":
        extras["mpi"] = {"nodes": options.resources.json().get("nodes")}
    return extras


def packages_instructions(options: Options, packages: Packages | None) -> dict[str, Any]:
    """Tell the runner where it finds packages, if there are any, and for which machines they are."""
    if packages is None or options.requirements is None:
        return {}
    target = options.requirements.wanted.target
    facts = {"name": packages.name, "sha256": packages.sha256, "machine": target.machine, "glibc": target.glibc}
    return {"packages": facts}


def place_packages(context: RunContext, options: Options, single: int = 0) -> Packages | None:
    """See that the packages of ``requirements=`` are at the service, if there are any.

    ``single``: how many jobs are being described that need them for one call alone.
    """
    if options.requirements is None:
        return None
    packages = context.environments.place(context.client, options.requirements, options.requirements_limit)
    if single and (advice := context.environments.advice(packages, single)):
        context.log.warning("run %s: %s", context.run_id, advice)
    return packages


def small_files(options: Options) -> dict[str, FileSource]:
    """Find the files of the user's that may travel inside the description, or the bundle, by their digest."""
    return {source.sha256: source for source in options.files.values() if source.size <= _INLINE_FILE}


def place_files(context: RunContext, options: Options, small: Collection[str]) -> dict[str, str]:
    """See that the content of the user's files is at the service, but for small ones; return names by digest."""
    return {
        source.sha256: context.objects.place_file(context.client, source)
        for source in options.files.values()
        if source.sha256 not in small
    }


def modules_name(modules: ModuleZip) -> str:
    """Name the file, or object, in which modules travel."""
    return f"{MODULES_PREFIX}{modules.sha256[:32]}"


def place_modules(context: RunContext, modules: ModuleZip) -> str:
    """See that modules are at the service, for all jobs that need them; return the object's name."""
    name, content = modules_name(modules), modules.content

    def upload() -> None:
        context.client.upload(name, Blob([content]), size=len(content))

    context.uploads.ensure(context.client, name, len(content), upload)
    return name


def runner_seconds(options: Options) -> float:
    """Return the seconds of the walltime that the runner may take, so that it can still say what it has."""
    walltime = float(options.resources.json()["walltime"]) * 60.0
    return walltime - min(60.0, walltime / 20)


def in_base64(size: int) -> int:
    """Return the characters that so many bytes become."""
    return (size + 2) // 3 * 4
