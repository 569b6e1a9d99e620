"""Which modules travel with a call: the user's own, with all that they import of the user's own, and nothing else."""

from __future__ import annotations

import io
import itertools
import sys
import time
import zipfile
from pathlib import Path

import pytest

from prominence_executor.payload.modules import LocalModules, ModuleZip

_numbers = itertools.count()


class Project:
    """A folder on sys.path, as beside a script; module names are made unique, since Python remembers modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suffix = f"_{next(_numbers)}"

    def write(self, path: str, source: str = "") -> str:
        name = path.replace("@", self.suffix)
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source.replace("@", self.suffix))
        return name.removesuffix(".py")

    def members(self, packed: ModuleZip | None) -> set[str]:
        assert packed is not None
        with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
            return {name.replace(self.suffix, "@") for name in archive.namelist()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(tmp_path)
    return Project(tmp_path)


def test_a_module_brings_what_it_imports_also_lazily_and_in_circles(project: Project) -> None:
    one = project.write("one@.py", "import two@\nimport json, numpy\n")
    project.write("two@.py", "import one@\ndef f():\n    from three@ import x\n")
    project.write("three@.py", "x = 1\n")
    project.write("unrelated@.py")
    assert project.members(LocalModules().pack({one})) == {"one@.py", "two@.py", "three@.py"}


def test_a_package_travels_whole_under_its_own_name(project: Project) -> None:
    project.write("pkg@/__init__.py", "from . import a")
    project.write("pkg@/a.py", "from .sub import b")
    project.write("pkg@/sub/__init__.py")
    project.write("pkg@/sub/b.py", "import other@")
    project.write("pkg@/data.txt", "not a source")
    project.write("other@.py")
    members = project.members(LocalModules().pack({f"pkg{project.suffix}.a"}))
    assert members == {"pkg@/__init__.py", "pkg@/a.py", "pkg@/sub/__init__.py", "pkg@/sub/b.py", "other@.py"}


def test_a_package_without_init_travels_too(project: Project) -> None:
    project.write("space@/part.py", "x = 1")
    assert project.members(LocalModules().pack({f"space{project.suffix}"})) == {"space@/part.py"}


def test_the_standard_library_and_installed_packages_stay(project: Project) -> None:
    assert (
        LocalModules().pack({"json", "sys", "requests", "cloudpickle", "os.path", "builtins", "no_such_module"}) is None
    )


def test_imports_inside_a_function_that_travels_by_value_count(project: Project) -> None:
    project.write("lazy@.py")
    namespace: dict[str, object] = {}
    exec(f"def outer():\n    def inner():\n        import lazy{project.suffix}.x\n    return inner", namespace)
    code = namespace["outer"].__code__  # type: ignore[attr-defined]
    assert project.members(LocalModules().pack({"__main__"}, [code])) == {"lazy@.py"}


def test_equal_sources_give_equal_zips_and_a_change_gives_another(project: Project) -> None:
    name = project.write("changing@.py", "x = 1\n")
    modules = LocalModules()
    first, again, other = modules.pack({name}), modules.pack({name}), LocalModules().pack({name})
    assert first is again
    assert first == other
    project.write("changing@.py", "x = 2222\n")
    time.sleep(0.25)  # until it looks again
    changed = modules.pack({name})
    assert first is not None
    assert changed is not None
    assert changed.sha256 != first.sha256


def test_a_source_that_does_not_parse_travels_as_it_is(project: Project) -> None:
    name = project.write("broken@.py", "def (:\n")
    assert project.members(LocalModules().pack({name})) == {"broken@.py"}


def test_a_module_that_python_runs_from_the_zip_is_the_same(project: Project) -> None:
    name = project.write("shipped@.py", "import helper@\ndef f():\n    return helper@.y\n")
    project.write("helper@.py", "y = 'helped'\n")
    packed = LocalModules().pack({name})
    assert packed is not None
    archive = project.folder / "pxmods-0"
    archive.write_bytes(packed.content)
    import subprocess

    code = f"import sys; sys.path.insert(0, {str(archive)!r}); import {name}; print({name}.f(), {name}.__file__)"
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.split()
    assert answer[0] == "helped"
    assert answer[1].startswith(str(archive))
