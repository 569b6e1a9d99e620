"""Byte code and sources as they travel: without what only their readers would miss.

It knows no archives. Since Python 3.11 a third of compressed byte code says in which columns of a line an instruction
stands; the lines stay.
"""

from __future__ import annotations

import io
import marshal
import sys
import tokenize
from functools import lru_cache
from itertools import pairwise
from types import CodeType

_NO_COLUMNS, _NO_LINE = 13, 15  # kinds of entries in a location table
_LONGEST = 8  # code units of an entry
_UNIT = 2  # bytes of a code unit


@lru_cache(maxsize=32)
def compiled(source: bytes, filename: str) -> bytes:
    """Return what a source is compiled to, without docstrings and asserts, as `marshal` writes it."""
    return marshal.dumps(small(compile(source, filename, "exec", dont_inherit=True, optimize=2)))


@lru_cache(maxsize=32)
def bare(source: bytes) -> bytes:
    """Return a source without comments and docstrings; each line of code stays where it is.

    By its tokens, since a tree of it is not to be made in a thread: in Python 3.11 two at a time fail.
    """
    lines = source.decode("utf-8").splitlines()
    begins = True  # of a statement
    tokens = list(tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline))
    for token, following in pairwise(tokens):
        (row, column), (last, _) = token.start, token.end
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip()
        elif token.type == tokenize.STRING and begins and following.type == tokenize.NEWLINE:
            lines[row - 1 : last] = [" " * column + '""', *[""] * (last - row)]
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    return ("\n".join(lines) + "\n").encode()


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
