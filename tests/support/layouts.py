"""Programs whose own modules lie in all the ways in which Python finds modules.

Each is a folder with files, and a command that runs it there. Its functions run in a ProcessPoolExecutor, as jobs and
on warm workers; it prints what each of the three has returned, as one line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import py_compile
import shutil
import subprocess
import sysconfig
import zipapp
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prominence_executor.payload.modules import ModuleZip
from prominence_executor.remote.wire import MODULES_HEAD, MODULES_MAGIC


def members_of(packed: ModuleZip) -> list[dict[str, Any]]:
    """What an archive of modules says of its files."""
    file = io.BytesIO(packed.content)
    assert file.read(len(MODULES_MAGIC)) == MODULES_MAGIC
    (size,) = MODULES_HEAD.unpack(file.read(MODULES_HEAD.size))
    listed: list[dict[str, Any]] = json.loads(zlib.decompress(file.read(size)))["files"]
    assert sum(member["size"] for member in listed) == len(zlib.decompress(file.read()))
    return listed


# -- compiled modules --------------------------------------------------------------------------------------------------

EXTENSION = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(%d); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "%s", "", -1, methods};
PyMODINIT_FUNC PyInit_%s(void) { return PyModule_Create(&module); }
"""


def compile_extension(folder: Path, name: str, answer: int) -> None:
    """Build a module with one function; of its source nothing is left."""
    if shutil.which("cc") is None:
        pytest.skip("not here: cc")
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = ["cc", "-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}", "-x", "c", "-", "-o", str(target)]
    subprocess.run(command, input=EXTENSION % (answer, name, name), text=True, check=True)


# -- programs ----------------------------------------------------------------------------------------------------------

DRIVER = """

def told(future):
    try:
        return future.result(120)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def drive(calls):
    import concurrent.futures, json, os

    from prominence_executor import ProminenceExecutor

    url, token = os.environ["LAYOUT_URL"], os.environ["LAYOUT_TOKEN"]
    makers = {
        "pool": concurrent.futures.ProcessPoolExecutor,
        "jobs": lambda: ProminenceExecutor(url, token, poll_interval=(0.05, 0.5)),
        "warm": lambda: ProminenceExecutor(url, token, workers="warm", max_workers=1, poll_interval=(0.05, 0.5)),
    }
    found = {}
    for mode, make in makers.items():
        with make() as executor:
            futures = {call.__name__: executor.submit(call) for call in calls}
            found[mode] = {name: told(future) for name, future in futures.items()}
    print("LAYOUT " + json.dumps(found), flush=True)
"""


