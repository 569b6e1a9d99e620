"""What mkdocs is told beside mkdocs.yml: pages that are made of what they show.

The page of the command line is made of the parsers, those of the gallery of the programs in ``examples/``, with the
pictures that these have drawn. It may not be a second place that knows a command, an option or a program.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from prominence_executor import cli

_MARK = "<!-- commands -->"
_EXAMPLES = Path(__file__).parents[1] / "examples"
_LIST = "../../examples/README.md"  # of the gallery, as pages of the repository link to it


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the gallery: its list, a page for each program and notebook, and their pictures."""
    listed = (_EXAMPLES / "README.md").read_text()
    listed = re.sub(r"\((\w+)\.(?:py|ipynb)\)", r"(\1.md)", listed).replace("(pictures/", "(")
    files.append(File.generated(config, "gallery/index.md", content=listed))
    for picture in (_EXAMPLES / "pictures").iterdir():
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    for path in sorted([*_EXAMPLES.glob("*.py"), *_EXAMPLES.glob("*.ipynb")]):
        page = _of_notebook(path) if path.suffix == ".ipynb" else _of_program(path)
        files.append(File.generated(config, f"gallery/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command in the mark's place, and lead to the gallery's pages instead of its files."""
    markdown = markdown.replace(_LIST, "../gallery/index.md")
    return markdown.replace(_MARK, "\n".join(_sections([]))) if _MARK in markdown else markdown


def _of_program(path: Path) -> str:
    """Return the page of a program: what it says of itself, its picture, and the rest of it."""
    source = path.read_text()
    title, _, text = (ast.get_docstring(ast.parse(source)) or path.stem).partition("\n")
    rest = source.split('"""\n', 1)[1].strip()
    return f"# {title.rstrip('.')}\n{text}\n\n{_picture(path)}\n\n```python\n{rest}\n```\n"


def _of_notebook(path: Path) -> str:
    """Return the page of a notebook: its cells, what they have printed, and its picture behind the first words."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", []))
        parts += [f"```text\n{printed.rstrip()}\n```"] if printed else []
    parts.insert(1, _picture(path))
    return "\n\n".join(parts)


def _picture(path: Path) -> str:
    there = (_EXAMPLES / "pictures" / f"{path.stem}.png").exists()
    where = f"[`examples/{path.name}`](index.md)"
    return f"![What {path.name} draws]({path.stem}.png)\n\nThis is {where}." if there else f"This is {where}."


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
