"""The snippets of a Markdown page, and how they are run: as a reader would, one after the other in one folder.

A ``python`` block is a program. A ``console`` block has commands, each behind "$ ". What a ``text`` block right behind
a program says, and what a console block says below a command, is compared with what was printed; ``...`` stands for
anything. A comment on the line before a block says what it needs::

    <!-- not run: it needs a Slurm with two nodes -->
    <!-- needs: mpirun, mpi4py -->
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from paths import ROOT
from wheels import only_these, wheel_of_installed

from prominence_executor.local import LocalService

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```$(?:\n\s*```text\n(?P<output>.*?)```$)?",
    re.DOTALL | re.MULTILINE,
)
_MARK = re.compile(r"<!-- (not run|needs): ([^\n]*) -->\s*\Z")
_PATIENCE = 250  # seconds for one of them, on whatever machine


@dataclass(frozen=True)
class Snippet:
    """A block of a page; ``where`` is "page:line", ``not_run`` why nothing runs it, ``needs`` programs and modules."""

    where: str
    language: str
    text: str
    output: str | None = None
    not_run: str = ""
    needs: tuple[str, ...] = ()


def snippets(page: Path) -> list[Snippet]:
    """Return the programs and commands of a page, in their order."""
    text, found = page.read_text(), []
    for match in _BLOCK.finditer(text):
        if match["language"] in ("python", "console"):
            mark = _MARK.search(text[: match.start()])
            kind, words = mark.groups() if mark else ("", "")
            found.append(
                Snippet(
                    where=f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}",
                    language=match["language"],
                    text=re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
                    output=match["output"],
                    not_run=words if kind == "not run" else "",
                    needs=tuple(words.split(", ")) if kind == "needs" else (),
                )
            )
    return found


def environment_of(service: LocalService, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which snippets find the service, the command, and packages.

    Each time as another user: the ids of a page's runs are new, whoever has run the page before.
    """
    bin_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **os.environ, **packages, "PATH": bin_first, "PYTHONPATH": str(ROOT),
        "PROMINENCE_URL": service.url, "PROMINENCE_TOKEN": service.token_for(f"reader-{uuid.uuid4().hex[:8]}"),
    }  # fmt: skip


def packages_of(folder: Path) -> dict[str, str]:
    """Return the variables with which snippets have a home, and uv and pip what they require, without a network."""
    for name in ("wheels", "home"):
        (folder / name).mkdir()
    wheel_of_installed(folder / "wheels", "packaging")
    home = str(folder / "home")
    return {**only_these(folder / "wheels"), "HOME": home, "XDG_CACHE_HOME": home}


def run(snippet: Snippet, environment: Mapping[str, str], folder: Path) -> None:
    """Run it in the folder, and compare what it prints. Skips what needs something that is not here."""
    for name in snippet.needs:
        if not shutil.which(name) and not importlib.util.find_spec(name):
            pytest.skip(f"{snippet.where} needs {name}")
    (_run_program if snippet.language == "python" else _run_commands)(snippet, environment, folder)


def _run_program(snippet: Snippet, environment: Mapping[str, str], folder: Path) -> None:
    script = folder / "example.py"
    script.write_text(snippet.text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], env=environment, capture_output=True, text=True,
        timeout=_PATIENCE, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, f"{snippet.where}\n{done.stdout}{done.stderr}"
    assert done.stdout, snippet.where
    assert done.stderr == "", f"{snippet.where}\n{done.stderr}"
    if snippet.output is not None:
        _compare(snippet, snippet.output, done.stdout)


def _run_commands(snippet: Snippet, environment: Mapping[str, str], folder: Path) -> None:
    for part in re.split(r"^\$ ", snippet.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=_PATIENCE, check=False, cwd=folder, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{snippet.where}: {command}\n{done.stdout}"
        if output.strip():
            _compare(snippet, output, done.stdout)


def _compare(snippet: Snippet, expected: str, printed: str) -> None:
    lines = (re.escape(line.rstrip()).replace(re.escape("..."), ".*") for line in expected.strip().split("\n"))
    pattern = "\n".join(lines).replace("\n.*\n", "\n(?:.*\n)?")
    shown = "\n".join(line.rstrip() for line in printed.strip().split("\n"))
    assert re.fullmatch(pattern, shown, re.DOTALL), (
        f"{snippet.where}: the page says\n{expected}\nbut it printed\n{shown}"
    )
