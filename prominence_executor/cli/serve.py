"""The command ``prominence-executor serve``: hands its arguments to the embedded service, which has its own options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence


def add_to(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; its options are the service's own."""
    add_parser(
        "serve",
        add_help=False,
        help="run the embedded service on this machine, until Ctrl-C (options: prominence-executor serve --help)",
    )


def run(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    try:
        from ..service.__main__ import main
    except ImportError as error:
        sys.stderr.write(f"prominence-executor serve: {error}\n")
        return 1
    return main(arguments)
