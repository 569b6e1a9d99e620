"""The command ``prominence-executor``: for people at a terminal. It may not hold logic that a program would miss."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .imagecli import main as image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="prominence-executor", description="Python functions as PROMINENCE jobs.")
    parser.add_argument("--version", action="version", version=f"prominence-executor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "serve",
        add_help=False,
        help="run the embedded service on this machine, until Ctrl-C (options: prominence-executor serve --help)",
    )
    commands.add_parser("image", add_help=False, help="build, upload and check container images (image --help)")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "image":
        return image(rest)
    return _serve(rest) if arguments.command == "serve" else 2


def _serve(rest: list[str]) -> int:
    try:
        from .service.__main__ import main as serve
    except ImportError as error:
        sys.exit(f"prominence-executor serve: {error}")
    return serve(rest)


if __name__ == "__main__":
    sys.exit(main())
