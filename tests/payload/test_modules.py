"""Which modules travel with a call: the user's own, with all that they import of the user's own, and nothing else."""

from __future__ import annotations

import importlib
import itertools
import re
import time
import types
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import cloudpickle
import pytest
from layouts import members_of

from prominence_executor.payload.modules import LocalModules, ModuleZip, why_missing
from prominence_executor.payload.pickling import dumps

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
        return {member["name"].removeprefix("0/").replace(self.suffix, "@") for member in members_of(packed)}


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
    project.write("pkg@/.env", "SECRET=1")
    project.write("pkg@/.git/config")
    project.write("pkg@/__pycache__/a.cpython-311.pyc")
    project.write("pkg@/venv/pyvenv.cfg")
    project.write("pkg@/venv/lib/python3/site.py")
    project.write("pkg@/fast.cpython-37-x86_64-linux-gnu.so")
    project.write("other@.py")
    members = project.members(LocalModules().pack({f"pkg{project.suffix}.a"}))
    package = {"pkg@/__init__.py", "pkg@/a.py", "pkg@/sub/__init__.py", "pkg@/sub/b.py", "pkg@/data.txt"}
    assert members == {*package, "other@.py"}


@pytest.fixture
def by_value() -> Iterator[Callable[[str], types.ModuleType]]:
    """Import a module, and tell cloudpickle to pickle by value what it defines."""
    told: list[types.ModuleType] = []

    def tell(name: str) -> types.ModuleType:
        told.append(importlib.import_module(name))
        cloudpickle.register_pickle_by_value(told[-1])
        return told[-1]

    yield tell
    for module in told:
        cloudpickle.unregister_pickle_by_value(module)


def test_of_a_module_that_goes_by_value_only_what_its_functions_import_travels(
    project: Project, by_value: Callable[[str], types.ModuleType]
) -> None:
    project.write(
        "given@.py", "import large@, named@\nclass C:\n def m(self):\n  import inside@\ndef f(): named@.x; C()\n"
    )
    for name in ("large@.py", "named@.py", "inside@.py"):
        project.write(name)
    pickled = dumps(by_value(f"given{project.suffix}").f)
    assert project.members(LocalModules().pack(pickled.modules, pickled.code)) == {"named@.py", "inside@.py"}


def test_a_package_one_of_whose_modules_goes_by_value_travels_for_its_relative_imports(
    project: Project, by_value: Callable[[str], types.ModuleType]
) -> None:
    project.write("pkg@/__init__.py")
    project.write("pkg@/given.py", "def f():\n    from . import beside\n")
    project.write("pkg@/beside.py")
    pickled = dumps(by_value(f"pkg{project.suffix}.given").f)
    members = project.members(LocalModules().pack(pickled.modules, pickled.code))
    assert members == {"pkg@/__init__.py", "pkg@/given.py", "pkg@/beside.py"}


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


def test_equal_files_give_equal_archives_and_a_change_gives_another(project: Project) -> None:
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


def test_a_file_that_the_program_writes_is_no_data_of_its_package(project: Project) -> None:
    name = project.write("busy@/__init__.py").partition("/")[0]
    project.write("busy@/table.csv", "1")
    project.write("busy@/done.log", "line")
    with (project.folder / name / "run.log").open("w"):
        members = project.members(LocalModules().pack({name}))
    assert members == {"busy@/__init__.py", "busy@/table.csv", "busy@/done.log"}


def test_data_beyond_the_bound_stays_and_a_warning_names_the_largest_file(project: Project) -> None:
    name = project.write("heavy@/__init__.py").partition("/")[0]
    project.write("heavy@/small.bin", "x" * 400_000)
    project.write("heavy@/large.bin", "x" * 700_000)
    with pytest.warns(RuntimeWarning, match=r"1\.1 MB.* 1 MB .*heavy\w+/large\.bin \(0\.7 MB\).*package_data"):
        packed = LocalModules().pack({name}, data_limit=1)
    assert project.members(packed) == {"heavy@/__init__.py"}
    assert project.members(LocalModules().pack({name}, data_limit=0)) == {"heavy@/__init__.py"}
    assert len(project.members(LocalModules().pack({name}, data_limit=1.2))) == 3


def test_folders_stand_in_the_order_of_the_path(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = project.write("spread@/low.py")
    project.folder = tmp_path / "before"
    monkeypatch.syspath_prepend(project.folder)
    project.write("spread@/high.py")
    packed = LocalModules().pack({name.partition("/")[0]})
    assert packed is not None
    assert [member["name"].replace(project.suffix, "@") for member in members_of(packed)] == [
        "0/spread@/high.py",
        "1/spread@/low.py",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("left@", "it is your own (/.*/left@.py), and did not travel: no import statement"),
        ("whole@.there", "it is your own (/.*/whole@/there.py), and did not travel"),
        ("whole@.other", "your own 'whole@' (/.*/whole@) has no such module"),
        ("requests", f"here it is installed; requirements=['requests=={version('requests')}'] has it travel"),
        ("jwt", f"here it is installed; requirements=['PyJWT=={version('PyJWT')}'] has it travel"),
        (
            "requests.nothing",
            "here it is installed; the image has no requests, or another version of it; requirements=",
        ),
        ("no_such_module", "this machine has none, either"),
    ],
)
def test_why_a_module_is_missing_in_a_job(project: Project, name: str, said: str) -> None:
    project.write("left@.py")
    project.write("whole@/there.py")
    expected = re.escape(said.replace("@", project.suffix)).replace(r"/\.\*/", "/.*/")
    assert re.match(expected, why_missing(name.replace("@", project.suffix)))
