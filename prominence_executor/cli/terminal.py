"""Text for people: tables, times, and names and logs from outside made harmless. With ``rich`` a little nicer.

It knows no verb, and asks nobody. What other people have named or printed never reaches a terminal as it is: an escape
sequence could rewrite what stands there.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_GAP = "  "
_NARROWEST = 8  # characters to which a column is cut


def harmless(text: str, *, lines: bool = False) -> str:
    r"""Return a text with its control characters as they would be written in Python: ``\x1b``.

    So are those that change the direction of text, or cannot be seen. ``lines``: line breaks and tabs stay.
    """
    kept = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(
        letter
        if letter in kept or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else _written(letter)
        for letter in text
    )


def _written(letter: str) -> str:
    return repr(letter)[1:-1] if letter != "\\" else letter


def print_json(value: Any) -> None:
    """Print dataclasses, and what they are in, as JSON: ASCII, so that no escape sequence is in it."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    from dataclasses import asdict, is_dataclass  # it imports inspect

    if isinstance(value, range):
        return {"first": value.start, "last": value.stop - 1} if value else None
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def moment(seconds: float | None) -> str:
    """Return a time of day, with its date, on this machine's clock."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: ``12.3s`` is false precision, ``1:02:03`` is read at a glance."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
    )


def numbers(calls: Sequence[int]) -> str:
    """Return the numbers of calls that follow one another."""
    if not calls:
        return ""
    return str(calls[0]) if len(calls) == 1 else f"{calls[0]}-{calls[-1]}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the columns' names: as wide as the terminal, and as wide as they are into a pipe."""
    table = [[harmless(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and (rich := _rich_table(columns, table)) is not None:
        from rich.console import Console

        Console(highlight=False).print(rich)
        return
    print("\n".join(plain_table(columns, table, _width())))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return a table's lines; ``width``: of the terminal, None for no limit."""
    table = [[name.upper() for name in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if width is not None:
        _shrink(widths, width - len(_GAP) * (len(widths) - 1))
    return [
        _GAP.join(_cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _shrink(widths: list[int], room: int) -> None:
    """Take from the widest columns until all have room, or none can be narrower."""
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Make a table of ``rich``, whose cells are text and no markup; None without it."""
    try:
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name.upper(), no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


_STYLES = {
    "running": "green", "completed": "dim", "failed": "red", "killed": "red", "deleted": "yellow", "held": "yellow",
    "lost": "red", "error": "red", "problem": "red", "look": "yellow",
}  # fmt: skip


class LiveTable:
    """A table on a terminal that is drawn anew in its place, with ``rich``; else a line whenever its title changes."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said = ""
        if sys.stdout.isatty():
            try:
                from rich.live import Live
            except ImportError:
                return
            self._live = Live(auto_refresh=False)

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show how things are now."""
        title = harmless(title)
        if self._live is not None:
            from rich.console import Group
            from rich.text import Text

            room = max(1, shutil.get_terminal_size().lines - 4)
            cells = [[harmless(cell) for cell in row] for row in rows[:room]]
            more = [Text(f"... and {len(rows) - room} more")] if len(rows) > room else []
            self._live.update(Group(Text(title), _rich_table(columns, cells), *more), refresh=True)
        elif title != self._said:
            print(f"{time.strftime('%H:%M:%S')}  {title}", flush=True)
        self._said = title
