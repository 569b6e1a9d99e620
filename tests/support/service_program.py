"""The service as a program of its own, for tests that kill it, or give it other variables than their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from paths import ROOT


class ServiceProgram:
    """Serves one directory, always at the same address. `url` and `token` are there once it has been started."""

    def __init__(self, directory: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._command = [
            sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(directory), *options
        ]  # fmt: skip
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self.url = self.token = ""

    def __enter__(self) -> ServiceProgram:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; returns when it serves."""
        process = self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=self._env)
        assert process.stdout is not None
        self.url = process.stdout.readline().partition("=")[2].strip()
        process.stdout.readline()
        self.token = (self.directory / "token").read_text()

    def kill(self) -> None:
        """End it as a site's reaper does."""
        assert self._process is not None
        self._process.kill()
        self._waited()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._waited()

    def _waited(self) -> None:
        assert self._process is not None
        with self._process:  # closes the pipe, and waits
            self._process = None