@dataclass
class Layout:
    """A program: `text` defines the functions that are `expected` to return something."""

    text: str
    expected: dict[str, object]
    files: dict[str, str]
    main: str = "main.py"  # the file that the text stands in
    start: str = "if __name__ == '__main__'"  # when it is driven
    command: list[str] = field(default_factory=lambda: ["main.py"])
    make: Callable[[Path], None] = lambda folder: None  # does what text alone cannot
    path: tuple[str, ...] = ()  # what PYTHONPATH names in its folder

    def write(self, folder: Path) -> None:
        calls = ", ".join(self.expected)
        main = {self.main: f"{self.text}{DRIVER}\n{self.start}:\n    drive([{calls}])\n"}
        for name, text in {**main, **self.files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.make(folder)

    def environment(self, folder: Path, url: str, token: str) -> dict[str, str]:
        path = os.pathsep.join(str(folder / name) for name in self.path)
        return {"LAYOUT_URL": url, "LAYOUT_TOKEN": token, "PYTHONPATH": path}


def _beside(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real/__init__.py").touch()
    (folder / "real/linked").symlink_to(folder / "elsewhere/linked", target_is_directory=True)
    (folder / "elsewhere/linked/loop").symlink_to(folder / "elsewhere/linked", target_is_directory=True)
    (folder / "pack/tool.sh").chmod(0o755)
    compile_extension(folder, "quick", 41)
    compile_extension(folder / "pack", "quicker", 42)
    with zipfile.ZipFile(folder / "library.zip", "w") as archive:
        archive.writestr("zipped.py", "value = 'in a zip'\n")
        archive.writestr("zipped_pack/__init__.py", "")
        archive.writestr("zipped_pack/part.py", "value = 'in a package in a zip'\n")
    py_compile.compile(str(folder / "hidden.py"), cfile=str(folder / "sourceless.pyc"))


BESIDE = Layout(
    """
import importlib.util, os, sys

_path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parts", "plug-in.py")
_spec = importlib.util.spec_from_file_location("renamed", _path)
renamed = sys.modules["renamed"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(renamed)
function_of_it = renamed.function_of_it


def folder_without_init():
    from plain.inner.deep import value
    return value

def namespace_over_two_paths():
    import space.left, space.right
    return [space.left.side, space.right.side]

def extended_path():
    import stretched.near, stretched.far
    return [stretched.near.value, stretched.far.value]

def order_of_paths():
    import twice
    return twice.value

def linked_package():
    from real.linked import value
    return value

def data_as_a_resource():
    from importlib.resources import files
    return [files("pack").joinpath("notes.txt").read_text(), files("pack.data").joinpath("table.csv").read_text()]

def data_beside_the_file():
    import pack
    with open(os.path.join(os.path.dirname(pack.__file__), "data", "table.csv")) as file:
        return file.read()

def program_of_a_package():
    import pack, subprocess
    return subprocess.run([os.path.join(pack.__path__[0], "tool.sh")], capture_output=True, text=True).stdout

def loaded_by_path():
    return renamed.value

def hides_the_standard_library():
    import code, profile, statistics.inner
    return [code.value, profile.value, statistics.value, statistics.inner.value]

def hides_an_installed_package():
    import yaml
    return yaml.value

def compiled_beside_the_script():
    import quick
    return quick.answer()

def compiled_in_a_package():
    import pack.quicker
    return pack.quicker.answer()

def imported_by_a_literal():
    import importlib
    return importlib.import_module("literal.named").value

def in_a_zip():
    import zipped, zipped_pack.part
    return [zipped.value, zipped_pack.part.value]

def byte_code_alone():
    import sourceless
    return sourceless.value
""",
    {
        "folder_without_init": "deep",
        "namespace_over_two_paths": ["left", "right"],
        "extended_path": ["near", "far"],
        "order_of_paths": "first",
        "linked_package": "linked",
        "data_as_a_resource": ["notes", "1,2"],
        "data_beside_the_file": "1,2",
        "program_of_a_package": "ran\n",
        "loaded_by_path": "plugged in",
        "function_of_it": "plugged in",
        "hides_the_standard_library": ["own code", "own profile", "own statistics", "inner"],
        "hides_an_installed_package": "own yaml",
        "compiled_beside_the_script": 41,
        "compiled_in_a_package": 42,
        "imported_by_a_literal": "literal",
        "in_a_zip": ["in a zip", "in a package in a zip"],
        "byte_code_alone": "byte code",
    },
    {
        "plain/inner/deep.py": "value = 'deep'\n",
        "one/space/left.py": "side = 'left'\n",
        "two/space/right.py": "side = 'right'\n",
        "one/stretched/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n",
        "one/stretched/near.py": "value = 'near'\n",
        "two/stretched/__init__.py": "",
        "two/stretched/far.py": "value = 'far'\n",
        "one/twice.py": "value = 'first'\n",
        "two/twice.py": "value = 'second'\n",
        "elsewhere/linked/__init__.py": "value = 'linked'\n",
        "pack/__init__.py": "",
        "pack/notes.txt": "notes",
        "pack/data/table.csv": "1,2",
        "pack/tool.sh": "#!/bin/sh\necho ran\n",
        "parts/plug-in.py": "value = 'plugged in'\ndef function_of_it():\n    return value\n",
        "code.py": "value = 'own code'\n",
        "profile.py": "value = 'own profile'\n",
        "statistics/__init__.py": "value = 'own statistics'\n",
        "statistics/inner.py": "value = 'inner'\n",
        "yaml/__init__.py": "value = 'own yaml'\n",
        "literal/named.py": "value = 'literal'\n",
        "hidden.py": "value = 'byte code'\n",
    },
    make=_beside,
    path=("one", "two", "library.zip"),
)

MODULE = Layout(
    """
def relative():
    from .other import value
    return value

def absolute():
    from pk.other import value
    return value

def resource():
    from importlib.resources import files
    return files("pk").joinpath("notes.txt").read_text()
""",
    {"relative": "other", "absolute": "other", "resource": "notes"},
    {"pk/other.py": "value = 'other'\n", "pk/notes.txt": "notes"},
    main="pk/mod.py",
    command=["-m", "pk.mod"],
)

ZIP_APPLICATION = Layout(
    """
from helper import function_of_it

def beside():
    import helper
    return helper.value

def resource():
    from importlib.resources import files
    return files("inside").joinpath("notes.txt").read_text()

def in_a_package():
    from inside.deep import part
    return part.value
""",
    {"function_of_it": "other", "beside": "helper", "resource": "notes", "in_a_package": "part"},
    {
        "app/helper.py": "import other\nvalue = 'helper'\ndef function_of_it():\n    return other.value\n",
        "app/other.py": "value = 'other'\n",
        "app/inside/__init__.py": "",
        "app/inside/notes.txt": "notes",
        "app/inside/deep/part.py": "value = 'part'\n",
    },
    main="app/__main__.py",
    command=["app.pyz"],
    make=lambda folder: zipapp.create_archive(folder / "app", folder / "app.pyz"),
)

PYTEST = Layout(
    """
def own_function():
    return helper_function()

def helper_function():
    return "of the test's module"

def library():
    import library_under_test
    return library_under_test.value

def relative():
    from . import beside
    return beside.value
""",
    {"own_function": "of the test's module", "library": "library", "relative": "beside"},
    {
        "tests/unit/beside.py": "value = 'beside'\n",
        "src/library_under_test.py": "value = 'library'\n",
        "pytest.ini": "[pytest]\npythonpath = src\n",
    },
    main="tests/unit/test_it.py",
    start="def test_it()",
    command=["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"],
)


def _install(folder: Path) -> None:
    """As pip does it for an editable installation: a path, or a finder that maps names to folders."""
    packages = folder / "lib/site-packages"
    about = {"url": f"file://{folder}/project", "dir_info": {"editable": True}}
    (packages / "the_tool-1.5.dist-info/direct_url.json").write_text(json.dumps(about))
    (packages / "tool.pth").write_text(f"{folder}/project/src\nimport finder_of_mapped; finder_of_mapped.install()\n")
    (packages / "finder_of_mapped.py").write_text(f"""
import sys
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "mapped":
            return spec_from_file_location(name, {f"{folder}/project/another/__init__.py"!r})

def install():
    sys.meta_path.append(Finder)
""")


EDITABLE = Layout(
    """
import os, site

site.addsitedir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", "site-packages"))
import cluster

def version():
    import tool
    return tool.__version__

def data():
    import tool
    return tool.notes()

def mapped():
    import mapped.part
    return mapped.part.value

def this_package():
    import prominence_executor
    return ("pxmodules" in prominence_executor.__file__) == ("PROMINENCE_CPUS" in os.environ)

def helper_that_uses_this_package():
    return cluster.function()
""",
    {
        "version": "1.5",
        "data": "notes",
        "mapped": "mapped",
        "this_package": True,
        "helper_that_uses_this_package": True,
    },
    {
        "cluster.py": "from prominence_executor.payload.archive import runner_data\n"
        "def function():\n    return len(runner_data()) > 10_000\n",
        "project/src/tool/__init__.py": "from importlib.metadata import version\nfrom pathlib import Path\n"
        "__version__ = version('the-tool')\n"
        "def notes():\n    return (Path(__file__).parent / 'notes.txt').read_text()\n",
        "project/src/tool/notes.txt": "notes",
        "project/another/__init__.py": "",
        "project/another/part.py": "value = 'mapped'\n",
        "lib/site-packages/the_tool-1.5.dist-info/METADATA": "Name: the-tool\nVersion: 1.5\n\nWhat it is.\n",
        "lib/site-packages/the_tool-1.5.dist-info/top_level.txt": "tool\nmapped\n",
    },
    make=_install,
)

LAYOUTS = {
    "beside the script": BESIDE,
    "python -m": MODULE,
    "zip application": ZIP_APPLICATION,
    "pytest": PYTEST,
    "editable installations": EDITABLE,
}
