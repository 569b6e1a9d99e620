"""A directory as a job has it, for tests of the remote side without a service around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from variables import unmeasured

from prominence_executor.payload.archive import runner_data, start_program
from prominence_executor.payload.calls import Identity, Payload, calls_file
from prominence_executor.payload.instructions import job_file
from prominence_executor.payload.outcomes import OutcomeFile, read_outcomes
from prominence_executor.payload.pickling import Epilogue, dumps
from prominence_executor.payload.results import unpack
from prominence_executor.remote.wire import RUNNER_DATA, RUNNER_FILE

KEY = bytes(range(32))
IDENTITY = Identity("run-1", 7, 1)


class JobDirectory:
    """The inputs of a job, and what came of running it there."""

    command = (RUNNER_FILE,)  # behind the interpreter

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(
        self,
        function: Callable[..., Any],
        *calls: tuple[Any, ...],
        initializer: Callable[[], None] | None = None,
        parts: tuple[str, ...] = (),
        seconds: float | None = None,
        objects: dict[str, bytes] | None = None,
        **extras: Any,
    ) -> None:
        arguments = [dumps((call, {}), {}).blob for call in calls]
        calls_blob = calls_file(Payload(dumps((function, initializer, (), Epilogue())).blob, list(arguments)))
        self.folder.mkdir(exist_ok=True)
        names = {sha256: f"pxobj-{sha256}" for sha256 in objects or {}}
        for sha256, content in (objects or {}).items():
            (self.folder / names[sha256]).write_bytes(content)
        (self.folder / RUNNER_FILE).write_bytes(start_program())
        (self.folder / RUNNER_DATA).write_bytes(runner_data(*parts))
        (self.folder / "pxcalls").write_bytes(calls_blob.tobytes())
        (self.folder / "pxjob.json").write_bytes(
            job_file(
                IDENTITY, KEY, calls=("pxcalls", calls_blob.sha256()), modules=[], objects=names, seconds=seconds,
                **extras,
            )
        )  # fmt: skip

    def run(self, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *self.command],
            cwd=self.folder, env=unmeasured(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def outcomes(self, key: bytes = KEY, identity: Identity = IDENTITY) -> OutcomeFile:
        with (self.folder / "pxoutcome").open("rb") as file:
            return read_outcomes(file, key, identity)

    def value(self, call: int = 0) -> Any:
        with (self.folder / "pxoutcome").open("rb") as file:
            outcomes = read_outcomes(file, KEY, IDENTITY)
            return unpack(file, outcomes.calls[call], "in job 1")[1]
