"""``prominence-executor env``: the versions that were chosen for ``requirements=``, without service and token.

It may not hold logic that a program would miss.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from ..shown import harmless

if TYPE_CHECKING:
    from ..environments.locks import Lock
    from ..environments.wanted import Requirements
    from . import AddParser


NAME, ABOUT = "env", "packages that travel with calls: choose, show and forget versions"
EXAMPLE = "lock numpy scipy"


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    lock = add(
        "lock",
        _lock,
        "choose versions anew, for later runs, and print them with their hashes",
        "lock -r requirements.txt",
    )
    show = add("show", _show, "what was chosen: all of it, or the versions for some requirements", "show")
    for command, least in ((lock, "+"), (show, "*")):
        command.add_argument("requirement", nargs="*", metavar="REQUIREMENT", help="numpy, 'numpy>=2', ...")
        command.add_argument("-r", "--requirement-file", metavar="FILE", help="requirements.txt or pyproject.toml")
        command.add_argument("--platform", metavar="NAME", help="x86_64, aarch64, ...; default: this machine's kind")
        command.set_defaults(least=least)
    clear = add("clear", _clear, "remove what is kept: later runs choose versions anew", "clear --archives")
    clear.add_argument("--archives", action="store_true", help="the archives only, which can be made again")


def _asked(arguments: argparse.Namespace) -> Requirements | None:
    if arguments.requirement and arguments.requirement_file:
        arguments.parser.error("give requirements, or a file of them")
    asked: Requirements | None = arguments.requirement_file or arguments.requirement or None
    if asked is None and arguments.least == "+":
        arguments.parser.error("give requirements, or a file of them (-r)")
    return asked


def _lock(arguments: argparse.Namespace) -> int:
    from ..environments import store

    lock = store.locked(_asked(arguments) or [], arguments.platform, anew=True)
    sys.stdout.write(lock.text if lock is not None else "")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from ..environments import store
    from ..environments.wanted import wanted

    asked = _asked(arguments)
    looked_for = None if asked is None else wanted(asked, arguments.platform)
    found = [item for item in store.locks() if looked_for is None or item[0].wanted == looked_for]
    for lock, made, size in found:
        sys.stdout.write(harmless(_described(lock, made, size), lines=True))
    if not found:
        sys.stderr.write("nothing has been chosen\n")
    return 0 if found or looked_for is None else 1


def _described(lock: Lock, made: float, size: int | None) -> str:
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(made))
    archive = "no archive yet" if size is None else f"an archive of {size / 1e6:.1f} MB"
    lines = [
        f"{', '.join(lock.wanted.lines)}",
        f"  Python {lock.python}, {lock.wanted.target}; {lock.tool}, {date}; {archive}",
    ]
    return "\n".join([*lines, *(f"  {name} {version}" for name, version in sorted(lock.versions.items())), ""])


def _clear(arguments: argparse.Namespace) -> int:
    from ..environments import store

    freed = store.clear(archives_only=arguments.archives)
    sys.stdout.write(f"{freed / 1e6:.1f} MB removed from {store.folder()}\n")
    return 0
