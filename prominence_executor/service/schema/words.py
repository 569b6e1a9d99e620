"""A command as words, by the rules of Python's `shlex.split`.

That one is quadratic, and needs 20 seconds for a word of 1 MB; here the time grows with the length alone. Pure.
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    | (?P<plain>[^ \t\r\n'"\\]+)
    | '(?P<single>[^']*)'
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | \\(?P<escaped>.)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPED = re.compile(r'\\(["\\])')


def split(command: str) -> list[str]:
    """Return the words of a command. Raises ValueError for quotes that do not close."""
    words: list[str] = []
    pieces: list[str] | None = None  # of the word that has begun, which may be an empty one
    position = 0
    while position < len(command):
        found = _PIECE.match(command, position)
        if found is None:
            raise ValueError("no escaped character" if command[position] == "\\" else "no closing quotation")
        kind, position = str(found.lastgroup), found.end()
        if kind != "blank":
            pieces = [] if pieces is None else pieces
            pieces.append(_ESCAPED.sub(r"\1", found[kind]) if kind == "double" else found[kind])
        elif pieces is not None:
            words.append("".join(pieces))
            pieces = None
    return words if pieces is None else [*words, "".join(pieces)]
