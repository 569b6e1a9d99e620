"""One image with Python, numpy and MPI for the tests of a session, built when the first of them asks for it.

Images that lack something are made of it: that takes seconds where building one takes minutes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from archives import unpack

from prominence_executor.images.archive import pack

PYTHON = "3.11"  # what the release below has
SUITE = "bookworm"
REQUIREMENTS = "numpy\nmpi4py\n"
PACKAGE = "openmpi-bin"  # Debian's, with its mpirun
LACKING = {"bare": "usr/bin/python", "plain": "usr/local/lib/python"}  # without Python; with nothing but Python
RUNTIMES = ("udocker", "singularity")
SECRET = "PROMINENCE_TEST_OF_THE_HOST"  # a variable that no task may see

same_python = pytest.mark.skipif("{}.{}".format(*sys.version_info) != PYTHON, reason=f"the image's Python is {PYTHON}")


def missing(runtime: str) -> str | None:
    """Why containers of a runtime cannot be tested here."""
    if runtime == "singularity":
        return None if shutil.which("apptainer") or shutil.which("singularity") else "there is no Apptainer here"
    if not shutil.which("proot"):
        return "there is no PRoot here"
    try:
        import udocker  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        return "udocker is not installed"
    return None


def built(folder: Path) -> Path:
    """The image in a folder that all processes of the session share; they wait for the one that builds it."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        pytest.skip("building an image needs root and debootstrap")
    image = folder / "container-image.tar"
    with open(folder / "container-image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            requirements = folder / "container-requirements.txt"
            requirements.write_text(REQUIREMENTS)
            options = ("--python", PYTHON, "--suite", SUITE, "--package", PACKAGE, "--builder", "debootstrap")
            made = build(folder / "building.tar", requirements, *options)
            (folder / "container-image.txt").write_text(made.stdout + made.stderr)
            os.replace(folder / "building.tar", image)
    return image


def lacking(image: Path, name: str) -> Path:
    """The image without what `LACKING` says, likewise made once."""
    folder = image.parent
    made = folder / f"{name}.tar"
    with open(folder / "container-image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            if not (folder / "tree").exists():
                unpack(image, folder / "tree")
            pack(
                folder / "tree", made, tag=f"{name}:latest", env={"PATH": "/usr/bin"}, command=["sh"],
                scratch=folder, leave_out=lambda path: path.startswith(LACKING[name]),
            )  # fmt: skip
            if all((folder / f"{other}.tar").exists() for other in LACKING):
                shutil.rmtree(folder / "tree")
    return made


def build(archive: Path, requirements: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build an image as a user does, by the command."""
    command = [sys.executable, "-m", "prominence_executor.cli", "image", "build", "-o", str(archive), *options]
    done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
