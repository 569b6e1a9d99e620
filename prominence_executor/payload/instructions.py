"""What a job is told: who it is, the key to sign with, the Python wanted, and where its inputs lie.

Pure functions. The instructions travel in the job's description, where nobody else can write; they hold the run's key.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ..remote.wire import FORMAT, OUTCOME_FILE
from .calls import Identity

PYTHON = "{}.{}".format(*sys.version_info[:2])


def job_file(
    identity: Identity,
    key: bytes,
    *,
    calls: tuple[str, str],
    modules: list[tuple[str, str]],
    objects: dict[str, str],
    seconds: float | None,
    **extras: Any,
) -> bytes:
    """Return the runner's instructions.

    Args:
        calls, modules: (file name, SHA-256).
        objects: file names by SHA-256.
        seconds: the time that it has.
        extras: what only some jobs have: ``files``, ``outputs`` (see remote/files.py), ``mpi`` (see remote/mpi.py),
            ``limit`` (see remote/limits.py), ``results``, ``keys`` and ``tls`` (see remote/results.py).
    """
    return json.dumps(
        {
            "format": FORMAT,
            "run": identity.run,
            "job": identity.job,
            "attempt": identity.attempt,
            "key": key.hex(),
            "python": PYTHON,
            "outcome": OUTCOME_FILE,
            "seconds": seconds,
            "calls": {"name": calls[0], "sha256": calls[1]},
            "modules": [{"name": name, "sha256": digest} for name, digest in modules],
            "objects": objects,
            **extras,
        }
    ).encode()


def worker_file(run_id: str, key: bytes, worker: int, **settings: Any) -> bytes:
    """Return the instructions of a warm worker; see remote/worker.py for the settings."""
    common = {"format": FORMAT, "run": run_id, "job": worker, "attempt": 0, "key": key.hex(), "python": PYTHON}
    return json.dumps({**common, "outcome": OUTCOME_FILE, "worker": worker, **settings}).encode()


def array_file(
    run_id: str,
    key: bytes,
    *,
    bundle: tuple[str, str],
    objects: dict[str, str],
    seconds: float | None,
    **extras: Any,
) -> bytes:
    """Return what the jobs of an array have in common of a `job_file`; ``bundle`` is (object's name, SHA-256)."""
    return json.dumps(
        {
            "format": FORMAT,
            "run": run_id,
            "key": key.hex(),
            "python": PYTHON,
            "outcome": OUTCOME_FILE,
            "seconds": seconds,
            "bundle": {"name": bundle[0], "sha256": bundle[1]},
            "objects": objects,
            **extras,
        }
    ).encode()
