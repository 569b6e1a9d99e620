"""Chunks and arrays to the JSON that creates them; uploads first what is too large for it, or shared.

One call's small payload goes inline, the payload of a whole array in one object. It creates no jobs and settles no
futures; its methods make requests, and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ...client.validation import BODY_LIMIT, encode
from ...errors import InvalidRequestError
from ...payload.archive import runner_data, start_program
from ...payload.bundle import array_bundle
from ...payload.calls import Payload, calls_file
from ...payload.instructions import array_file, job_file
from ...remote.wire import CALLS_FILE, JOB_FILE, RUNNER_DATA, RUNNER_FILE
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.environments import Packages
from ...run.names import MEMBER, function_word
from ...run.options import RUN_LABEL
from ...run.stored import how_to_fetch, told
from ..describe import (
    INLINE_LIMIT,
    describe,
    extra_instructions,
    in_base64,
    modules_name,
    parts_of_runner,
    place_files,
    place_modules,
    place_packages,
    runner_seconds,
    small_files,
)
from .array import Array
from .table import JobTable

_MODULES_IN_BUNDLE = 1 << 20  # bytes of modules that go with each array; others are uploaded once
_INDEX = "pxindex"  # the parameter of an array's jobs: their position


class JobDescriber:
    """Describes the jobs and arrays of a run."""

    def __init__(self, context: RunContext, table: JobTable) -> None:
        self._context = context
        self._table = table

    def array(self, array: Array) -> dict[str, Any]:
        """Describe the workflow of an array, whose payload has been uploaded as one object."""
        context, chunks = self._context, list(array.left.values())
        options = chunks[0].options
        objects = self._placed(chunks)
        packages = place_packages(context, options, sum(chunk.size == 1 for chunk in chunks))
        small = small_files(options)
        placed = place_files(context, options, small)
        modules = {item.sha256: item for chunk in chunks if (item := _payload(chunk).modules)}
        apart = {
            sha256: place_modules(context, item)
            for sha256, item in modules.items()
            if len(item.content) > _MODULES_IN_BUNDLE
        }
        results = {result for chunk in chunks for result in _payload(chunk).results}
        parts = parts_of_runner(options, bool(modules), bool(results))
        jobs = ((chunk.identity, _wanted(chunk)) for chunk in chunks)
        content, start, size = array_bundle(jobs, parts, small, apart, told(context, results))
        for source in small.values():
            source.check()
        array.bundle = f"pxarray-{array.name}"
        context.client.upload(array.bundle, content, size=content.size)
        sha256 = content.sha256()
        instructions = array_file(
            context.run_id,
            context.key,
            bundle=(array.bundle, sha256),
            objects=objects,
            seconds=runner_seconds(options),
            **extra_instructions(options, {**placed, **{sha256: f"files/{sha256}" for sha256 in small}}, packages),
            **(how_to_fetch(context, results) if results else {}),
        )
        inputs = {RUNNER_FILE: start_program((array.bundle, sha256, start, size)), JOB_FILE: instructions}
        function = function_word(_payload(chunk).name for chunk in chunks)
        member = describe(context, options, inputs, f"${{{_INDEX}}}", function=function)
        member["name"] = MEMBER
        member["artifacts"] = [
            {"url": name}
            for name in (array.bundle, *apart.values(), *objects.values(), *placed.values(), *_names(packages))
        ]
        positions = {"name": _INDEX, "values": list(array.left)}
        return {
            "name": array.name,
            "jobs": [member],
            "factories": [{"name": "chunks", "type": "zip", "jobs": [MEMBER], "parameters": [positions]}],
            "labels": {RUN_LABEL: context.run_id},
        }

    def job(self, chunk: Chunk) -> dict[str, Any]:
        """Describe a job of its own; what does not fit into one request is uploaded, the largest first."""
        context, payload, options = self._context, _wanted(chunk), chunk.options
        calls, modules, results = calls_file(payload), payload.modules, payload.results
        packages = place_packages(context, options, int(chunk.size == 1))
        runner = {
            RUNNER_FILE: start_program(),
            RUNNER_DATA: runner_data(*parts_of_runner(options, modules is not None, bool(results))),
        }
        small = small_files(options)
        sizes = {"calls": calls.size, "modules": len(modules.content) if modules else 0}
        sizes |= {sha256: source.size for sha256, source in small.items()}
        apart = _too_large(sizes, INLINE_LIMIT - sum(in_base64(len(content)) for content in runner.values()))
        calls_name, names_of_modules = CALLS_FILE, [modules_name(modules)] if modules else []
        artifacts: list[str] = []
        if "calls" in apart:
            calls_name = f"{CALLS_FILE}-{chunk.name.replace('/', '-')}"
            self._table.uploaded(chunk, calls_name)
            context.client.upload(calls_name, calls, size=calls.size)
            artifacts.append(calls_name)
        if modules and "modules" in apart:
            artifacts.append(place_modules(context, modules))
        small = {sha256: source for sha256, source in small.items() if sha256 not in apart}
        objects = self._placed([chunk])
        placed = place_files(context, options, small)
        instructions = job_file(
            chunk.identity,
            context.key,
            calls=(calls_name, calls.sha256()),
            modules=[(name, modules.sha256) for name in names_of_modules if modules],
            objects=objects,
            seconds=runner_seconds(options),
            **extra_instructions(options, {**placed, **{sha256: _staged_name(sha256) for sha256 in small}}, packages),
            **({"results": told(context, results), **how_to_fetch(context, results)} if results else {}),
        )
        inputs = {**runner, JOB_FILE: instructions}
        for sha256, source in small.items():
            inputs[_staged_name(sha256)] = b"".join(source)
            source.check()
        if "calls" not in apart:
            inputs[calls_name] = calls.tobytes()
        if modules and "modules" not in apart:
            inputs[modules_name(modules)] = modules.content
        description = {"name": chunk.name, **describe(context, options, inputs, function=function_word([payload.name]))}
        artifacts += [*placed.values(), *objects.values(), *_names(packages)]
        if artifacts:
            description["artifacts"] = [{"url": name} for name in artifacts]
        size = len(encode(description))
        if size > BODY_LIMIT:
            raise InvalidRequestError(f"the job's description has {size} bytes; the service takes {BODY_LIMIT}")
        return description

    def _placed(self, chunks: Collection[Chunk]) -> dict[str, str]:
        """See that the objects are at the service to which these chunks' calls refer; return names by digest."""
        objects, client = self._context.objects, self._context.client
        placed: dict[str, str] = {}
        for chunk in chunks:
            for reference in _payload(chunk).objects:
                if reference.sha256 not in placed:
                    once = f"pxonce-{chunk.name.replace('/', '-')}-{reference.sha256[:12]}"
                    name = objects.place(client, reference, once if len(chunks) == 1 else None)
                    placed[reference.sha256] = name
                    if name == once:
                        self._table.uploaded(chunk, name)
        return placed


def _too_large(sizes: dict[str, int], room: int) -> set[str]:
    """Choose what is to be uploaded, the largest first, so that the rest fits into the room when it is in base64."""
    sizes, apart = dict(sizes), set()
    for what in sorted(sizes, key=lambda item: -sizes[item]):
        if sum(in_base64(size) for size in sizes.values()) <= room:
            break
        sizes[what] = 0
        apart.add(what)
    return apart


def _names(packages: Packages | None) -> list[str]:
    return [] if packages is None else [packages.name]


def _payload(chunk: Chunk) -> Payload:
    assert chunk.payload is not None  # noqa: S101  given up only once the job is accepted
    return chunk.payload


def _wanted(chunk: Chunk) -> Payload:
    """Return the chunk's payload without the calls that were cancelled meanwhile."""
    return _payload(chunk).part(range(chunk.size), chunk.unsettled())


def _staged_name(sha256: str) -> str:
    """Name the file under which the service lays down a small one of the user's: harmless, whatever its own name is."""
    return f"pxfile-{sha256[:32]}"
