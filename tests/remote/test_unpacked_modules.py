"""The user's own modules in a job: unpacked where Python finds them, and nowhere else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from layouts import compile_extension
from paths import ROOT

from prominence_executor.payload.modules import LocalModules
from prominence_executor.remote import modules
from prominence_executor.remote.wire import MODULES_HEAD, MODULES_MAGIC

ADD = """
import sys
sys.path.insert(1, {root!r})
from prominence_executor.remote.modules import add_modules
{before}
with open({archive!r}, "rb") as file:
    add_modules(file, "0123456789abcdef0", {home!r})
{after}
"""


def archive_of(*members: tuple[str, bytes]) -> bytes:
    head = zlib.compress(json.dumps({"files": [{"name": name, "size": len(text)} for name, text in members]}).encode())
    body = zlib.compress(b"".join(text for _, text in members))
    return MODULES_MAGIC + MODULES_HEAD.pack(len(head)) + head + body


def run(folder: Path, content: bytes, after: str, before: str = "") -> str:
    """Add modules in a process of its own, and run a program there."""
    archive = folder / "archive"
    archive.write_bytes(content)
    program = ADD.format(root=str(ROOT), archive=str(archive), home=str(folder), before=before, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["../out.py", "0/../../out.py", "/out.py", "0//out.py", "0/./out.py", "0/..", ""])
def test_nothing_is_written_outside_of_the_directory(name: str, tmp_path: Path) -> None:
    home = tmp_path / "home" / "inner"
    home.mkdir(parents=True)
    content = archive_of(("0/fine.py", b""), (name, b"value = 1"))
    with pytest.raises(ValueError, match="is no name of a module's file"):
        modules.add_modules(io.BytesIO(content), "0" * 64, str(home))
    assert [path.name for path in tmp_path.rglob("*.py")] == ["fine.py"]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the modules begin with"):
        modules.add_modules(io.BytesIO(b"something else"), "0" * 64, str(tmp_path))


def test_what_this_program_has_imported_gives_way_to_the_users(tmp_path: Path) -> None:
    content = archive_of(("0/json/__init__.py", b"value = 'own'"), ("1/json/decoder.py", b""))
    after = "import json, zlib; print(json.value, json.__path__, [p[len({!r}):] for p in sys.path[:2]])"
    told = run(tmp_path, content, after.format(str(tmp_path)), "import json.decoder")
    assert told.startswith("own")
    assert told.endswith("['/pxmodules-0123456789abcdef/0', '/pxmodules-0123456789abcdef/1']")


def test_a_second_process_finds_what_the_first_has_unpacked(tmp_path: Path) -> None:
    content = archive_of(("0/once.py", b"value = 1"))
    assert run(tmp_path, content, "import once; print(once.value)") == "1"
    assert run(tmp_path, content[:-9], "import once; print(once.value)") == "1"
    assert sorted(os.listdir(tmp_path)) == ["archive", "pxmodules-0123456789abcdef"]


def test_a_zip_that_an_earlier_version_has_packed_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("earlier.py", "value = 'earlier'")
    assert run(tmp_path, file.getvalue(), "import earlier; print(earlier.value)") == "earlier"


def test_a_compiled_module_for_another_platform_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "px_fast").mkdir()
    (tmp_path / "px_fast" / "__init__.py").touch()
    compile_extension(tmp_path / "px_fast", "kernel", 3)
    monkeypatch.syspath_prepend(tmp_path)
    packed = LocalModules().pack({"px_fast"})
    assert packed is not None
    other = "import importlib.machinery as m; m.EXTENSION_SUFFIXES[:] = ['.cpython-399-riscv64-linux-musl.so', '.so']"
    tried = (
        "import px_fast\ntry: import px_fast.kernel as k; print(k.answer())\nexcept ImportError as e: print(e.name, e)"
    )
    (tmp_path / "here").mkdir()
    assert run(tmp_path / "here", packed.content, tried) == "3"
    (tmp_path / "there").mkdir()
    told = run(tmp_path / "there", packed.content, tried, other)
    assert told.startswith("px_fast.kernel 'px_fast.kernel' is a compiled module of your own, kernel.cpython-")
    assert "this image's Python takes .cpython-399-riscv64-linux-musl.so" in told
    assert "No module" in run(tmp_path / "there", packed.content, tried.replace("kernel", "nothing"), other)
