"""The jobs of warm workers to the JSON that creates them; uploads first the modules that are too large to stand in it.

It creates no jobs. It makes requests, and may be called from any thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...client.certificates import trust_elsewhere
from ...payload.archive import runner_data, start_program
from ...payload.instructions import worker_file
from ...payload.modules import ModuleZip
from ...remote.wire import JOB_FILE, RUNNER_DATA, RUNNER_FILE
from ...run.context import RunContext
from ...run.names import worker_name
from ...run.options import WORKER_LABEL, Options
from ..describe import (
    INLINE_LIMIT,
    describe,
    in_base64,
    modules_name,
    packages_instructions,
    parts_of_runner,
    place_modules,
    place_packages,
    runner_seconds,
)

_OWN = ("PROMINENCE_URL", "PROMINENCE_TOKEN")  # the service's variables that a worker needs as the service sets them


def describe_worker(
    context: RunContext, number: int, options: Options, modules: ModuleZip | None, **settings: Any
) -> dict[str, Any]:
    """Describe a worker, which has some modules from its start; ``settings`` are those of its instructions."""
    seconds = runner_seconds(options)
    packages = place_packages(context, options)
    parts = parts_of_runner(options, modules=False)
    inputs = {RUNNER_FILE: start_program(), RUNNER_DATA: runner_data("worker", *parts)}
    artifacts = [] if packages is None else [{"url": packages.name}]
    settings |= packages_instructions(options, packages)
    brought = None
    if context.client.url.startswith("https:") and (tls := trust_elsewhere(context.client.api.verify)):
        settings["tls"] = tls
    if modules is not None:
        brought = {"name": modules_name(modules), "sha256": modules.sha256}
        sizes = (len(modules.content), *map(len, inputs.values()), len(repr(settings)))
        if sum(map(in_base64, sizes)) > INLINE_LIMIT:
            artifacts.append({"url": place_modules(context, modules)})
        else:
            inputs[modules_name(modules)] = modules.content
    of_calls = {name: value for name, value in options.env.items() if name in _OWN}
    if of_calls:
        settings["env"] = of_calls
        options = replace(options, env={name: value for name, value in options.env.items() if name not in _OWN})
    inputs[JOB_FILE] = worker_file(
        context.run_id, context.key, number, seconds=seconds, reserve=seconds / 20, modules=brought, **settings
    )
    description = {
        "name": worker_name(context.run_id, number),
        **describe(context, options, inputs),
    }
    description["labels"][WORKER_LABEL] = context.run_id
    if artifacts:
        description["artifacts"] = artifacts
    return description
