"""For which machines packages are chosen: Linux on x86_64 or aarch64, of glibc from some version on, or musl. Pure."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass

MACHINES = ("x86_64", "aarch64")
_GLIBC = 28  # of 2.28: every distribution since 2018 has it, and what packages are built for
_OLDEST, _NEWEST = 17, 40  # that uv knows
_FORMS = "'x86_64', 'aarch64', or as 'x86_64-manylinux_2_28' and 'x86_64-musl'"


@dataclass(frozen=True)
class Target:
    """A kind of Linux machine."""

    machine: str  # as uname says it
    glibc: int | None = _GLIBC  # the minor version of 2.x that it has at least; None: it has musl

    @property
    def name(self) -> str:
        """What `target` reads."""
        return f"{self.machine}-musl" if self.glibc is None else f"{self.machine}-manylinux_2_{self.glibc}"

    @property
    def of_uv(self) -> str:
        """Uv's name for it."""
        return f"{self.machine}-unknown-linux-musl" if self.glibc is None else self.name

    def of_pip(self) -> list[str]:
        """List pip's names for the platforms whose wheels fit, the best first."""
        if self.glibc is None:
            return [f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1)]
        tags = []
        for minor in range(self.glibc, 4, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            older = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor)
            if older:
                tags.append(f"{older}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    def is_like_here(self) -> bool:
        """Return whether this program runs on such a machine, so that pip evaluates markers as the target would."""
        return sys.platform == "linux" and platform.machine() == self.machine

    def __str__(self) -> str:
        library = "musl" if self.glibc is None else f"glibc 2.{self.glibc}"
        return f"Linux on {self.machine} with {library}"


def target(name: str | None) -> Target:
    """Return what a name means; without one this machine's kind, where that is Linux, else x86_64.

    Raises:
        ValueError: there is no such platform.
    """
    if name is None:
        here = platform.machine()
        return Target(here if sys.platform == "linux" and here in MACHINES else MACHINES[0])
    match = re.fullmatch(r"(x86_64|aarch64)(?:-(?:(musl)|manylinux_2_(\d+)))?", name) if isinstance(name, str) else None
    if match is None or (match[3] and not _OLDEST <= int(match[3]) <= _NEWEST):
        raise ValueError(f"requirements_platform must be one of {_FORMS}, not {name!r}")
    if match[2]:
        return Target(match[1], None)
    return Target(match[1], int(match[3] or _GLIBC))
