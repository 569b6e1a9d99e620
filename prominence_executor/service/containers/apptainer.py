"""Containers run by Apptainer or Singularity, whichever is installed.

An image is run from one file, read-only. A `docker save` archive and what a registry has are made into such a file
once; any other file is given to the runtime as it is, which refuses what is not an image (exit code 255).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..sandbox import processes
from ..sandbox.downloads import proxy_variables
from ..sandbox.sandbox import Sandbox
from ..state.directory import own_directory
from .base import AMD, NVIDIA, Command, Stopped
from .images import Image, fresh, run_tool
from .once import Once, clear, is_fresh
from .overlay import SYSTEM_PATH
from .runtime import binds

_SECONDS = 60


class Apptainer:
    """One service's apptainer, with its own directory for what it keeps."""

    hint = "install Apptainer (https://apptainer.org) or Singularity, so that `apptainer` or `singularity` is on PATH"

    def __init__(self, directory: Path, locks: Path | None = None) -> None:
        self._directory, self._is_shared = directory, locks is not None
        self._built, self._incoming = directory / "built", directory / "incoming"
        self._once = Once(locks)
        self._lock = threading.Lock()
        self._version: str | None = None

    def version(self) -> str | None:
        """Return the version, or None when it is not installed; makes its directories at the first call."""
        with self._lock:
            program = _program()
            if self._version is None and program:
                own_directory(self._directory)
                clear(self._incoming, shared=self._is_shared)
                self._built.mkdir(mode=0o700, exist_ok=True)
                try:
                    self._version = subprocess.run(  # noqa: S603
                        [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                        timeout=_SECONDS, check=True,
                    ).stdout.strip()  # fmt: skip
                except (OSError, subprocess.SubprocessError):
                    return None
            return self._version

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of the runtime itself, with variables in addition to its own."""
        own = {f"{_prefix()}_CACHEDIR": str(self._directory / "cache"), f"{_prefix()}_TMPDIR": str(self._incoming)}
        path = os.pathsep.join(filter(None, [os.environ.get("PATH"), SYSTEM_PATH]))
        return {**proxy_variables(), **own, "PATH": path, "HOME": str(self._directory), **more}

    def prepare(self, image: Image, mark: str, stopped: Stopped) -> Path:
        """Make the file that an image is run from, once for all jobs. Blocks. Raises PullFailed."""
        if image.file is not None and not tarfile.is_tarfile(image.file):
            return image.file
        built = self._built / f"{image.key}.sif"
        self._once.make(image.key, stopped, lambda: self._build(image, built, mark, stopped))
        return built

    def _build(self, image: Image, built: Path, mark: str, stopped: Stopped) -> None:
        if (image.sha256 is not None and built.exists()) or (self._is_shared and is_fresh(built)):
            return
        place = fresh(self._incoming)
        env = self.environment(**{processes.MARK: mark})
        try:
            if image.file is not None:
                words = ["build", str(place / "image.sif"), f"docker-archive:{image.file}"]
            else:
                source = image.name if "://" in image.name else f"docker://{image.name}"
                words = ["pull", str(place / "image.sif"), source]
            run_tool([_program(), *words], env, place, stopped)
            os.replace(place / "image.sif", built)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def container(self, prepared: Path, sandbox: Sandbox, stopped: Stopped) -> _Container:
        """Make a container for one job."""
        return _Container(self, prepared, sandbox)


@dataclass(frozen=True)
class _Container:
    apptainer: Apptainer
    image: Path
    sandbox: Sandbox

    def command(self, words: list[str], env: dict[str, str], cwd: str) -> Command:
        """Return what runs words inside.

        There is nothing of this machine's files, environment and processes but what is bound; the network is its own.
        """
        (home, seen), *others = binds(self.sandbox)
        argv = [
            _program(), "--silent", "exec", "--containall", *devices(env), "--home", f"{home}:{seen}",
            *(word for here, there in others for word in ("--bind", f"{here}:{there}")),
            "--pwd", cwd, str(self.image), *words,
        ]  # fmt: skip
        # Not on the command line, where others could read it.
        given = {f"{_prefix()}ENV_{name}": value for name, value in env.items()}
        own = self.apptainer.environment(**given, **{processes.MARK: self.sandbox.mark})
        return Command(argv, self.sandbox.home, own)

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def devices(env: Mapping[str, str]) -> list[str]:
    """Return the words by which a container has the accelerators of a job with these variables. Pure."""
    return ["--nv"] if env.get(NVIDIA) else ["--rocm"] if env.get(AMD) else []  # it takes one of them


def _program() -> str:
    return shutil.which("apptainer") or shutil.which("singularity") or ""


def _prefix() -> str:
    """Return how the variables begin that the runtime reads; it warns of those of the other one."""
    return "APPTAINER" if _program().endswith("/apptainer") else "SINGULARITY"
