"""The command ``prominence-executor``: for people at a terminal. It may not hold logic that a program would miss.

What a command prints on the standard output is its answer; progress and errors go to the standard error. An error is
one sentence there, and the exit status says how it ended:

    0     done
    1     not done: refused, failed, or (image check) an image in which calls cannot run
    2     the command line was not understood
    130   interrupted with Ctrl-C
    141   whoever read the output has gone, ``head`` say
    143   ended by SIGTERM

Each group of commands is a file: it adds its parsers, and says what does the work.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import ProminenceError
from ..version import __version__
from . import env, image, serve, sweep

_STATUSES = "Exit status: 0 done, 1 not done, 2 not understood, 130 Ctrl-C, 141 nobody reads the output, 143 SIGTERM."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # at the end of Python nobody could say any more what went wrong
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:
        _leave_standard_output()
        return 141
    except OSError as error:
        _leave_standard_output()
        return _failed(f"prominence-executor: the output cannot be written: {error}")


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="prominence-executor", description="Python functions as PROMINENCE jobs.", epilog=_STATUSES
    )
    parser.add_argument("--version", action="version", version=f"prominence-executor {__version__}")
    groups = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    serve.add_to(groups.add_parser)
    image.add_to(groups.add_parser)
    env.add_to(groups.add_parser)
    sweep.add_to(groups.add_parser)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.group == "serve":
        return serve.run(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    work: Callable[[argparse.Namespace], int] = arguments.work
    try:
        with _ended_by_sigterm():
            return work(arguments)
    except BrokenPipeError:
        raise
    except (ProminenceError, ValueError, OSError, ImportError) as error:
        return _failed(f"prominence-executor {arguments.group} {arguments.command}: {error}")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End the program by an exception, so that what is temporary is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave_standard_output() -> None:
    """Let what is still unwritten go nowhere: Python tries once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(line: str, status: int = 1) -> int:
    sys.stderr.write(line + "\n")
    return status
