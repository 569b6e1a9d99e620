"""Containers run by udocker with PRoot: no rights of an administrator, and no kernel features.

Each image is unpacked once; each job has a writable layer over that (see `layers`), which no other job sees. PRoot
translates paths, it does not confine: a container keeps tasks apart from this machine's files, but it does not
protect the machine from a task that wants to harm it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..sandbox import processes
from ..sandbox.downloads import proxy_variables
from ..sandbox.sandbox import Sandbox
from ..state.directory import own_directory, write_whole
from .base import Command, PullFailed, Stopped
from .images import Image, fresh, run_tool
from .once import Once, clear
from .overlay import SYSTEM_PATH, Layer
from .proot_shim import ENVIRONMENT
from .runtime import binds

_OLDEST_NUMBER = 1000  # of an ordinary user, where the service itself is root
_SECONDS = 60


class Udocker:
    """One service's udocker, with its own directory, whatever the user's says."""

    hint = "pip install udocker, and PRoot (on Debian: apt-get install proot)"

    def __init__(self, directory: Path, locks: Path | None = None) -> None:
        self._directory, self._is_shared = directory, locks is not None
        self._unpacked, self._incoming = directory / "unpacked", directory / "incoming"
        self._once = Once(locks)
        self._lock = threading.Lock()
        self._version: str | None = None

    def version(self) -> str | None:
        """Return the version, or None when it or PRoot is not installed; sets it up at the first call."""
        with self._lock:
            if self._version is None and _program() and _proot():
                self._version = self._install()
            return self._version

    def _install(self) -> str | None:
        """Make the directory what udocker expects of an installed one; of its own tools only PRoot is needed."""
        own_directory(self._directory)
        clear(self._incoming, shared=self._is_shared)
        for name in ("bin", "lib", "tmp", "unpacked"):
            (self._directory / name).mkdir(mode=0o700, exist_ok=True)
        words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("proot_shim.py")), _proot() or "proot"]
        shim = f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'
        write_whole(self._directory / "bin" / "proot", shim.encode(), 0o700)
        try:
            asked = subprocess.run(  # noqa: S603
                [*_program(), "version"], env=self.environment(), cwd=self._directory, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=_SECONDS, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        told = dict(line.split(": ", 1) for line in asked.stdout.splitlines() if ": " in line)
        release = told.get("tarball_release", "")
        (self._directory / "lib" / "VERSION").write_text(release + "\n")
        return f"{told.get('version', '')}/{release}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of udocker itself: not the user's configuration, but the way to a registry."""
        return {
            **proxy_variables(), "PATH": SYSTEM_PATH, "HOME": str(self._directory), "UDOCKER_DIR": str(self._directory),
            "UDOCKER_TARBALL": "", "UDOCKER_USE_PROOT_EXECUTABLE": str(self._directory / "bin" / "proot"),
            "UDOCKER_TMP": str(self._directory / "tmp"), **more,
        }  # fmt: skip

    def prepare(self, image: Image, mark: str, stopped: Stopped) -> Path:
        """Unpack an image, once for all jobs. Blocks. Raises PullFailed."""
        unpacked = self._unpacked / image.key
        self._once.make(image.key, stopped, lambda: self._unpack(image, unpacked, mark, stopped))
        return unpacked

    def _unpack(self, image: Image, unpacked: Path, mark: str, stopped: Stopped) -> None:
        if unpacked.is_dir() and (image.sha256 is not None or self._is_shared):
            return  # of a registry's, too, where jobs of other processes may be using it
        place = fresh(self._incoming)
        env = self.environment(
            UDOCKER_REPOS=str(place / "repos"), UDOCKER_LAYERS=str(place / "layers"),
            UDOCKER_CONTAINERS=str(place / "containers"), **{processes.MARK: mark},
        )  # fmt: skip
        try:
            if image.file is not None:
                said = run_tool([*_program(), "load", "-i", str(image.file), "image"], env, place, stopped)
                name = said.split()[-1] if said.split() else "image"
            else:
                name = image.name.removeprefix("docker://")
                run_tool([*_program(), "pull", name], env, place, stopped)
            created = run_tool([*_program(), "create", name], env, place, stopped).split()
            if not created:
                raise PullFailed(f"udocker could not unpack {image.name}")
            shutil.rmtree(unpacked, ignore_errors=True)
            os.rename(place / "containers" / created[-1], unpacked)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def container(self, prepared: Path, sandbox: Sandbox, stopped: Stopped) -> _Container:
        """Make a container for one job. Raises PullFailed."""
        place = sandbox.root / "containers"
        place.mkdir(exist_ok=True)
        (sandbox.root / "run").mkdir(exist_ok=True)
        name = f"image{len(list(place.iterdir()))}"
        layer = Layer(prepared, place / name, sandbox.root / "layers" / name, sandbox.mark, stopped)
        return _Container(self, name, sandbox, prepared, layer)


