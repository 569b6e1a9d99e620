"""Chunks and arrays to the JSON that creates them; uploads first what is too large to stand in it, or shared.

It knows what the service takes and what it costs: an inline input starts at once but comes back in every detailed
answer, an artifact costs a second at the start of a job. So one call's small payload goes inline, and the payload of a
whole array in one object. It creates no jobs and settles no futures.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import remote
from ..client.model import BODY_LIMIT, encode
from ..errors import InvalidRequestError
from ..payload.archive import runner_archive
from ..payload.blob import Blob
from ..payload.bundle import bundle
from ..payload.calls import Payload, calls_file
from ..payload.instructions import array_file, job_file, worker_file
from ..remote.wire import CALLS_FILE, FILES_FILE, JOB_FILE, OUTCOME_FILE, RUNNER_FILE
from ..run.chunk import RUN_LABEL, WORKER_LABEL, Array, Chunk, Options
from ..run.names import MEMBER, worker_name

if TYPE_CHECKING:
    from ..executor.run import Run
    from ..payload.files import Source
    from ..payload.modules import ModuleZip

_SLACK = 16_384  # bytes of a request body left to what is not an input file
_INLINE = 1 << 17  # bytes of a file of the user's that may travel inside the description, or the bundle
_START_FILE = "pxstart.py"
_INDEX = "pxindex"  # the parameter of an array's jobs: their position


class Packer:
    """Describes the jobs of a run. Its methods make requests, and may be called from any thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._shared: dict[str, threading.Lock] = {}  # objects that several jobs use, by name; locked while uploading
        self._present: set[str] = set()

    def array(self, array: Array) -> dict[str, Any]:
        """The workflow of an array, whose payload has been uploaded as one object."""
        run, chunks = self._run, list(array.left.values())
        options = chunks[0].options
        objects = self._placed(array.left.values())
        small = _small(options)
        placed = self._placed_files(options, small)
        content = bundle(((chunk.identity, _wanted(chunk)) for chunk in chunks), _parts(options), small)
        for source in small.values():
            source.check()
        array.bundle = f"pxarray-{array.name}"
        run.client.upload(array.bundle, content, size=content.size)
        instructions = array_file(
            run.run_id, run.key, bundle=(array.bundle, content.sha256()), objects=objects, seconds=_seconds(options),
            **_extras(options, placed, {sha256: f"files/{sha256}" for sha256 in small}),
        )  # fmt: skip
        member = self._described(
            options, f"python3 -S {_START_FILE} ${{{_INDEX}}}", {_START_FILE: _start_program(), JOB_FILE: instructions}
        )
        member |= {
            "name": MEMBER,
            "artifacts": [{"url": name} for name in (array.bundle, *objects.values(), *placed.values())],
        }
        positions = {"name": _INDEX, "values": list(array.left)}
        return {
            "name": array.name,
            "jobs": [member],
            "factories": [{"name": "chunks", "type": "zip", "jobs": [MEMBER], "parameters": [positions]}],
            "labels": {RUN_LABEL: run.run_id},
        }

    def job(self, chunk: Chunk) -> dict[str, Any]:
        """A job of its own; what does not fit into one request is uploaded, the largest first."""
        payload, options = _wanted(chunk), chunk.options
        calls = calls_file(payload)
        calls_name, modules = CALLS_FILE, payload.modules
        modules_name = f"pxmods-{modules.sha256[:32]}" if modules else ""
        runner = runner_archive(*_parts(options))
        room = BODY_LIMIT - _SLACK - _in_base64(len(runner))
        uploads: list[str] = []
        sizes = {"calls": calls.size, "modules": len(modules.content) if modules else 0}
        small = _small(options)
        sizes |= {sha256: source.size for sha256, source in small.items()}
        for what in sorted(sizes, key=lambda item: -sizes[item]):
            if sum(_in_base64(size) for size in sizes.values()) <= room:
                break
            sizes[what] = 0
            if what == "calls":
                calls_name = f"{CALLS_FILE}-{chunk.name.replace('/', '-')}"
                chunk.uploaded |= {calls_name}
                self._run.client.upload(calls_name, calls, size=calls.size)
                uploads.append(calls_name)
            elif what in small:
                del small[what]
            elif modules:
                self._upload_once(modules_name, modules.content)
                uploads.append(modules_name)
        objects = self._placed([chunk])
        placed = self._placed_files(options, small)
        uploads += placed.values()
        instructions = job_file(
            chunk.identity,
            self._run.key,
            calls=(calls_name, calls.sha256()),
            modules=[(modules_name, modules.sha256)] if modules else [],
            objects=objects,
            seconds=_seconds(options),
            **_extras(options, placed, {sha256: _staged_name(sha256) for sha256 in small}),
        )
        inputs = {RUNNER_FILE: runner, JOB_FILE: instructions}
        for sha256, source in small.items():
            inputs[_staged_name(sha256)] = b"".join(source)
            source.check()
        if calls_name not in uploads:
            inputs[calls_name] = calls.tobytes()
        if modules and modules_name not in uploads:
            inputs[modules_name] = modules.content
        description = {"name": chunk.name, **self._described(options, f"python3 {RUNNER_FILE}", inputs)}
        if uploads or objects:
            description["artifacts"] = [{"url": name} for name in (*uploads, *objects.values())]
        size = len(encode(description))
        if size > BODY_LIMIT:
            raise InvalidRequestError(f"the job's description has {size} bytes; the service takes {BODY_LIMIT}")
        return description

    def worker(self, number: int, options: Options, modules: ModuleZip | None, **settings: Any) -> dict[str, Any]:
        """A warm worker, which has some modules from its start; ``settings`` are those of its instructions."""
        run = self._run
        seconds = _seconds(options)
        inputs = {RUNNER_FILE: runner_archive("worker")}
        artifacts = []
        brought = None
        if modules is not None:
            name = f"pxmods-{modules.sha256[:32]}"
            brought = {"name": name, "sha256": modules.sha256}
            if _in_base64(len(modules.content)) + _in_base64(len(inputs[RUNNER_FILE])) > BODY_LIMIT - _SLACK:
                self._upload_once(name, modules.content)
                artifacts = [{"url": name}]
            else:
                inputs[name] = modules.content
        inputs[JOB_FILE] = worker_file(
            run.run_id, run.key, number, seconds=seconds, reserve=seconds / 20, modules=brought, **settings
        )
        description = {
            "name": worker_name(run.run_id, number),
            **self._described(options, f"python3 {RUNNER_FILE}", inputs),
        }
        description["labels"][WORKER_LABEL] = run.run_id
        if artifacts:
            description["artifacts"] = artifacts
        return description

    def _described(self, options: Options, command: str, inputs: dict[str, bytes]) -> dict[str, Any]:
        """What a job and the member of an array have in common."""
        options = replace(options, image=self._run.images.place(self._run.client, options.image))
        description: dict[str, Any] = {
            "tasks": [options.task(command).json()],
            "resources": options.resources.json(),
            "labels": {**options.labels, RUN_LABEL: self._run.run_id},
            "inputs": [{"filename": name, "content": _base64(content)} for name, content in inputs.items()],
            "outputFiles": [OUTCOME_FILE, FILES_FILE] if options.outputs else [OUTCOME_FILE],
        }
        if options.policies is not None and (policies := options.policies.json()):
            description["policies"] = policies
        return description

    def _placed(self, chunks: Collection[Chunk]) -> dict[str, str]:
        """See that the objects are at the service to which these chunks' calls refer; returns names by digest."""
        placed = {}
        for chunk in chunks:
            assert chunk.payload is not None  # noqa: S101  given up only once the job is accepted
            for reference in chunk.payload.objects:
                if reference.sha256 not in placed:
                    once = f"pxonce-{chunk.name.replace('/', '-')}-{reference.sha256[:12]}"
                    name = self._run.objects.place(self._run.client, reference, once if len(chunks) == 1 else None)
                    placed[reference.sha256] = name
                    if name == once:
                        chunk.uploaded |= {name}
        return placed

    def _placed_files(self, options: Options, small: Collection[str]) -> dict[str, str]:
        """See that the content of the user's files is at the service, but for small ones; returns names by digest."""
        run = self._run
        return {
            source.sha256: run.objects.place_file(run.client, source)
            for source in options.files.values()
            if source.sha256 not in small
        }

    def _upload_once(self, name: str, content: bytes) -> None:
        """Upload an object that other jobs of this run use too, unless one of them has."""
        with self._lock:
            uploading = self._shared.setdefault(name, threading.Lock())
        with uploading:
            if name not in self._present:
                self._run.client.upload(name, Blob([content]), size=len(content))
                self._present.add(name)


