"""Programs on a terminal of their own: 80 columns, and what they have written there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COLUMNS = 80


def on_terminal(
    command: Sequence[str],
    variables: Mapping[str, str],
    when: Callable[[bytes, subprocess.Popen[bytes]], None] = lambda shown, program: None,
    seconds: float = 60.0,
) -> tuple[int, str]:
    """Run a program whose input, output and errors are one terminal; return its exit status and all that it wrote.

    ``when``: called with what has been written so far, whenever that is more.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    shown = bytearray()
    deadline = time.monotonic() + seconds
    environment = {**variables, "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "24"}
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as program:
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.1)[0]:
                    block = os.read(ours, 65536)
                    if not block:
                        break
                    shown += block
                    when(bytes(shown), program)
        if program.poll() is None and time.monotonic() >= deadline:
            program.kill()
        status = program.wait(20)
    os.close(ours)
    return status, shown.decode("utf-8", "replace")


def without_extra(folder: Path) -> str:
    """Make a directory for PYTHONPATH with which there are no ``rich`` and no ``shtab``; return its path."""
    for name in ("rich", "shtab"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not installed')\n")
    return str(folder)
