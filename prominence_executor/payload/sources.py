"""The text of the script, which travels with a function so that tracebacks there show its lines. It knows no pickles.

Of files alone that have code in the pickle, as `linecache` knows them: a notebook's cells, too.
"""

from __future__ import annotations

import linecache
import zlib
from collections.abc import Iterable
from functools import lru_cache
from types import CodeType

LARGEST = 256 << 10  # characters of a file; the text of a larger one stays here
TOGETHER = 128 << 10  # compressed bytes of all files of a function


def packed_sources(code: Iterable[CodeType]) -> dict[str, bytes]:
    """Return the texts of the files that code is from, compressed, as far as there is room; by the files' names."""
    packed: dict[str, bytes] = {}
    room = TOGETHER
    for name in sorted({item.co_filename for item in code}):
        lines = linecache.getlines(name)
        if 0 < sum(map(len, lines)) <= LARGEST:
            content = _compressed(tuple(lines))
            room -= len(content)
            if room >= 0:
                packed[name] = content
    return packed


@lru_cache(maxsize=50)
def _compressed(lines: tuple[str, ...]) -> bytes:
    return zlib.compress("".join(lines).encode("utf-8", "surrogatepass"), 9)
