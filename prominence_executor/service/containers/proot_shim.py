"""Runs PRoot for udocker as newer releases of PRoot would: standard library only, run by its path.

udocker asks PRoot to pretend the kernel's own version (-k). In PRoot 5.1.0 that breaks fstat, so no program starts.
And that release cannot end what a task left running (--kill-on-exit), but waits for it. What a task's environment adds
to its container's comes in a file: on udocker's command line others could read it.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ENVIRONMENT = "PROMINENCE_LOCAL_ENVIRONMENT"  # the variable that names the file
_LONGEST = 0.5  # seconds between two looks


def main(words: list[str]) -> int:
    """Run PRoot with these words until the task's first process has ended; return its exit code."""
    if "-k" in words:  # udocker's own comes before the task's words
        place = words.index("-k")
        del words[place : place + 2]
    environment = dict(os.environ)
    given = environment.pop(ENVIRONMENT, None)
    if given is not None:
        environment.update(json.loads(Path(given).read_bytes()))  # udocker starts PRoot more than once: it stays
    proot = subprocess.Popen(words, env=environment)  # noqa: S603
    pause = 0.05
    while True:
        try:
            code = proot.wait(timeout=pause)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            pause = min(pause * 1.5, _LONGEST)
        # PRoot's only child is the task's first process; all of the task's are traced by it.
        if not _children(proot.pid):
            for tracee in _traced_by(proot.pid):
                with suppress(OSError):
                    os.kill(tracee, signal.SIGKILL)


def _children(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
    except OSError:
        return "unknown"


def _traced_by(pid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # gone meanwhile
            if f"\nTracerPid:\t{pid}\n" in Path("/proc", name, "status").read_text():
                found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
