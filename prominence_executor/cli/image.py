"""The commands ``prominence-executor image ...``: arguments to calls, and what those return to lines.

It may not hold logic that a program would miss. Progress goes to the standard error, the answer to the standard output;
errors are left to the caller.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..shown import harmless
from .account import connected

if TYPE_CHECKING:
    from . import AddParser

BUILDERS = ("apptainer", "podman", "docker", "debootstrap")  # as images/build.py has them, which takes long to load


NAME, ABOUT = "image", "build, upload and check container images"
EXAMPLE = "push py311.tar"


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    build = add(
        "build",
        _build,
        "make an image with Python and packages",
        "build --python 3.11 -r requirements.txt -o py311.tar",
    )
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="NAME.tar, NAME.tgz or NAME.sif")
    build.add_argument("--python", metavar="X.Y", help="default: that of --from-python, else of this program")
    build.add_argument(
        "--requirement", "-r", action="append", default=[], metavar="FILE", help="as for pip; repeatable"
    )
    build.add_argument("--package", action="append", default=[], metavar="NAME", help="a Debian package; repeatable")
    build.add_argument("--suite", help="the Debian release; default: the official image's, or this machine's")
    build.add_argument("--base", metavar="IMAGE", help="start from this image; default: python:X.Y-slim")
    build.add_argument(
        "--builder", choices=BUILDERS,
        help="default: apptainer for a .sif, else podman or docker, else debootstrap (as root, without a registry)",
    )  # fmt: skip
    build.add_argument("--mirror", metavar="URL", help="of Debian's packages, for debootstrap; default: apt's here")
    build.add_argument(
        "--from-python", metavar="PREFIX", help="have debootstrap copy the standard library of an installed Python"
    )
    push = add("push", _push, "upload an image to the service, and print the name to use", "push py311.tar")
    push.add_argument("file", help="the image: .tar, .tgz, .tar.gz or .sif")
    push.add_argument("--name", help="the name to upload it under; default: one of its content")
    check = add(
        "check", _check, "run a tiny job in an image, and compare it with this machine", "check python:3.11-slim"
    )
    check.add_argument("image", help="a name, or the path of a file")
    check.add_argument("--timeout", type=float, default=0, metavar="SECONDS", help="to wait for the job; default: none")


def _build(arguments: argparse.Namespace) -> int:
    from ..images.build import build

    built = build(
        arguments.output,
        python=arguments.python,
        requirements=arguments.requirement,
        packages=arguments.package,
        suite=arguments.suite,
        mirror=arguments.mirror,
        from_python=arguments.from_python,
        builder=arguments.builder,
        base=arguments.base,
        report=_report,
    )
    print(harmless(f"{built.path}  {built.size} bytes  sha256:{built.sha256}"))
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from ..images.files import push
    from ..progress import TransferBar

    with connected(arguments, start=True) as client, TransferBar("upload") as bar:
        name = push(client, arguments.file, arguments.name, bar)
    print(name)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ..executor.executor import ProminenceExecutor

    with ProminenceExecutor(image=arguments.image, profile=arguments.profile) as executor:
        report = executor.check_image(arguments.timeout)
    print(harmless(str(report), lines=True))
    return 0 if report.usable else 1


def _report(line: str) -> None:
    print(harmless(line, lines=True), file=sys.stderr, flush=True)
