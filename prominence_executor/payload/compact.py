"""Byte code as it travels: without what only its readers would miss.

It knows no archives. Since Python 3.11 a third of compressed byte code says in which columns of a line an instruction
stands; the lines stay.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
from functools import lru_cache
from types import CodeType

_UNCHECKED = (1).to_bytes(4, "little")  # PEP 552: valid whatever its source is
_NO_COLUMNS, _NO_LINE = 13, 15  # kinds of entries in a location table
_LONGEST = 8  # code units of an entry
_UNIT = 2  # bytes of a code unit


@lru_cache(maxsize=32)
def compiled(source: bytes, filename: str) -> bytes:
    """Return the content of a .pyc file, without docstrings and asserts."""
    code = compile(source, filename, "exec", dont_inherit=True, optimize=2)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(source) + marshal.dumps(small(code))


def small(code: CodeType) -> CodeType:
    """Return the same code without columns, or as it is where this Python has another format for them."""
    if sys.version_info < (3, 11):
        return code
    parts = tuple(small(item) if isinstance(item, CodeType) else item for item in code.co_consts)
    other = code.replace(co_consts=parts, co_linetable=_lines_only(code))
    return other if list(other.co_lines()) == list(code.co_lines()) else code


def _lines_only(code: CodeType) -> bytes:
    """Return a location table (Objects/locations.md of CPython) that says the lines alone."""
    table = bytearray()
    before = code.co_firstlineno
    for start, end, line in code.co_lines():
        units = (end - start) // _UNIT
        while units > 0:
            length = min(units, _LONGEST)
            units -= length
            table.append(0x80 | (_NO_LINE if line is None else _NO_COLUMNS) << 3 | length - 1)
            if line is not None:
                table += _signed(line - before)
                before = line
    return bytes(table)


def _signed(number: int) -> bytes:
    """Return a number in six bits a byte, the lowest first; its sign is the lowest bit."""
    left = -number << 1 | 1 if number < 0 else number << 1
    encoded = bytearray()
    while left >= 64:
        encoded.append(0x40 | left & 0x3F)
        left >>= 6
    encoded.append(left)
    return bytes(encoded)
