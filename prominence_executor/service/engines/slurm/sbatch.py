"""One call of sbatch: its script, what it sees, and how it is waited for. Does not know what its words mean."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from ...sandbox.sandbox import LIBRARIES
from ..system import Batch, SystemAway
from .words import SLEEPS

_LOOK = 0.05  # seconds
_MOST_SAID = 1 << 16  # bytes


def submitted(command: Sequence[str], given: str, env: Mapping[str, str], seconds: float) -> tuple[int, str, str]:
    """Run sbatch; return its exit status, what it printed, and what it said.

    Slurm with no room for more jobs makes sbatch sleep and try again for minutes, in which nothing else could be
    submitted: it is ended as soon as it says so, while it sleeps. Raises SystemAway.
    """
    with tempfile.TemporaryFile() as script, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        script.write(given.encode())
        script.seek(0)
        try:
            process = subprocess.Popen(command, stdin=script, stdout=printed, stderr=said, env=dict(env))  # noqa: S603
        except OSError as error:
            raise SystemAway(f"{command[0]}: {error}") from error
        with process:
            _await(process, said, seconds)
        return process.returncode, _text(printed), _text(said)


def _await(process: subprocess.Popen[bytes], said: IO[bytes], seconds: float) -> None:
    """Wait for sbatch, and end it when it sleeps or takes too long. Raises SystemAway for the latter."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK)
            return
        sleeps = SLEEPS in _text(said)
        if sleeps or time.monotonic() > deadline:
            process.kill()
            process.wait()
            if sleeps:
                return
            raise SystemAway(f"sbatch did not answer within {seconds:g} s")


def _text(file: IO[bytes]) -> str:
    """Read all of a file that another process may be writing: its place in it stays where it is."""
    return os.pread(file.fileno(), _MOST_SAID, 0).decode(errors="replace")


def environment() -> dict[str, str]:
    """Return what commands see, and sbatch passes on to jobs: nothing of the service's own secrets and settings.

    That is what --export=NONE is for, with which a job waits for a login shell first: two seconds.
    """
    kept = ("PATH", LIBRARIES, "HOME", "USER", "LOGNAME", "SLURM_CONF", "SLURM_CLUSTERS")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in kept if name in os.environ}}


def script(batch: Batch) -> str:
    """Return the script of a batch. It says by its exit status what a node does not see."""
    directory, python, program = batch.needs
    return "\n".join([
        "#!/bin/sh",
        f"[ -r {shlex.quote(str(directory))} ] || exit 77",
        f"[ -x {shlex.quote(str(python))} ] || exit 78",
        f"[ -r {shlex.quote(str(program))} ] || exit 79",
        f"exec {shlex.join(batch.command)} ${{SLURM_ARRAY_TASK_ID:-0}} >>{shlex.quote(str(directory / 'log'))} 2>&1",
        "",
    ])  # fmt: skip