@dataclass(frozen=True)
class _Container:
    udocker: Udocker
    name: str
    sandbox: Sandbox
    image: Path
    layer: Layer

    def command(self, words: list[str], env: dict[str, str], cwd: str) -> Command:
        root = self.sandbox.root
        shown = {"HOME": "/home/user", **env}
        # Whoever looks at this machine's processes sees their words; and what a task calls PATH is not udocker's own.
        given = root / "run" / f"environment-{uuid.uuid4().hex}"
        write_whole(given, json.dumps(shown).encode())
        searched = [f"--env=PATH={shown['PATH']}"] if "PATH" in shown else []  # by udocker itself, in the image
        volumes = [*binds(self.sandbox), *self._accounts()]
        argv = [
            *_program(), "run", "--nobanner", "--user=user", f"--workdir={cwd}", f"--env={ENVIRONMENT}", *searched,
            *(f"--volume={here}:{there}" for here, there in volumes), self.name, *words,
        ]  # fmt: skip
        own = self.udocker.environment(
            UDOCKER_CONTAINERS=str(root / "containers"), UDOCKER_TMP=str(root / "run"),
            PROOT_TMP_DIR=str(root / "run"), **{ENVIRONMENT: str(given), processes.MARK: self.sandbox.mark},
        )  # fmt: skip
        # Not in HOME, where udocker would read a configuration that a task may have written.
        return Command(self.layer.inside(argv, root / "run"), root / "run", own)

    def close(self) -> None:
        self.layer.close()

    def _accounts(self) -> list[tuple[Path, str]]:
        """Return the image's accounts with an ordinary user added, as files to be mounted over its own."""
        number, group = os.getuid() or _OLDEST_NUMBER, os.getgid() or _OLDEST_NUMBER
        lines = {
            "passwd": f"user:x:{number}:{group}::/home/user:/bin/sh\n",
            "group": f"user:x:{group}:\n",
        }
        image, made = self.image / "ROOT", []
        for name, line in lines.items():
            path = self.sandbox.root / "run" / f"{self.name}.{name}"
            if not path.exists():
                path.write_text(line + _others(image, name))
            made.append((path, f"/etc/{name}"))
        return made


def _others(image: Path, name: str) -> str:
    """Return the image's own accounts, but for one that is called as ours."""
    path = Path(os.path.realpath(image / "etc" / name))
    if not path.is_relative_to(os.path.realpath(image)) or not path.is_file():  # a link would lead to this machine's
        return "root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n"
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("user:"))


def _proot() -> str | None:
    """Find PRoot: the one that the user names, else the system's, else one of a udocker that is installed whole."""
    named = os.environ.get("UDOCKER_USE_PROOT_EXECUTABLE", "")
    own = Path.home() / ".udocker" / "bin"
    machine = os.uname().machine
    candidates = [named, shutil.which("proot") or "", f"{own}/proot-{machine}-4_8_0", f"{own}/proot-{machine}"]
    return next((path for path in candidates if path and os.access(path, os.X_OK) and os.path.isfile(path)), None)


def _program() -> list[str]:
    """Return the words that start udocker quietly, or none when it is not installed."""
    if importlib.util.find_spec("udocker") is not None:
        # Isolated, so that nothing in the working directory is taken for one of its modules.
        words = [sys.executable, "-I", "-m", "udocker.maincmd"]
    elif found := shutil.which("udocker"):
        words = [found]
    else:
        return []
    return [*words, "-q", "--allow-root"]  # of this machine, or of a layer's namespace
