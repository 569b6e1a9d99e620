"""What mkdocs is told beside mkdocs.yml: the page of the command line is made of the parsers themselves.

It may not be a second place that knows a command or an option.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from prominence_executor import cli

_MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command in the mark's place."""
    return markdown.replace(_MARK, "\n".join(_sections([]))) if _MARK in markdown else markdown


def _sections(words: list[str]) -> list[str]:
    """Return a section for the command of these words, and those of its own commands."""
    shown = _help(words)
    title = " ".join(["prominence-executor", *words])
    return [
        f"## `{title}`\n\n```text\n{shown.rstrip()}\n```\n",
        *(section for name in _commands(shown) for section in _sections([*words, name])),
    ]


def _help(words: list[str]) -> str:
    """Return what ``--help`` prints, for a terminal of 96 columns."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="96", NO_COLOR="1")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([*words, "--help"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return printed.getvalue()


def _commands(shown: str) -> list[str]:
    """Return the names below ``COMMAND`` in a help text: four blanks, and one word."""
    lines = shown.split("\n")
    begin = next((at for at, line in enumerate(lines) if line.strip() == "COMMAND"), len(lines))
    return [line.split()[0] for line in lines[begin + 1 :] if line.startswith("    ") and line[4:5].strip()]
