"""Each program of the gallery runs on the embedded service, finds what is known, and draws its picture."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from variables import unmeasured

pytestmark = [pytest.mark.once, pytest.mark.timeout(600)]

EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
HAS_MPI = shutil.which("mpirun") is not None and importlib.util.find_spec("mpi4py") is not None


def variables() -> dict[str, str]:
    """The environment of somebody who has chosen no service."""
    variables = unmeasured(PYTHONPATH=str(ROOT), MPLBACKEND="Agg", IPYTHONDIR=os.devnull)
    return {name: value for name, value in variables.items() if not name.startswith("PROMINENCE_")}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, env=variables(), cwd=folder, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_of_the_gallery_has_its_picture_and_its_place_in_the_list() -> None:
    pictures = {path.stem for path in (EXAMPLES / "pictures").iterdir()}
    text = (EXAMPLES / "README.md").read_text()
    assert pictures == {*PROGRAMS, *NOTEBOOKS} - {"tree"}
    for path in EXAMPLES.iterdir():
        assert path.suffix not in (".py", ".ipynb") or f"({path.name})" in text
    for name in pictures:
        assert f"(pictures/{name}.png)" in text
        assert (EXAMPLES / "pictures" / f"{name}.png").stat().st_size < 60_000


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "tree"])
def test_a_program_of_the_gallery_finds_what_is_known(name: str, tmp_path: Path) -> None:
    if name == "mpi_heat" and not HAS_MPI:
        pytest.skip("no mpirun or no mpi4py here")
    assert "as it should be" in run([sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]


@pytest.mark.parametrize("options", [["--pieces", "3", "--bins", "400000"], ["--pieces", "9", "--warm"]])
def test_a_tree_reduction_loses_nothing(options: list[str], tmp_path: Path) -> None:
    tree = [sys.executable, "-W", "error", str(EXAMPLES / "tree.py"), "--url", "local", "--rows", "1000", *options]
    assert "none is missing" in run(tree, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_of_the_gallery_runs_in_a_kernel(name: str, tmp_path: Path) -> None:
    program = (
        "import nbformat, sys; from nbclient import NotebookClient\n"
        "book = nbformat.read(sys.argv[1], 4)\n"
        "NotebookClient(book, timeout=550, kernel_name='python3').execute()\n"
        "print([output.get('text') for cell in book.cells for output in cell.get('outputs', [])])\n"
    )
    assert "as it should be" in run([sys.executable, "-c", program, str(EXAMPLES / f"{name}.ipynb")], tmp_path)
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
