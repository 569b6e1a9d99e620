"""The commands ``prominence-executor image ...``: arguments to calls, and what those return to lines.

It may not hold logic that a program would miss. Progress goes to the standard error, the answer to the standard output.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .errors import ProminenceError


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; returns the exit status."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is temporary is removed
    work: Callable[[Any], int] = arguments.work
    try:
        return work(arguments)
    except (ProminenceError, ValueError, OSError) as error:
        return _failed(f"prominence-executor image {arguments.command}: {error}")
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prominence-executor image", description="Container images for calls.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="make an image with Python on a Debian machine (needs root, debootstrap)")
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="the archive: NAME.tar or NAME.tgz")
    build.add_argument("--python", metavar="X.Y", help="default: that of --from-python, else of this program")
    build.add_argument(
        "--requirement", "-r", action="append", default=[], metavar="FILE", help="as for pip; repeatable"
    )
    build.add_argument("--package", action="append", default=[], metavar="NAME", help="a Debian package; repeatable")
    build.add_argument("--suite", help="the Debian release; default: this machine's")
    build.add_argument("--mirror", metavar="URL", help="of Debian's packages; default: the one that apt uses here")
    build.add_argument("--from-python", metavar="PREFIX", help="copy the standard library of an installed Python")
    build.set_defaults(work=_build)
    return parser


def _build(arguments: argparse.Namespace) -> int:
    from .images import build

    built = build(
        arguments.output,
        python=arguments.python,
        requirements=arguments.requirement,
        packages=arguments.package,
        suite=arguments.suite,
        mirror=arguments.mirror,
        from_python=arguments.from_python,
        tell=_tell,
    )
    print(f"{built.path}  {built.size} bytes  sha256:{built.sha256}")
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _failed(line: str, status: int = 1) -> int:
    _tell(line)
    return status
