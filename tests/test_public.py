"""A public name is `prominence_executor`'s wherever it is defined: for pickles, tracebacks and annotations."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import pickletools
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any, get_type_hints

import cloudpickle
import pytest
from record_state import assert_equal, samples

import prominence_executor
from prominence_executor import JobFailedError, ProminenceExecutor, RemoteTraceback, Resources, Task
from prominence_executor.payload.modules import LocalModules
from prominence_executor.payload.pickling import dumps

PUBLIC = {name: getattr(prominence_executor, name) for name in prominence_executor.__all__}
CLASSES = {name: thing for name, thing in PUBLIC.items() if isinstance(thing, type)}
# Of what methods return and has no public name, pickles name the module.
SAMPLES = {name: sample for name, sample in samples().items() if name not in ("WorkerInfo", "a row of an ImageReport")}


def modules_in(content: bytes) -> Iterator[str]:
    """The modules of this package that a pickle names."""
    for _, argument, _ in pickletools.genops(content):
        if isinstance(argument, str) and argument.startswith("prominence_executor"):
            yield argument.partition(" ")[0]


def test_every_public_name_says_so() -> None:
    for name, thing in PUBLIC.items():
        assert (thing.__module__, thing.__qualname__) == ("prominence_executor", name)


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_name_the_public_place(protocol: int) -> None:
    for name, sample in SAMPLES.items():
        content = pickle.dumps(sample, protocol)
        # A JobError is made again by a function of `errors`, which stays where it is.
        assert set(modules_in(content)) <= {"prominence_executor", "prominence_executor.errors"}, name
        assert_equal(pickle.loads(content), sample)
        assert set(modules_in(cloudpickle.dumps(sample, protocol))) == set(modules_in(content)), name


def test_copies_are_equal() -> None:
    for sample in SAMPLES.values():
        assert_equal(copy.deepcopy(sample), sample)


def test_a_default_that_nobody_chose_gives_way_after_a_pickle_too() -> None:
    loaded = pickle.loads(pickle.dumps(Resources(memory=3)))
    loaded.cpus_range = (2, 4)
    assert loaded.json()["cpusRange"] == [2, 4]
    loaded.memory_per_cpu = 2
    with pytest.raises(ValueError, match="exclude each other"):
        loaded.json()


def test_pickles_load_in_a_program_that_has_imported_nothing() -> None:
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer)); assert 'requests' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], input=pickle.dumps(Task("centos:7")), capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(b"Task(image='centos:7'"), done.stderr


def test_tracebacks_name_the_public_place() -> None:
    lines = traceback.format_exception_only(JobFailedError("it ended", job_id=7))
    assert lines == ["prominence_executor.JobFailedError: it ended (job 7)\n"]


def test_annotations_are_types() -> None:
    for thing in CLASSES.values():
        get_type_hints(thing)
        assert not [hint for hint in vars(thing).get("__annotations__", {}).values() if isinstance(hint, str)]
    assert get_type_hints(Resources)["cpus"] == int | None
    assert [field.type for field in dataclasses.fields(Task)][0] == str | None


def test_a_call_with_public_objects_takes_the_same_modules_along() -> None:
    """As one that refers to a module of the package: all of it, unless it is installed."""
    packed = LocalModules().pack(dumps((Resources(), JobFailedError)).modules)
    assert packed == LocalModules().pack({"prominence_executor.errors"})


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"workers": "warm", "max_workers": 1}], ids=["jobs", "warm"])
def test_public_objects_go_there_and_come_back(service: Any, options: dict[str, Any]) -> None:
    def fails(task: Task) -> None:
        raise JobFailedError(task.image or "", job_id=7, status="failed")

    with ProminenceExecutor(service.url, service.token, **options) as executor:
        assert executor.submit(copy.copy, Task("centos:7")).result(60) == Task("centos:7")
        error = executor.submit(fails, Task("centos:7")).exception(60)
    assert error is not None
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "\nprominence_executor.JobFailedError: centos:7 (job 7: failed)\n" in error.__cause__.text
    assert_equal(error, JobFailedError("centos:7", job_id=7, status="failed"))
