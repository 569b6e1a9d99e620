"""The formats of what is stored have numbers, so that what a newer version has written is refused and not misread.

The number stands in the first line of a file (``PXOBJ1``), in JSON (``"format": 1``), or as SQLite's ``user_version``.
It goes up when earlier versions would misread what is written. This module makes the sentences; it reads no file, and
imports nothing of this package.
"""

from __future__ import annotations

import re


def newer(what: str, found: int, known: int) -> str:
    """Say why something is refused: both versions, and what to do."""
    return f"{what} has format {found}, this version of prominence-executor reads {known}: update prominence-executor"


def newer_file(what: str, line: bytes, known: bytes) -> str | None:
    """Say the same of a file that begins with ``line``, not with ``known``; None when it is no file of that kind."""
    kind, number = _parts(known)
    found_kind, found = _parts(line)
    return newer(what, found, number) if found_kind == kind and found > number else None


def _parts(line: bytes) -> tuple[bytes, int]:
    match = re.fullmatch(rb"(PX[A-Z]+)([0-9]+)\n?", line)
    return (match[1], int(match[2])) if match else (b"", 0)
