"""A module beside the script script.py: what it has is pickled by its name."""

from __future__ import annotations

import functools
import typing


@functools.lru_cache(maxsize=8)
def tripled(x: int) -> int:
    return 3 * x


Metres = typing.NewType("Metres", float)


class Vacuum:
    def __reduce__(self) -> str:
        return "VACUUM"


VACUUM = Vacuum()
