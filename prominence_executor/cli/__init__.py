"""The command ``prominence-executor``: for people at a terminal. It may not hold logic that a program would miss.

What a command prints on the standard output is its answer; progress and errors go to the standard error. An error is
one sentence there (``--debug``: with its traceback), and the exit status says how it ended:

    0     done
    1     not done: refused, failed, not found; a run with jobs that failed; an image in which calls cannot run
    2     the command line was not understood
    3     the service does not answer
    4     the token is missing, has expired, or is refused
    130   interrupted with Ctrl-C
    141   whoever read the output has gone, ``head`` say
    143   ended by SIGTERM

Each group of commands is a file: it adds its parsers, and says what does the work. Nothing that takes long to import is
imported before that work begins: ``--help`` is to be there at once.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from ..errors import AuthenticationError, ProminenceError, ServiceUnavailableError
from ..version import __version__
from . import account, env, image, jobs, runs, serve, sweep

_STATUSES = """\
exit status:
  0 done   1 not done, or failed   2 not understood   3 the service does not answer
  4 no token, or it is refused   130 Ctrl-C   141 nobody reads the output   143 SIGTERM"""
Work = Callable[[argparse.Namespace], int]


class AddParser(Protocol):
    """Adds the parser of a command: its name, its work, what it is for, and an example."""

    def __call__(self, name: str, work: Work, about: str, example: str) -> argparse.ArgumentParser:
        """Return the parser, for its arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that it does not have is no reason to fail
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


def parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="prominence-executor",
        description="Python functions as PROMINENCE jobs: runs, their calls and jobs; images; the embedded service.",
        epilog=f"example: prominence-executor runs\n\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"prominence-executor {__version__}")
    for_all(whole, suppress=False)
    groups = whole.add_subparsers(dest="group", required=True, metavar="COMMAND")

    for module in (runs, jobs, account):
        module.add_to(partial(_add, groups, ""))
    serve.add_to(groups.add_parser)
    for group in (image, env, sweep):
        own = groups.add_parser(
            group.NAME,
            help=f"{group.ABOUT} ({group.NAME} --help)",
            description=group.ABOUT[0].upper() + group.ABOUT[1:] + ".",
            epilog=f"example: prominence-executor {group.NAME} {group.EXAMPLE}",
        )
        commands = own.add_subparsers(dest="command", required=True, metavar="COMMAND")
        group.add_to(partial(_add, commands, f"{group.NAME} "))
    return whole


def _add(commands: Any, group: str, name: str, work: Work, about: str, example: str) -> argparse.ArgumentParser:
    """Add a command to the program's, or to those of a group, which stands before its example."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example: prominence-executor {group}{example}\n\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for_all(command)
    command.set_defaults(work=work, parser=command)
    if not group:
        command.set_defaults(command="")
    return command


def for_all(command: argparse.ArgumentParser, *, suppress: bool = True) -> None:
    """Add the options that may stand before a command or behind it, where they have no default (``suppress``)."""
    profile, debug = (argparse.SUPPRESS, argparse.SUPPRESS) if suppress else (None, False)
    about = "of the command config; also PROMINENCE_PROFILE"
    command.add_argument("--profile", metavar="NAME", default=profile, help=about)
    command.add_argument("--debug", action="store_true", default=debug, help="show the traceback of an error")


def status_of(error: BaseException) -> int:
    """Return the exit status that says what went wrong."""
    if isinstance(error, AuthenticationError):
        return 4
    return 3 if isinstance(error, ServiceUnavailableError) else 1


def _run(argv: Sequence[str] | None) -> int:
    whole = parser()
    arguments, rest = whole.parse_known_args(argv)
    if arguments.group == "serve":
        return serve.run(rest)
    if more := getattr(arguments, "more", None):
        name, kind = more
        rest = _taken(arguments, name, kind, rest)
    if rest:
        whole.error(f"unrecognized arguments: {' '.join(rest)}")
    work: Work = arguments.work
    try:
        with _ended_by_sigterm():
            return work(arguments)
    except BrokenPipeError:
        raise
    except (ProminenceError, ValueError, OSError, ImportError, RuntimeError) as error:
        if arguments.debug:
            import traceback

            traceback.print_exc()
        who = " ".join(filter(None, ("prominence-executor", arguments.group, arguments.command)))
        return _failed(f"{who}: {error}", status_of(error))


def _taken(arguments: argparse.Namespace, name: str, kind: Callable[[str], object], rest: list[str]) -> list[str]:
    """Take words behind an option as more of a command's last argument, which argparse may not; return the others."""
    words = [word for word in rest if not word.startswith("-")]
    try:
        setattr(arguments, name, [*getattr(arguments, name), *map(kind, words)])
    except argparse.ArgumentTypeError as error:
        arguments.parser.error(str(error))
    return [word for word in rest if word.startswith("-")]


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
    from ..shown import harmless

    sys.stderr.write(harmless(line, lines=True) + "\n")
    return status
