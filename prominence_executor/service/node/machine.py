"""What a run reports of this machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def processor() -> dict[str, str]:
    """Return the machine's processor as the worker reports it: clock in MHz, model, vendor."""
    found = {"clock": "", "model": "", "vendor": ""}
    names = {"cpu MHz": "clock", "model name": "model", "vendor_id": "vendor"}
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in reversed(lines):
        name, _, value = line.partition(":")
        if name.strip() in names:
            found[names[name.strip()]] = value.strip()
    return found
