"""Text for people: tables, times, and names and logs from outside made harmless. With ``rich`` a little nicer.

It knows no verb, and asks nobody. What other people have named or printed never reaches a terminal as it is: an escape
sequence could rewrite what stands there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..shown import harmless

_ROWS = 10  # of calls that follow one another, which are named
_GAP = "  "
_NARROWEST = 8  # characters to which a column is cut
_READABLE = 20  # characters of a column for which others are left out
_LONG_AGO = 180 * 86_400.0  # seconds, from which on the year says more than the time


def for_scripts(command: argparse.ArgumentParser) -> None:
    """Add the option of all commands that list something."""
    command.add_argument("--json", action="store_true", help="as JSON, for scripts")


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


def moment(seconds: float | None, now: float | None = None) -> str:
    """Return a time of day, with its date, on this machine's clock; the day alone where that is long ago."""
    if seconds is None:
        return ""
    long_ago = abs((time.time() if now is None else now) - seconds) > _LONG_AGO
    return time.strftime("%Y-%m-%d" if long_ago else "%m-%d %H:%M:%S", time.localtime(seconds))


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


def ranges(calls: Sequence[int]) -> str:
    """Name calls by their numbers, those in a row by the first and the last; no more of them than can be read."""
    starts = [at for at, call in enumerate(calls) if at == 0 or calls[at - 1] != call - 1]
    rows = [calls[start:end] for start, end in zip(starts, [*starts[1:], len(calls)], strict=True)]
    shown = ", ".join(numbers(row) for row in rows[:_ROWS]) + (", ..." if len(rows) > _ROWS else "")
    return f"calls {shown} ({len(calls)})" if len(calls) > 1 else f"call {shown}"


def counted(number: int, what: str) -> str:
    """Return ``1 job``, ``2 jobs``."""
    return f"{number} {what}{'s' * (number != 1)}"


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        whole: those that are never cut: whoever reads the table types what stands in them.
        spare: those that are left out where there is no room, the first one first. The others are cut.
    """

    names: tuple[str, ...]
    whole: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()


def paragraph(text: str) -> str:
    """Return a sentence from outside, harmless, and broken between words where a terminal is narrower."""
    text = harmless(text)
    if not sys.stdout.isatty():
        return text
    from textwrap import fill

    return fill(text, max(20, shutil.get_terminal_size().columns), subsequent_indent="  ", break_on_hyphens=False)


def print_table(columns: Columns, rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the columns' names: as wide as the terminal, and as wide as they are into a pipe."""
    table = [[harmless(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print("\n".join(joined([columns.names, *table])))
        return
    fitted = fit(columns, table, shutil.get_terminal_size().columns)
    if (rich := _rich_table(fitted)) is not None:
        from rich.console import Console

        Console(highlight=False).print(rich)
    else:
        print("\n".join(joined(fitted)))


def fit(columns: Columns, rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Return the head and the rows of a table that is no wider than this, unless `Columns.whole` are: cells are cut."""
    table = [list(columns.names), *map(list, rows)]
    cut = [name for name in columns.names if name not in (*columns.whole, *columns.spare)]
    for name in columns.spare:
        if sum(min(size, _READABLE) if name in cut else size for name, size in _sizes(table)) <= width - _gaps(table):
            break
        at = table[0].index(name)
        table = [row[:at] + row[at + 1 :] for row in table]
    sizes = dict(_sizes(table))
    while cut and sum(sizes.values()) > width - _gaps(table):
        widest = max(cut, key=lambda name: sizes[name])
        if sizes[widest] <= _NARROWEST:
            break
        sizes[widest] -= 1
    return [[_cut(cell, size) for cell, size in zip(row, sizes.values(), strict=True)] for row in table]


def joined(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: its head, and its rows."""
    table = [[name.upper() for name in table[0]], *table[1:]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_GAP.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in table]


def _sizes(table: Sequence[Sequence[str]]) -> list[tuple[str, int]]:
    return [(column[0], max(map(len, column))) for column in zip(*table, strict=True)]


def _gaps(table: Sequence[Sequence[str]]) -> int:
    return len(_GAP) * (len(table[0]) - 1)


def _cut(text: str, width: int) -> str:
    """Cut a text in its middle: of names both ends say something."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"


def _rich_table(table: Sequence[Sequence[str]]) -> Any:
    """Make a table of ``rich``, whose cells are text and no markup; None without it."""
    try:
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, len(_GAP), 0, 0))
    for name in table[0]:
        shown.add_column(Text(name.upper()), no_wrap=True)
    for row in table[1:]:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return shown


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

    def show(self, title: str, columns: Columns, rows: Sequence[Sequence[str]]) -> None:
        """Show how things are now."""
        title = harmless(title)
        if self._live is not None:
            from rich.console import Group
            from rich.text import Text

            width, height = shutil.get_terminal_size()
            room = max(1, height - 4)
            cells = [[harmless(cell) for cell in row] for row in rows[:room]]
            more = [Text(f"... and {len(rows) - room} more")] if len(rows) > room else []
            self._live.update(Group(Text(title), _rich_table(fit(columns, cells, width)), *more), refresh=True)
        elif title != self._said:
            print(paragraph(f"{time.strftime('%H:%M:%S')}  {title}"), flush=True)
        self._said = title
