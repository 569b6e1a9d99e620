"""What has moved is found under its old name: by imports, and by pickles, also where warnings are errors."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import prominence_executor
from prominence_executor import JobError, JobFailedError, errors
from prominence_executor.local import LocalService, launch
from prominence_executor.moved import MOVED, OldNames

PACKAGE = Path(prominence_executor.__file__).parent
EXAMPLE = {
    "was_errors": "errors",
    "was_split:JobError": "errors",
    "was_split:LocalService": "local",
    "was_local": "local",
    "was_local.launch": "local.launch",
    "was_a_module:JobError": "errors",
}


@pytest.fixture
def moved() -> Iterator[OldNames]:
    """As if modules had moved: only the table differs from the real one."""
    old_names = OldNames("prominence_executor", EXAMPLE)
    sys.meta_path.append(old_names)
    yield old_names
    sys.meta_path.remove(old_names)
    for name in [name for name in sys.modules if name.startswith("prominence_executor.was_")]:
        del sys.modules[name]
        vars(prominence_executor).pop(name.split(".")[1], None)


def under(name: str) -> Any:
    return importlib.import_module(f"prominence_executor.{name}")


def test_a_module_is_imported_by_its_old_name(moved: OldNames) -> None:
    assert under("was_errors").JobError is JobError
    assert under("was_errors")._rebuild_job_error is errors._rebuild_job_error
    names: dict[str, Any] = {}
    exec("from prominence_executor.was_errors import *; from prominence_executor.was_errors import ServiceError", names)
    assert names["JobError"] is JobError
    assert names["ServiceError"] is errors.ServiceError


def test_of_a_module_that_was_split_each_name_is_found(moved: OldNames) -> None:
    assert under("was_split").JobError is JobError
    assert under("was_split").LocalService is LocalService
    with pytest.raises(AttributeError, match=r"'prominence_executor\.was_split' has no attribute 'ServiceError'"):
        _ = under("was_split").ServiceError


def test_a_folder_and_its_modules_are_imported_by_their_old_names(moved: OldNames) -> None:
    assert under("was_local.launch").launch is launch.launch
    assert under("was_local").LocalService is LocalService


def test_a_folder_with_the_name_of_a_module_answers_for_its_names(moved: OldNames) -> None:
    folder = ModuleType("prominence_executor.was_a_module")
    vars(folder)["__getattr__"] = moved.names_of(folder.__name__)
    assert folder.JobError is JobError
    for name in ("ServiceError", "__path__", "__wrapped__"):
        assert not hasattr(folder, name)


def test_what_never_was_is_not_found(moved: OldNames) -> None:
    for name in ("prominence_executor.nonesuch", "prominence_executor.was_errors.nonesuch", "was_errors", "nonesuch"):
        with pytest.raises(ModuleNotFoundError, match="No module named|is not a package"):
            importlib.import_module(name)


def python(program: str, stdin: bytes = b"") -> bytes:
    """What a program of its own prints in which warnings are errors."""
    words = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.strip()


ADD = "from prominence_executor.moved import MOVED; MOVED.update({}); "


def test_a_module_that_is_there_is_the_one_that_is_imported() -> None:
    program = ADD.format('{"examples": "errors"}') + "import prominence_executor.examples as it; print(it.__file__)"
    assert Path(os.fsdecode(python(program))) == PACKAGE / "examples" / "__init__.py"


def test_a_pickle_with_an_old_name_loads_where_warnings_are_errors() -> None:
    content = pickle.dumps(JobFailedError, 2).replace(b"prominence_executor\n", b"prominence_executor.was_errors\n")
    assert b"was_errors" in content
    program = ADD.format('{"was_errors": "errors"}') + "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    assert python(program, content) == b"<class 'prominence_executor.JobFailedError'>"


def test_the_table_names_what_is_gone_and_where_it_is() -> None:
    for old, new in MOVED.items():
        module, _, name = old.partition(":")
        place = importlib.import_module(f"prominence_executor.{new}")
        assert not name or hasattr(place, name), old
        there = PACKAGE.joinpath(*module.split("."))
        assert not there.with_suffix(".py").exists(), f"{old} is there: it is not asked for"
        assert name or not there.is_dir(), f"{old} is a folder: only its names can be in the table"
        if there.is_dir():
            folder = importlib.import_module(f"prominence_executor.{module}")
            assert getattr(folder, name) is getattr(place, name), f"{module}/__init__.py must use names_of"
