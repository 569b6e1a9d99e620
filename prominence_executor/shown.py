"""Text from anywhere as people may be shown it: in a terminal or a log, and in HTML.

Names of functions, reasons of the service, outputs of calls: what came from outside is data, never an instruction to a
terminal, nor markup. Pure functions; it may not know what it shows.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

_LONGEST = 500  # characters of one value
_LINES = 20  # of one value

# Control characters, those that change the direction of what follows or cannot be seen, halves of surrogate pairs,
# which no terminal or file takes, line and paragraph separators.
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")

# No colours of its own but the text's, so that it can be read on dark and on light.
_TABLE = "border-collapse:collapse;color:inherit;background:transparent"
_CELL = "border:1px solid rgba(128,128,128,0.4);padding:2px 8px;text-align:left;color:inherit;background:transparent"


def on_terminal(text: object, longest: int = _LONGEST) -> str:
    """Return it on one line: what a terminal would obey is written out, and what is too long is cut."""
    whole = str(text)
    shown = harmless(whole[:longest])
    return shown + "..." if len(whole) > longest else shown


def harmless(text: str, *, lines: bool = False) -> str:
    r"""Return a text with what a terminal would obey, or not show, as it would be written in Python: ``\x1b``.

    ``lines``: line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(
        letter if letter in kept or unicodedata.category(letter) not in _HARMFUL else repr(letter)[1:-1]
        for letter in text
    )


def in_html(text: object, longest: int = _LONGEST) -> str:
    """Return it as it may stand in HTML, between tags and in quoted attributes."""
    return html.escape(on_terminal(text, longest), quote=True)


def lines_in_html(text: object, longest: int = 2 * _LONGEST) -> str:
    """Return several lines as `in_html` does one."""
    shown = str(text)[: longest + 1]
    return "<br>".join(in_html(line, longest) for line in shown.splitlines()[:_LINES]) or ""


def facts(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a small table of names and values as HTML; everything in it is escaped, and what is None left out."""
    lines = [
        f'<tr><th style="{_CELL}">{in_html(name)}</th><td style="{_CELL}">{lines_in_html(value)}</td></tr>'
        for name, value in rows
        if value is not None
    ]
    return _whole(title, lines)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a head as HTML; everything in it is escaped."""
    lines = ["<tr>" + "".join(f'<th style="{_CELL}">{in_html(name)}</th>' for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(f'<td style="{_CELL}">{in_html(value)}</td>' for value in row) + "</tr>" for row in rows]
    return _whole(title, lines)


def _whole(title: str, lines: list[str]) -> str:
    caption = f"<div><strong>{in_html(title)}</strong></div>" if title else ""
    return f'<div>{caption}<table style="{_TABLE}"><tbody>{"".join(lines)}</tbody></table></div>'
