"""How much memory the processes of sandboxes use; a page that several of them share counts once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from .processes import MARK


def used(marks: Collection[str]) -> Counter[str]:
    """Return the bytes that the processes of each of these sandboxes use; nothing on a machine without /proc."""
    found: Counter[str] = Counter()
    known = {f"{MARK}={mark}".encode(): mark for mark in marks}
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()] if known else []
    except OSError:
        return found
    for pid in pids:
        try:
            variables = Path("/proc", pid, "environ").read_bytes().split(b"\0")
            mark = next((known[variable] for variable in variables if variable in known), None)
            if mark is not None:
                found[mark] += _share(Path("/proc", pid, "smaps_rollup").read_text())
        except OSError:  # gone, or somebody else's
            continue
    return found


def _share(rollup: str) -> int:
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
