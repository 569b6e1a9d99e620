"""Uv, or pip: chooses versions for other machines, and lays packages down in a folder. Nothing is built.

Uv evaluates markers for the target; pip does so for this machine, so that it will do only where both are alike. Their
own configuration and environment variables hold. Addresses of indexes reach them in a file that only this user can
read, never on the command line; what they print is shown without passwords.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ..credentials import without_credentials
from ..errors import RequirementsError
from .locks import PYTHON, Lock, lock_text, packages_in
from .platforms import Target
from .wanted import Wanted

_BOX = re.compile(r"[×╰╴─▶│├└┌┐┘┤→]+")
_NOISE = re.compile(r"^(WARNING|DEPRECATION|\[notice\]|hint: See above)", re.IGNORECASE)
_LONGEST = 1500  # characters of what a tool says
_QUIET = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class Tool(Protocol):
    """What chooses and fetches packages. Both block, for seconds to minutes."""

    @property
    def name(self) -> str:
        """Name and version."""

    def choose(self, wanted: Wanted) -> Lock:
        """Choose versions. RequirementsError: it cannot be done, and why."""

    def lay_down(self, lock: Lock, folder: Path) -> None:
        """Fetch what a lock names, verify its hashes, and unpack it into a folder. RequirementsError: likewise."""


class Uv:
    """Uv, by the path of its program."""

    def __init__(self, program: str) -> None:
        self._program = program

    @property
    def name(self) -> str:
        """Name and version."""
        return _version(self._program, "--version")

    def choose(self, wanted: Wanted) -> Lock:
        """Choose versions; see `Tool`."""
        with _given(wanted) as files:
            options = ["--generate-hashes", "--no-header", "--no-annotate"]
            options += ["--constraint", str(files.constraints)] if wanted.constraints else []
            options += ["--prerelease", "allow"] if wanted.pre else []
            text = _run(
                [self._program, "pip", "compile", str(files.lines), *options, *self._common(wanted.target)], wanted
            )
        return Lock(wanted, lock_text(packages_in(text), wanted), self.name)

    def lay_down(self, lock: Lock, folder: Path) -> None:
        """Fetch and unpack; see `Tool`."""
        with _given(lock.wanted, lock.text) as files:
            options = ["--target", str(folder), "--no-deps", "--require-hashes", "--link-mode", "copy"]
            options += ["--requirement", str(files.lines)]
            _run([self._program, "pip", "install", *options, *self._common(lock.wanted.target)], lock.wanted)

    @staticmethod
    def _common(target: Target) -> list[str]:
        common = ["--quiet", "--only-binary", ":all:", "--python", sys.executable]
        return [*common, "--python-version", PYTHON, "--python-platform", target.of_uv]


class Pip:
    """This Python's pip, for machines of this one's kind."""

    _program = (sys.executable, "-m", "pip")

    @property
    def name(self) -> str:
        """Name and version."""
        return " ".join(_version(*self._program, "--version").split()[:2])

    def choose(self, wanted: Wanted) -> Lock:
        """Choose versions; see `Tool`."""
        with _given(wanted) as files:
            options = ["--dry-run", "--ignore-installed", "--report", str(files.report), "--target", str(files.target)]
            options += ["--constraint", str(files.constraints)] if wanted.constraints else []
            options += ["--pre"] if wanted.pre else []
            _run([*self._program, "install", *options, *self._common(wanted.target), "-r", str(files.lines)], wanted)
            report = json.loads(files.report.read_text())
        packages = []
        for item in report["install"]:
            facts, fetched = item["metadata"], item["download_info"]
            hashes = [f"{kind}:{value}" for kind, value in fetched.get("archive_info", {}).get("hashes", {}).items()]
            place = f" @ {fetched['url']}" if item.get("is_direct") else f"=={facts['version']}"
            packages.append((f"{facts['name']}{place}", hashes))
        return Lock(wanted, lock_text(packages, wanted), self.name)

    def lay_down(self, lock: Lock, folder: Path) -> None:
        """Fetch and unpack; see `Tool`."""
        with _given(lock.wanted, lock.text) as files:
            options = ["--target", str(folder), "--no-deps", "--require-hashes", "--no-compile"]
            _run(
                [*self._program, "install", *options, *self._common(lock.wanted.target), "-r", str(files.lines)],
                lock.wanted,
            )

    @staticmethod
    def _common(target: Target) -> list[str]:
        common = [
            "--quiet",
            "--no-input",
            "--only-binary",
            ":all:",
            "--implementation",
            "cp",
            "--python-version",
            PYTHON,
        ]
        abis = (f"cp{PYTHON.replace('.', '')}", "abi3", "none")
        tags = [option for tag in target.of_pip() for option in ("--platform", tag)]
        return [*common, *(option for abi in abis for option in ("--abi", abi)), *tags]


def find_tool(target: Target) -> Tool:
    """Find uv, or pip where it will do.

    Raises:
        RequirementsError: there is neither.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    uv = shutil.which(beside) or shutil.which("uv")
    if uv:
        return Uv(uv)
    if not target.is_like_here():
        raise RequirementsError(
            f"requirements for {target} are chosen by uv, which is not installed here (pip would choose what this "
            "machine needs): pip install uv"
        )
    if not _version(*Pip._program, "--version"):
        raise RequirementsError("requirements need uv or pip, and this Python has neither: pip install uv")
    return Pip()


class _Files:
    """What a tool is given, in a folder that only this user can read."""

    def __init__(self, folder: Path) -> None:
        self.lines = folder / "requirements.txt"
        self.constraints = folder / "constraints.txt"
        self.report = folder / "report.json"
        self.target = folder / "target"


@contextmanager
def _given(wanted: Wanted, text: str | None = None) -> Iterator[_Files]:
    with tempfile.TemporaryDirectory(prefix="prominence-") as folder:  # mode 0700
        files = _Files(Path(folder))
        body = "".join(f"{line}\n" for line in wanted.lines) if text is None else text
        files.lines.write_text("".join(f"{line}\n" for line in wanted.indexes) + body)
        files.constraints.write_text("".join(f"{line}\n" for line in wanted.constraints))
        yield files


def _run(command: Sequence[str], wanted: Wanted) -> str:
    """Run a tool; return what it prints. RequirementsError: it failed; with what it says about that."""
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, **_QUIET},
    )  # fmt: skip
    if done.returncode:
        tool = "pip" if "-m" in command[:3] else "uv"
        raise RequirementsError(
            f"the requirements {_listed(wanted.lines)} cannot be met for Python {PYTHON} and {wanted.target} "
            f"by wheels, and nothing is built: {tool} says: {_said(done.stderr or done.stdout, wanted)}"
        )
    return done.stdout


def _listed(lines: Sequence[str], most: int = 10) -> str:
    return repr([*lines[:most], *(["..."] if len(lines) > most else [])])


def _said(text: str, wanted: Wanted) -> str:
    """Return what a tool has said as one line, without what it says in any case, and without passwords."""
    lines = [line for line in text.splitlines() if not _NOISE.match(line)]
    lines = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines
    known = [*wanted.indexes, *(value for name, value in os.environ.items() if "://" in value)]
    said = " ".join(_BOX.sub(" ", " ".join(lines)).split())
    return without_credentials(said, known)[:_LONGEST] or "nothing"


@lru_cache(maxsize=4)
def _version(*command: str) -> str:
    environment = {**os.environ, **_QUIET}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    return " ".join(done.stdout.split()[:2]) if done.returncode == 0 else ""
