"""The embedded service as a child process for ``url="local"``: started, and ended.

The child has a session of its own, so that Ctrl-C in the terminal does not reach it, and it ends by itself when its
standard input closes or its parent is gone, however the parent ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

_START = 60.0  # seconds that a loaded machine may need to start an interpreter and the service
_STOP = 15.0  # seconds that the service has to end its jobs and remove its folder


@dataclass
class Child:
    """A running embedded service."""

    url: str
    token: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End the service and its jobs; blocks until the process is gone. May be called twice."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __repr__(self) -> str:
        return f"<embedded service at {self.url}, process {self.process.pid}>"


def launch() -> Child:
    """Start the embedded service and wait until it answers.

    Raises:
        ImportError: the extra ``local`` is not installed.
        RuntimeError: the service did not start; the message holds what it said.
    """
    missing = [name for name in ("aiohttp", "jwt") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the embedded service needs {', '.join(missing)}: pip install 'prominence-executor[local]'",
            name=missing[0],
        )
    environment = dict(os.environ)
    package_parent = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, environment.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "prominence_executor.service", "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    overdue = threading.Timer(_START, process.kill)
    overdue.start()
    try:
        line = process.stdout.readline() if process.stdout else b""
    finally:
        overdue.cancel()
        overdue.join()
        if process.stdout:
            process.stdout.close()
    if not line:
        if process.stdin is not None:
            process.stdin.close()
        code = process.wait()
        raise RuntimeError(f"the embedded service did not start (exit code {code}); its message is above")
    answer = json.loads(line)
    return Child(answer["url"], answer["token"], process)
