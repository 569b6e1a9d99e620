"""Whether the kernel has killed something of this job for lack of memory, as the job's control group counts it.

A batch system that limits memory has the kernel do so: it kills a task, not the program that started it, which sees a
process that was killed and cannot know by whom. Reads only.
"""

from __future__ import annotations

import re
from pathlib import Path

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def killed(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processes of this control group were killed for lack of memory; 0 where that is not counted."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return 0
    total = 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            file = root / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = root / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        try:
            found = _COUNT.search(file.read_text())
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total
