"""What pickles refer to: objects in files of their own, and names, none of which is ever the runner's own."""

from __future__ import annotations

import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from job_directory import JobDirectory

from prominence_executor.payload.blob import sha256_of
from prominence_executor.payload.pickling import ObjectRef, dumps, dumps_out_of_band
from prominence_executor.remote.loading import OWN_PACKAGE, Unpickler


def cached_in_the_script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What ``@functools.cache`` makes of a function of the script: it is pickled by its name."""

    def function(x: object) -> str:
        return f"the script's {x}"

    function.__module__, function.__qualname__ = "__main__", name
    wrapped = functools.cache(function)
    monkeypatch.setattr(sys.modules["__main__"], name, wrapped, raising=False)
    return wrapped


# Names that a runner in one file had in its own __main__, and some that every module has.
NAMES = ["error_text", "main", "json", "run_calls", "pxremote", "no_such_name", "__doc__", "__name__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_is_a_name_of_the_script_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = JobDirectory(tmp_path)
    job.prepare(cached_in_the_script(name, monkeypatch), (3,))
    assert job.run().returncode == 0
    assert job.outcomes().calls == {}
    failure = job.outcomes().job
    assert failure is not None
    assert failure.header["type"] == "AttributeError"
    for words in (repr(name), "__main__", "put it into a module beside the script"):
        assert words in failure.header["error"]


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_that_is_a_name_of_the_script_costs_its_own_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = JobDirectory(tmp_path)
    job.prepare(lambda given: given is None or given(3), (None,), (cached_in_the_script(name, monkeypatch),), (None,))
    job.run()
    assert job.value(0) is True
    assert isinstance(job.value(1), AttributeError)
    assert "put it into a module beside the script" in str(job.value(1))
    assert job.value(2) is True


def test_an_object_of_its_own_that_is_a_name_of_the_script_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(dumps_out_of_band({"f": cached_in_the_script("error_text", monkeypatch)}).pieces)
    reference = ObjectRef(sha256_of([content]), len(content), shared=True)
    job = JobDirectory(tmp_path)
    job.prepare(lambda given: given["f"](3), (reference,), objects={reference.sha256: content})
    job.run()
    assert isinstance(job.value(), AttributeError)
    assert "put it into a module beside the script" in str(job.value())


def test_a_name_that_a_call_has_put_into_main_itself_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin() -> None:
        import __main__

        __main__.helper = "the call's own"

    job = JobDirectory(tmp_path)
    job.prepare(lambda given: given, (cached_in_the_script("helper", monkeypatch),), initializer=begin)
    job.run()
    assert job.value() == "the call's own"


@pytest.mark.parametrize("module", [OWN_PACKAGE, f"{OWN_PACKAGE}.reporting", f"{OWN_PACKAGE}.no_such_module"])
def test_nothing_of_the_runner_is_found_by_its_module(module: str) -> None:
    with pytest.raises(AttributeError, match="belongs to the program that runs the call"):
        Unpickler(io.BytesIO(f"c{module}\nerror_text\n.".encode())).load()


def test_names_of_other_modules_are_what_they_are() -> None:
    value = {"function": json.dumps, "class": Path, "method": dict.fromkeys, "path": Path("/x")}
    assert Unpickler(io.BytesIO(dumps(value).blob.tobytes())).load() == value
    named = "remote_loading_module"  # no module of ours, though it begins like one
    with pytest.raises(ModuleNotFoundError, match=named):
        Unpickler(io.BytesIO(f"c{named}\nx\n.".encode())).load()


def test_shared_objects_are_one_for_all_calls_and_private_ones_each_calls_own(tmp_path: Path) -> None:
    content = b"".join(dumps_out_of_band([1]).pieces)
    sha256 = sha256_of([content])
    for shared, seen in ((True, [2, 3]), (False, [2, 2])):
        reference = ObjectRef(sha256, len(content), shared=shared)
        job = JobDirectory(tmp_path / str(shared))
        job.prepare(lambda given: given.append(1) or len(given), (reference,), (reference,), objects={sha256: content})
        job.run()
        assert [job.value(0), job.value(1)] == seen


def test_an_object_that_did_not_arrive_as_it_was_sent_is_not_unpickled(tmp_path: Path) -> None:
    content = b"".join(dumps_out_of_band("x" * 100).pieces)
    reference = ObjectRef(sha256_of([content]), len(content), shared=True)
    job = JobDirectory(tmp_path)
    job.prepare(len, (reference,), objects={reference.sha256: content.replace(b"xx", b"xy", 1)})
    job.run()
    assert "did not arrive as it was sent" in str(job.value())
