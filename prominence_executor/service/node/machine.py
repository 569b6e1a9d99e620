"""What a run reports of this machine, and which one it is."""

from __future__ import annotations

import os
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


def loopback() -> str:
    """Return what is the same for two programs that reach each other by 127.0.0.1: of one boot, and one network."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        return os.uname().nodename


def loopback_of(url: str) -> str:
    """Return that of this machine where no other reaches a service of this URL, and there is no TLS; else ""."""
    return loopback() if url.startswith(("http://127.", "http://localhost")) else ""
