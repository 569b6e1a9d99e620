"""How a job starts: from memory, on any Python, with few imports, and with nothing of what lies in its directory."""

from __future__ import annotations

import linecache
import marshal
import os
import subprocess
import sys
import venv
import zlib
from pathlib import Path
from typing import Any

import pytest
from job_directory import JobDirectory
from variables import unmeasured

from prominence_executor import remote
from prominence_executor.payload import archive
from prominence_executor.remote.wire import RUNNER_DATA

COSTLY = {
    "ast", "cloudpickle", "dataclasses", "enum", "hashlib", "importlib.util", "inspect", "json", "linecache", "logging",
    "pickle", "re", "runpy", "signal", "struct", "subprocess", "tempfile", "threading", "tokenize", "traceback",
    "typing", "weakref", "zipfile",
}  # fmt: skip
REMOTE = Path(remote.__file__).parent


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    return JobDirectory(tmp_path / "job")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of this version with nothing that starts with each program."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python3")


def run(job: JobDirectory, python: str = sys.executable, **env: str) -> None:
    done = subprocess.run(
        [python, *job.command], cwd=job.folder, env=unmeasured(**env), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plain_call_is_run_without_the_costly_parts_of_the_standard_library(
    job: JobDirectory, bare_python: str
) -> None:
    costly = COSTLY

    def call(number: int) -> list[Any]:
        return [number, sorted(costly & set(sys.modules))]

    job.prepare(call, (1,), (2,))
    run(job, bare_python, PYTHONNOUSERSITE="1")
    assert [job.value(number) for number in range(2)] == [[1, []], [2, []]]


def test_nothing_that_lies_in_the_jobs_directory_is_imported(job: JobDirectory) -> None:
    job.prepare(lambda: sys.path[0], ())
    for name in ("zlib", "functools", "copyreg", "cloudpickle", "pxremote", "types"):
        (job.folder / f"{name}.py").write_text("raise SystemExit('it was imported')")
    run(job)
    assert os.path.realpath(job.value()) != os.path.realpath(job.folder)
    run(job, PYTHONSAFEPATH="1")
    assert os.path.realpath(job.value()) != os.path.realpath(job.folder)


@pytest.mark.parametrize("implementation", ["CPython", "another"])
def test_source_does_the_same_as_byte_code(
    job: JobDirectory, monkeypatch: pytest.MonkeyPatch, implementation: str
) -> None:
    monkeypatch.setattr("platform.python_implementation", lambda: implementation)
    archive.runner_data.cache_clear()
    job.prepare(lambda number: (number, lambda: number), (3,))
    archive.runner_data.cache_clear()
    run(job)
    number, function = job.value()
    assert number == function() == 3


def test_byte_code_of_another_python_is_refused_by_a_sentence(job: JobDirectory) -> None:
    job.prepare(lambda: 1, ())
    content = marshal.loads(zlib.decompress((job.folder / RUNNER_DATA).read_bytes()))
    content["magic"] = b"????"
    (job.folder / RUNNER_DATA).write_bytes(zlib.compress(marshal.dumps(content, 2)))
    done = job.run()
    assert done.returncode
    assert "was compiled for another Python than this one" in done.stderr


@pytest.mark.parametrize("missing", ["_pickle", "_json", "_sha2 _sha256 _operator"])
def test_without_a_c_module_the_standard_library_does_the_same(job: JobDirectory, tmp_path: Path, missing: str) -> None:
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "sitecustomize.py").write_text(
        f"import sys\nfor name in {missing.split()}:\n    sys.modules[name] = None\n"
    )
    job.prepare(lambda number: [number, {"a": (1.5, b"x")}, ValueError], (1,), (2,))
    run(job, PYTHONPATH=str(sites))
    for call in range(2):
        assert job.value(call) == [call + 1, {"a": (1.5, b"x")}, ValueError]


def test_a_traceback_has_the_lines_of_a_script_that_is_not_there(job: JobDirectory, bare_python: str) -> None:
    def call() -> None:
        raise ValueError("here: the line is shown")

    job.prepare(call, ())
    run(job, bare_python)
    with pytest.raises(ValueError, match="the line is shown"):
        raise job.value()


LINES = """
import sys, zlib
sys.path.insert(0, sys.argv[1])
import lines
{before}
lines.keep({{"<script>": zlib.compress(b"first\\nsecond\\n"), "<other>": zlib.compress(b"other\\n")}})
lines.keep({{"<third>": zlib.compress(b"third")}})
import linecache
assert type(linecache.__loader__).__name__ == type(linecache.__spec__.loader).__name__ != "Loader"
assert not [finder for finder in sys.meta_path if type(finder) is lines.Finder]
print([linecache.getline(*place).strip() for place in [("<script>", 2), ("<other>", 1), ("<third>", 1)]])
"""


@pytest.mark.parametrize("before", ["", "import linecache"])
def test_linecache_has_the_text_whenever_it_is_imported(bare_python: str, before: str) -> None:
    done = subprocess.run(
        [bare_python, "-c", LINES.format(before=before), str(REMOTE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(["second", "other", "third"])
    assert linecache.getline("<script>", 1) == ""
