"""What pickles refer to: objects in files of their own, and names, none of which is ever the runner's own.

What a script defines is in tests/whole/test_script.py, as a script.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import pickle
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
def test_what_pickles_by_a_name_of_the_script_is_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cached = cached_in_the_script(name, monkeypatch)
    content = b"".join(dumps_out_of_band({"f": cached}).pieces)
    reference = ObjectRef(sha256_of([content]), len(content), shared=True)
    job = JobDirectory(tmp_path)
    job.prepare(
        lambda given: [cached(1), given(2) if callable(given) else given["f"](2)],
        (cached,), (reference,), objects={reference.sha256: content},
    )  # fmt: skip
    assert job.run().returncode == 0
    for call in range(2):
        assert job.value(call) == ["the script's 1", "the script's 2"]


@pytest.mark.parametrize("name", ["error_text", "run_calls", "pxremote", "no_such_name"])
def test_what_did_not_travel_is_not_found_in_the_program_that_runs_the_call(tmp_path: Path, name: str) -> None:
    job = JobDirectory(tmp_path)
    job.prepare(lambda name: pickle.loads(f"c__main__\n{name}\n.".encode()), (name,))
    job.run()
    assert isinstance(job.value(), AttributeError)
    with pytest.raises(AttributeError, match="did not travel with the call: put it into a module beside the script"):
        Unpickler(io.BytesIO(f"c__main__\n{name}\n.".encode())).load()


@pytest.mark.parametrize("module", [OWN_PACKAGE, f"{OWN_PACKAGE}.reporting", f"{OWN_PACKAGE}.no_such_module"])
def test_nothing_of_the_runner_is_found_by_its_module(module: str) -> None:
    with pytest.raises(AttributeError, match="belongs to the program that runs the call"):
        Unpickler(io.BytesIO(f"c{module}\nerror_text\n.".encode())).load()


def test_what_a_spawned_process_needs_of_the_script_is_no_output(tmp_path: Path) -> None:
    def spawning() -> list[str]:
        process = multiprocessing.get_context("spawn").Process(target=print)
        process.start()
        process.join()
        Path("own.txt").write_text("x")
        return [path.name for path in Path().glob("*/*.pickle")]

    job = JobDirectory(tmp_path)
    job.prepare(spawning, (), parts=("files",), outputs=["**"])
    (tmp_path / "pxfiles").write_bytes(b"PXFILES1\n")
    job.run()
    assert job.value() == ["pxscript_0.pickle"]
    assert job.outcomes().calls[0].header["files"]["count"] == 1


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