def _wanted(chunk: Chunk) -> Payload:
    """The chunk's payload without the calls that were cancelled meanwhile."""
    assert chunk.payload is not None  # noqa: S101  given up only once the job is accepted
    wanted = [position for position, call in enumerate(chunk.calls) if not call.done()]
    return chunk.payload.part(range(chunk.size), wanted)


def _parts(options: Options) -> list[str]:
    """What the runner needs for these options."""
    parts = ["files"] if options.files or options.outputs else []
    return [*parts, "mpi"] if options.task_type != "basic" else parts


def _extras(options: Options, placed: Mapping[str, str], small: Mapping[str, str]) -> dict[str, Any]:
    """The runner's instructions for these options: where it finds files of the user's (by digest), what it collects."""
    extras: dict[str, Any] = {}
    if options.files:
        extras["files"] = {
            name: {"sha256": source.sha256, "name": {**placed, **small}[source.sha256]}
            for name, source in options.files.items()
        }
    if options.outputs:
        extras["outputs"] = list(options.outputs)
    if options.task_type != "basic":
        extras["mpi"] = {"nodes": options.resources.json().get("nodes")}
    return extras


def _small(options: Options) -> dict[str, Source]:
    """The files of the user's that may travel inside the description, or the bundle, by their digest."""
    return {source.sha256: source for source in options.files.values() if source.size <= _INLINE}


def _staged_name(sha256: str) -> str:
    """The name under which the service lays down a small file of the user's: harmless, whatever its own name is."""
    return f"pxfile-{sha256[:32]}"


def _seconds(options: Options) -> float:
    """What the runner may take of the walltime, so that it can still say what it has."""
    walltime = float(options.resources.json()["walltime"]) * 60.0
    return walltime - min(60.0, walltime / 20)


@lru_cache(maxsize=1)
def _start_program() -> bytes:
    return (Path(remote.__file__).parent / "bundle_start.py").read_bytes()


def _in_base64(size: int) -> int:
    return (size + 2) // 3 * 4


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
