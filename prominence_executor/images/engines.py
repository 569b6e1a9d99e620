"""Podman, Docker and Apptainer, which make an image from an official one, without root: what each is told.

Passwords of package indexes reach them in a file that only this user can read: as a secret of the build, or in a
folder of the image that is gone when it is packed. What they say is shown when they fail.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ..client.transfers import appearing_whole
from ..errors import ImageBuildError
from .archive import repack
from .recipe import CONFIGURATION, SECRET, Recipe
from .running import run
from .sif import apptainer

_ASKED = {  # what fails where a program is installed, and cannot build: Docker's client needs its part buildx for that
    "podman": (("info",),),
    "docker": (("version",), ("build", "--help")),
}
_PUBLIC = "docker.io/library/"
_PATIENCE = 60.0  # seconds for which one may think about that
_TAIL = 300  # characters of what it says then
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CONFIGURED = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "no-index",
    "timeout",
    "retries",
    "cert",
)  # of pip, elsewhere too
# Where Docker's store would add a description of the build, which would make the archive one of two images.
_BUILDKIT = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


def why_not(name: str) -> str | None:
    """Return why podman or docker cannot build here, None if it can; blocks for a moment."""
    program = shutil.which(name)
    if program is None:
        return f"{name} is not installed"
    for words in _ASKED[name]:
        try:
            asked = subprocess.run(  # noqa: S603
                [program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                check=False, timeout=_PATIENCE, env={**os.environ, **_BUILDKIT},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{name} does not answer: {error}"
        if asked.returncode:
            said = " ".join((asked.stderr or asked.stdout).split())
            return f"{name} is installed, but not ready: {said[-_TAIL:]}"
    return None


def build_archive(
    name: str, recipe: Recipe, target: Path, scratch: Path, tag: str, report: Callable[[str], object]
) -> None:
    """Build with podman or docker, and save the image as an archive; blocks for minutes.

    No image is left with them. Docker keeps the steps of each build in its cache, and ends that itself.

    Raises:
        ImageBuildError: a step failed.
    """
    program = shutil.which(name) or name
    context = scratch / "context"
    recipe.write(context)
    (scratch / "Containerfile").write_text(recipe.containerfile())
    # The user may have an image of the archive's name, which must not be lost.
    image = f"localhost/prominence-build-{uuid.uuid4().hex[:12]}/{tag}"
    # Of what was built before nothing is taken: the lines are the same, and the packages behind them may be newer.
    words = ["--no-cache", "--file", os.fspath(scratch / "Containerfile"), "--tag", image]
    words += ["--pull"] if recipe.base.startswith(_PUBLIC) else []  # a base of the user's own may be here alone
    words += [word for variable in _PROXIES if variable in os.environ for word in ("--build-arg", variable)]
    if recipe.places:
        secret = _private(scratch / CONFIGURATION, recipe.configuration())
        words += ["--secret", f"id={SECRET},src={secret}"]
    words += ["--layers=false"] if name == "podman" else []  # else what is made on the way stays, without a name
    report(f"{name}: {recipe.base}")
    try:
        run([program, "build", *words, os.fspath(context)], f"{name} build", {**os.environ, **_BUILDKIT})
        report("packing")
        kind = ["--format", "docker-archive"] if name == "podman" else []
        run([program, "save", *kind, "--output", os.fspath(scratch / "saved.tar"), image], f"{name} save")
    finally:
        with suppress(ImageBuildError):  # there is none where the build failed
            run([program, "rmi", image], f"{name} rmi")
    repack(scratch / "saved.tar", target, tag=tag, scratch=scratch)


def build_sif(program: str, recipe: Recipe, target: Path, scratch: Path, report: Callable[[str], object]) -> None:
    """Build a .sif with Apptainer, or Singularity; blocks for minutes.

    Raises:
        ImageBuildError: it failed.
    """
    context = scratch / "context"
    recipe.write(context)
    if recipe.places:
        _private(context / CONFIGURATION, recipe.configuration())
    (scratch / "image.def").write_text(recipe.definition("context"))
    # Apptainer does so of itself; Singularity has to be told.
    fake = ["--fakeroot"] if os.geteuid() != 0 and Path(program).name == "singularity" else []
    name = Path(program).name
    report(f"{name}: {recipe.base}")
    run([program, "build", *fake, "new.sif", "image.def"], f"{name} build", folder=scratch)
    place(scratch / "new.sif", target)


def place(made: Path, target: Path) -> None:
    """Have a file appear at its place, which may be on another disk."""
    with appearing_whole(os.fspath(target)) as file, open(made, "rb") as source:
        shutil.copyfileobj(source, file)


def configured() -> Mapping[str, str]:
    """Return where this machine's pip finds packages, as its configuration and its variables say."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return read_configuration(asked.stdout if asked.returncode == 0 else "")


def read_configuration(text: str) -> dict[str, str]:
    """Read what ``pip config list`` prints, as far as it holds in an image: variables count most."""
    found: dict[tuple[int, str], str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.*)", line)
        if match and match[2] in _CONFIGURED:
            found[("global", "install", ":env:").index(match[1]), match[2]] = str(ast.literal_eval(match[3]))
    return {name: value for (_, name), value in sorted(found.items())}


def _private(path: Path, text: str) -> Path:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


__all__ = ["apptainer", "build_archive", "build_sif", "configured", "place", "read_configuration", "why_not"]
