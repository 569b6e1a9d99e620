"""The service as a program: `python -m prominence_executor.service --dir DIR`.

With --child it is one program's private service: one line of JSON when it is ready (to the descriptor that --says
names, if any), then silence, until its standard input ends or its parent is gone. It never prints a token otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import select
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from .node.platform import Platform
from .service import ENGINES, LocalService, check_numbers
from .serving import BEAT, go_on, said
from .state.directory import write_whole
from .state.shortage import shortage

_NOTICES = {
    "process": "Tasks run as plain processes of this machine, with your rights: not in containers.",
    "real": "Tasks run on this machine in the containers of their images.",
}
_ON_SLURM = "Jobs go to Slurm, and run on its nodes with your rights."
_PARENT_SECONDS = 0.5
_IDLE_LOOK = 5.0  # seconds between two looks whether the service is idle


def main(argv: Sequence[str] | None = None) -> int:
    """Serve in the foreground until SIGINT, SIGTERM or, with --child, until the parent is gone."""
    parser = _Parser(
        prog="prominence-executor serve", description=f"A PROMINENCE service on 127.0.0.1. {_NOTICES['process']}"
    )
    _add_options(parser)
    options = parser.parse_args(argv)
    try:
        check_numbers(options.port, options.cpus, options.memory, options.seconds_per_minute)
    except ValueError as error:
        parser.error(str(error))
    directory = options.dir
    if options.child:
        logging.getLogger().addHandler(logging.NullHandler())
    elif directory is None:
        directory = Path.home() / ".prominence" / "local"
    parent = os.getppid()
    _load_server()
    with _signals() as ended, ExitStack() as stack:
        try:
            service = LocalService(
                directory, options.port, options.cpus, options.memory, options.seconds_per_minute,
                containers=options.containers, smtp=options.smtp, platform=options.like_real,
                certfile=options.certfile, keyfile=options.keyfile, cafile=options.cafile,
                engine=options.engine, engine_options=dict(options.engine_option),
                bind=options.bind, public_url=options.public_url,
            )  # fmt: skip
            service.start()
        except (ImportError, RuntimeError, OSError, ValueError) as error:
            return _failed(error)
        try:
            if options.child:
                _say_ready(service, options.says)
                _await_orphaned(ended, parent)
            else:
                _write_token(service)
                serves = stack.enter_context(ExitStack())
                serves.enter_context(said(service.dir, service.url, service.cafile))
                notice = _ON_SLURM if options.engine == "slurm" else _NOTICES[options.containers]
                _introduce(service, None if options.quiet else notice)
                _await_end(service, ended, options.ends_when_idle)
                serves.close()  # while the directory is locked: what the next service says stays
        except BrokenPipeError:  # whoever should have read what is said is gone
            return 1
        except OSError as error:
            return _failed(error)
        finally:
            service.stop()
    return 0


def _load_server() -> None:
    """Import aiohttp without the authorities that its client would trust, whom nobody asks here: a tenth of the start.

    Only a program of its own may do this, before it has a thread that could miss them.
    """
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        importlib.import_module("aiohttp")
    except ImportError:
        pass  # the service says what is missing
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _failed(error: Exception) -> int:
    sys.stderr.write(f"{shortage(error) or error}\n")
    return 1


@contextmanager
def _signals() -> Iterator[int]:
    """Open a descriptor that becomes readable when the program is asked to end."""
    ended, wakes = os.pipe()
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: os.write(wakes, b".")) for number in asked}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ended)
        os.close(wakes)


def _say_ready(service: LocalService, descriptor: int | None) -> None:
    ready = {"url": service.url, "token": service.token}
    if descriptor is None:
        _print_line(json.dumps(ready))
    else:
        with open(descriptor, "w") as pipe:
            pipe.write(json.dumps({**ready, "dir": str(service.dir)}) + "\n")


def _introduce(service: LocalService, notice: str | None) -> None:
    token_file = service.dir / "token"
    if notice:
        _print_line(f"# {notice}")
    _print_line(f"export PROMINENCE_URL={service.url}")
    _print_line(f'export PROMINENCE_TOKEN="$(cat {shlex.quote(str(token_file))})"')
    if service.cafile is not None:
        _print_line(f"export PROMINENCE_SSL_VERIFY={shlex.quote(str(service.cafile))}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say in one sentence what was not understood."""
        self.exit(2, f"{self.prog}: {message}\n")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, help="where its state lives (default: ~/.prominence/local)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--cpus", type=int, help="slots that jobs share (default: the machine's)")
    parser.add_argument("--memory", type=int, help="GB that jobs share (default: the machine's)")
    parser.add_argument("--seconds-per-minute", type=float, default=60, help="shortens walltimes, for tests")
    parser.add_argument(
        "--containers", choices=list(_NOTICES), default=os.environ.get("PROMINENCE_CONTAINERS") or "process",
        help="real: tasks run in containers, by udocker or Apptainer as their runtime says "
        "(default: $PROMINENCE_CONTAINERS or process)",
    )  # fmt: skip
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="where it listens; all but 127.0.0.1 speaks HTTPS, with a certificate that is made unless there is one",
    )
    parser.add_argument("--public-url", metavar="URL", help="what clients and jobs are told, up to /prominence/v1")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="where jobs run (default: this machine)")
    parser.add_argument(
        "--engine-option", metavar="NAME=VALUE", action="append", default=[], type=_pair,
        help="what is said to Slurm for every job: partition, account, qos, constraint, gres, ..., or extra='--more'",
    )  # fmt: skip
    parser.add_argument("--smtp", metavar="HOST:PORT", help="sends notifications (default: files in DIR/mail)")
    parser.add_argument("--certfile", type=Path, help="a certificate for 127.0.0.1 (PEM): the service speaks HTTPS")
    parser.add_argument("--keyfile", type=Path, help="its key, unless that is in the same file")
    parser.add_argument("--cafile", type=Path, help="the authority behind it, if no public one, for clients and tasks")
    parser.add_argument(
        "--like-real", metavar="NAME=VALUE,...", nargs="?", const="", type=_platform,
        help="as slow and quirky as a real PROMINENCE was measured to be, but for these changes "
        "(the names are those of prominence_executor.service.Platform)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print the two export lines only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--ends-when-idle", type=float, metavar="SECONDS", help="end after so long without jobs and requests"
    )
    parser.add_argument("--says", type=int, help=argparse.SUPPRESS)


def _platform(changes: str) -> Platform:
    try:
        return Platform.measured(changes)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _write_token(service: LocalService) -> None:
    write_whole(service.dir / "token", service.token.encode())


def _await_end(service: LocalService, ended: int, idle: float | None) -> None:
    """Return when a signal comes, or when nothing has run, waited or been asked for so many seconds."""
    while not select.select([ended], [], [], BEAT if idle is None else min(idle, _IDLE_LOOK))[0]:
        go_on(service.dir)
        if idle is not None and service.idle_seconds() >= idle:
            return


def _await_orphaned(ended: int, parent: int) -> None:
    """Return when standard input ends, a signal comes, or the parent is another process than at the start."""
    watched = [0, ended]
    while os.getppid() == parent:
        ready, _, _ = select.select(watched, [], [], _PARENT_SECONDS)
        if ended in ready or (0 in ready and not os.read(0, 4096)):
            return


if __name__ == "__main__":
    sys.exit(main())
