"""Build a container image with Python and packages: by whatever is installed here that can.

    engines.py    podman or docker, for an archive; apptainer, for a .sif: from an official image, without root
    bootstrap.py  debootstrap, without a registry, on a Debian machine as root

Everything happens in a temporary directory that is removed in every case. It does not talk to the service.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageBuildError
from . import debian
from .archive import sha256_of_file
from .bootstrap import bootstrapped
from .engines import apptainer, build_archive, build_sif, configured, place, why_not
from .recipe import Recipe, recipe
from .sif import convert

__all__ = ["BUILDERS", "Built", "build"]

BUILDERS = ("apptainer", "podman", "docker", "debootstrap")
_BASE = "docker.io/library/python:{python}-slim"


@dataclass(frozen=True)
class Built:
    """An image that was built."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    python: str
    """``X.Y``."""


def build(
    output: str | os.PathLike[str],
    *,
    python: str | None = None,
    requirements: Sequence[str | os.PathLike[str]] = (),
    packages: Sequence[str] = (),
    suite: str | None = None,
    mirror: str | None = None,
    from_python: str | os.PathLike[str] | None = None,
    builder: str | None = None,
    base: str | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Built:
    """Build an image: a ``docker save`` archive, which udocker, Apptainer and docker load, or a .sif.

    Blocks for minutes. Apptainer (for a .sif), podman and docker make it from an official image, and need no root;
    debootstrap makes it without a registry, and needs root.

    Args:
        output: the archive, ``.tar``, or ``.tgz`` to have it compressed; or ``.sif``, which needs Apptainer.
        python: ``X.Y``; by default that of ``from_python``, or of this program. For debootstrap it must be the
            distribution's.
        requirements: files as ``pip install --requirement`` takes them.
        packages: further Debian packages.
        suite: the Debian release; by default that of the official image, for debootstrap this machine's.
        mirror: the URL of its packages, for debootstrap alone; by default what apt is configured to use here.
        from_python: the prefix of a Python that is installed here; its standard library is copied into the image, by
            debootstrap.
        builder: one of `BUILDERS`; by default the first that is there and can do it.
        base: the image to start from, instead of the official one of this Python; not for debootstrap.
        report: called with a line for each step.

    Raises:
        ImageBuildError: what is needed is not here, or a step failed; the message says which.
        ValueError: an argument cannot be what it is.
        FileNotFoundError: a requirements file is not there.
    """
    target = Path(output)
    _check_files(target, requirements)
    special = {"mirror": mirror, "from_python": from_python}
    chosen = choose(target, builder, base, [name for name, value in special.items() if value is not None])
    is_sif = target.name.endswith(".sif")
    with _scratch() as scratch:
        archive = scratch / "image.tar" if is_sif else target
        if chosen == "debootstrap":
            wanted = bootstrapped(
                archive, scratch, tag=_tag(target.name), python=python, requirements=requirements, packages=packages,
                suite=suite, mirror=mirror, from_python=from_python, report=report,
            )  # fmt: skip
        else:
            made = _recipe(python, suite, base, requirements, packages)
            wanted = made.python
            if chosen == "apptainer":
                build_sif(apptainer() or chosen, made, target, scratch, report)
            else:
                build_archive(chosen, made, archive, scratch, _tag(target.name), report)
        if is_sif and chosen != "apptainer":
            report("apptainer")
            convert(apptainer() or "apptainer", archive, scratch / "image.sif")
            place(scratch / "image.sif", target)
    return Built(target, target.stat().st_size, sha256_of_file(target), wanted)


def choose(
    target: Path,
    builder: str | None,
    base: str | None,
    special: Sequence[str],
    refusal: Callable[[str], str | None] = why_not,
) -> str:
    """Return what builds an image.

    Args:
        special: arguments that only debootstrap understands, and that were given.
        refusal: why podman or docker cannot build here, None if it can.

    Raises:
        ImageBuildError: nothing here can; says what is missing.
        ValueError: arguments do not fit each other.
    """
    _check_fit(target, builder, base, special)
    is_sif = target.name.endswith(".sif")
    if is_sif and apptainer() is None:
        raise ImageBuildError("a .sif is made by Apptainer, which is not installed here; a .tar needs none")
    if builder == "debootstrap" or special:
        debian.check_able()
        return "debootstrap"
    if is_sif and builder in (None, "apptainer"):
        return "apptainer"
    refusals = []
    for name in ("podman", "docker") if builder is None else (builder,):
        reason = refusal(name)
        if reason is None:
            return name
        refusals.append(reason)
    if builder is not None or base is not None:
        raise ImageBuildError("; ".join(refusals))
    try:
        debian.check_able()
    except ImageBuildError as error:
        also = "; with Apptainer, which is installed, -o NAME.sif makes an image" if apptainer() else ""
        raise ImageBuildError(f"{error}; or podman or docker, without root: {'; '.join(refusals)}{also}") from None
    return "debootstrap"


def _check_fit(target: Path, builder: str | None, base: str | None, special: Sequence[str]) -> None:
    if builder is not None and builder not in BUILDERS:
        raise ValueError(f"builder must be one of {', '.join(BUILDERS)}, not {builder!r}")
    if builder == "apptainer" and not target.name.endswith(".sif"):
        raise ValueError(f"Apptainer makes a .sif, not {target.name}")
    for name in special:
        if base is not None or builder not in (None, "debootstrap"):
            raise ValueError(f"{name} is for debootstrap alone")
    if builder == "debootstrap" and base is not None:
        raise ValueError("base is for the other builders: debootstrap starts from nothing")


def _recipe(
    python: str | None,
    suite: str | None,
    base: str | None,
    requirements: Sequence[str | os.PathLike[str]],
    packages: Sequence[str],
) -> Recipe:
    wanted = python or "{}.{}".format(*sys.version_info[:2])
    if not re.fullmatch(r"3\.\d+", wanted):
        raise ValueError(f"python must be a minor version such as 3.11, not {wanted!r}")
    usual = _BASE.format(python=wanted) + (f"-{suite}" if suite else "")
    return recipe(base or usual, wanted, [Path(file) for file in requirements], packages, configured())


def _check_files(target: Path, requirements: Sequence[str | os.PathLike[str]]) -> None:
    if not target.name.endswith((".tar", ".tgz", ".tar.gz", ".sif")):
        raise ValueError(
            f"the image's name must end in .tar, .tgz, .tar.gz or .sif, which runtimes go by, not {target}"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {target.parent} for the image")
    for file in requirements:
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no requirements file {file}")


def _tag(filename: str) -> str:
    """Make the name under which docker knows the image of its file's."""
    name = re.sub(r"[^a-z0-9_.-]", "-", filename.lower()).removesuffix(".gz").rpartition(".")[0].strip("-._")
    return f"{name or 'image'}:latest"


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a directory that is gone afterwards, with what is mounted in it."""
    path = Path(tempfile.mkdtemp(prefix="prominence-image-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        if debian.unmount_below(path):  # else it stays: what is mounted is not ours to delete
            shutil.rmtree(path, ignore_errors=True)
