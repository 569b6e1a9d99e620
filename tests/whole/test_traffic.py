"""What goes over the wire is a decision: which requests a program costs; how jobs are described, named and labelled.

Each program here runs on the embedded service, behind a proxy that listens. What it hears is compared with what was
recorded in tests/data/wire, and what the runner's archives consist of with tests/data/runner.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from calls import Gate, Overheated, exit_once, fail, fail_at, square
from paths import DATA
from peer import unused_port
from traffic import Listener

from prominence_executor import (
    CallCrashedError,
    InitializerError,
    JobDeletedError,
    JobPolicies,
    ProminenceExecutor,
    RemotePicklingError,
    Resources,
)
from prominence_executor.local import LocalService
from prominence_executor.run.chunk import YOUNG

pytestmark = pytest.mark.once

NOWHERE = Resources(cpus=1000)  # no slot is that large: such a job waits
SECONDS = 120.0  # for which a busy machine is waited for
ATTEMPTS = 10  # at calls that are to travel together: on a busy machine one of them may be late
MEANING = (
    "{what} is not as recorded, and other versions of this package, and who watches the service, live with it.\n"
    "If that is meant, record it: python -m pytest tests/whole/test_traffic.py --record"
)


@dataclass
class Stage:
    """Where a program runs: a service that is listened to, and a directory."""

    service: LocalService
    listener: Listener
    folder: Path

    def executor(self, **options: Any) -> ProminenceExecutor:
        return ProminenceExecutor(self.listener.url, self.service.token, poll_interval=(0.05, 0.5), **options)

    def attached(self, run_id: str) -> ProminenceExecutor:
        return ProminenceExecutor.attach(run_id, self.listener.url, self.service.token, poll_interval=(0.05, 0.5))

    def unheard(self, **options: Any) -> ProminenceExecutor:
        return ProminenceExecutor(self.service.url, self.service.token, poll_interval=(0.05, 0.5), **options)


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        run: what it does; returns its run's id.
        perhaps: polls that it need not make.
        together: its calls travel as one array; an attempt at which one of them was late says nothing.
        needs: modules and programs without which it cannot run.
        workers: what they ask is heard, too.
    """

    run: Callable[[Stage], str]
    perhaps: frozenset[str] = frozenset()
    together: bool = False
    needs: tuple[str, ...] = ()
    workers: bool = False

    def lacks(self) -> list[str]:
        return [name for name in self.needs if not (shutil.which(name) or importlib.util.find_spec(name))]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


# -- the programs ------------------------------------------------------------------------------------------------------


def single(stage: Stage) -> str:
    with stage.executor() as executor:
        assert executor.submit(square, 7).result(SECONDS) == 49
    return executor.run_id


def options(stage: Stage) -> str:
    """What else an executor and a view of it can be told of a job."""
    with stage.executor(
        run_id=f"chosen-{os.urandom(4).hex()}",
        labels={"campaign": "spring"},
        env={"MODE": "fast"},
        policies=JobPolicies(maximum_retries=1),
        journal=stage.folder / "journal",
    ) as executor:
        view = executor.with_options(resources=Resources(cpus=2, walltime=30), runtime="udocker")
        assert view.submit(os.getenv, "MODE").result(SECONDS) == "fast"
    return executor.run_id


def loop(stage: Stage) -> str:
    with stage.executor() as executor:
        futures = [executor.submit(square, number) for number in range(24)]
        assert [future.result(SECONDS) for future in futures] == [number**2 for number in range(24)]
    return executor.run_id


def chunks(stage: Stage) -> str:
    with stage.executor() as executor:
        assert list(executor.map(square, range(10), chunksize=4)) == [number**2 for number in range(10)]
    return executor.run_id


def array_of_chunks(stage: Stage) -> str:
    with stage.executor(files={"given": b"small"}, outputs=["*.out"]) as executor:
        assert list(executor.map(abs, range(-47, 0), chunksize=2)) == list(range(47, 0, -1))
    return executor.run_id


def warm(stage: Stage) -> str:
    gate = Gate(stage.folder)
    with stage.executor(workers="warm", max_workers=1) as executor:
        for number in range(3):
            assert executor.submit(square, number).result(SECONDS) == number**2
        ended = executor.submit(gate.hold, "ended")
        until(ended.running)
        ended.terminate()
        assert isinstance(ended.exception(SECONDS), JobDeletedError)
        assert executor.submit(square, 3).result(SECONDS) == 9
        time.sleep(YOUNG)  # a worker that has just begun would be ended in another way
    return executor.run_id


def files(stage: Stage) -> str:
    large = stage.folder / "large"
    large.write_bytes(os.urandom(200_000))
    with stage.executor(files={"in/large": large, "small": b"small"}, outputs=["out*"]) as executor:
        future = executor.submit(shutil.copyfile, "in/large", "out.copy")
        assert future.result(SECONDS) == "out.copy"
        assert future.files["out.copy"].read_bytes() == large.read_bytes()
    return executor.run_id


def mpi(stage: Stage) -> str:
    with stage.executor(task_type="openmpi", procs_per_node=2) as executor:
        ranks: Any = executor.submit(os.getenv, "OMPI_COMM_WORLD_RANK").result(SECONDS)
        assert ranks == ["0", "1"]
    return executor.run_id


def scattered(stage: Stage) -> str:
    with stage.executor() as executor:
        shared = executor.scatter(os.urandom(1_500_000))
        for _ in range(2):
            assert executor.submit(len, shared).result(SECONDS) == 1_500_000
    return executor.run_id


def large_arguments(stage: Stage) -> str:
    """One that is stored apart, and one that does not fit into a request."""
    with stage.executor() as executor:
        for size in (2_000_000, 900_000):
            assert executor.submit(len, os.urandom(size)).result(SECONDS) == size
    return executor.run_id


def lazy(stage: Stage) -> str:
    with stage.executor(lazy=True) as executor:
        assert len(executor.submit(os.urandom, 3_000_000).result(SECONDS)) == 3_000_000
    return executor.run_id


def failures(stage: Stage) -> str:
    with stage.executor() as executor:
        executor.map(partial(fail_at, 1), range(3), chunksize=3)
        assert [type(future.exception(SECONDS)) for future in executor.futures()] == [
            type(None),
            Overheated,
            type(None),
        ]
        assert isinstance(executor.submit(threading.Lock).exception(SECONDS), RemotePicklingError)
        assert isinstance(executor.submit(os._exit, 7).exception(SECONDS), CallCrashedError)
    return executor.run_id


def initializer(stage: Stage) -> str:
    with stage.executor(initializer=fail, initargs=(ValueError, "no")) as executor:
        assert isinstance(executor.submit(square, 1).exception(SECONDS), InitializerError)
    return executor.run_id


def retried(stage: Stage) -> str:
    with stage.executor(retries=1) as executor:
        assert executor.submit(exit_once, str(stage.folder / "marker")).result(SECONDS) == "went on"
    return executor.run_id


def cancelled(stage: Stage) -> str:
    gate = Gate(stage.folder)
    with stage.executor() as executor:
        ended = executor.submit(gate.hold, "ended")
        until(ended.running)
        assert ended.terminate()
        assert isinstance(ended.exception(SECONDS), JobDeletedError)
        waiting = executor.with_options(resources=NOWHERE).submit(square, 1)
        until(lambda: waiting.job_id)
        assert waiting.cancel()
    return executor.run_id


def image(stage: Stage) -> str:
    file = stage.folder / "image.tar"
    file.write_bytes(os.urandom(1000))
    with stage.executor(image=file) as executor:
        assert executor.check_image(SECONDS).usable
        assert executor.submit(square, 7).result(SECONDS) == 49
    return executor.run_id


def attached(stage: Stage) -> str:
    with stage.unheard() as executor:
        assert list(executor.map(square, range(4), chunksize=2)) == [0, 1, 4, 9]
    with stage.attached(executor.run_id) as again:
        assert [future.result(SECONDS) for future in again.futures()] == [0, 1, 4, 9]
    return executor.run_id


def attached_to_warm_workers(stage: Stage) -> str:
    with stage.unheard(workers="warm", max_workers=1) as executor:
        assert executor.submit(square, 7).result(SECONDS) == 49
    with stage.attached(executor.run_id) as again:
        assert [future.result(SECONDS) for future in again.futures()] == [49]
    return executor.run_id


# Of an array, all jobs are listed now and then until each of its jobs has been seen.
_OF_ARRAYS = frozenset({"GET /jobs?all=true&constraint=pxrun=RUN", "GET /workflows/ID"})
_OF_WORKERS = frozenset({"DELETE /kv/pxwarm/RUN/box/o/NNNNN?prefix=true"})  # what has been said, once it was read

PROGRAMS = {
    "array of chunks": Program(array_of_chunks, _OF_ARRAYS, together=True),
    "attached": Program(attached),
    "attached to warm workers": Program(attached_to_warm_workers),
    "cancelled": Program(cancelled),
    "chunks": Program(chunks),
    "failures": Program(failures),
    "files": Program(files),
    "image": Program(image),
    "initializer": Program(initializer),
    "large arguments": Program(large_arguments),
    "lazy": Program(lazy),
    "loop": Program(loop, _OF_ARRAYS, together=True),
    "mpi": Program(mpi, needs=("mpirun", "mpi4py")),
    "options": Program(options),
    "retried": Program(retried),
    "scattered": Program(scattered),
    "single": Program(single),
    "warm": Program(warm, _OF_WORKERS, workers=True),
}


# -- what was heard ----------------------------------------------------------------------------------------------------


@contextmanager
def listened_to(service: LocalService, program: Program, folder: Path) -> Iterator[Stage]:
    """Set a program's stage; one whose workers are to be heard has a service that tells them the listener's URL."""
    if not program.workers:
        with Listener(service.url) as listener:
            yield Stage(service, listener, folder)
        return
    port = unused_port()
    with Listener(f"http://127.0.0.1:{port}/prominence/v1") as listener:
        with LocalService(port=port, cpus=8, memory=64, url_for_jobs=listener.url) as own:
            yield Stage(own, listener, folder)


@pytest.fixture(scope="module")
def heard(
    service: LocalService, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], list[list[str]]]]:
    """Run a program, once for all tests; returns what it costs, and the members of the runner's archives."""
    known: dict[str, tuple[dict[str, Any], list[list[str]]]] = {}

    def hear(name: str) -> tuple[dict[str, Any], list[list[str]]]:
        program = PROGRAMS[name]
        if lacking := program.lacks():
            pytest.skip(f"not here: {', '.join(lacking)}")
        for _ in range(0 if name in known else ATTEMPTS):
            with listened_to(service, program, tmp_path_factory.mktemp("program")) as stage:
                run_id = program.run(stage)
            listener = stage.listener
            known[name] = listener.summary(run_id, program.perhaps), listener.members()
            sent = known[name][0].get("requests", {})
            if not program.together or (sent.get("POST /workflows") == 2 and "POST /jobs" not in sent):
                break
        return known[name]

    return hear


Hear = Callable[[str], tuple[dict[str, Any], list[list[str]]]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_costs_what_was_recorded(name: str, heard: Hear, compare: Callable[[Path, str, str], None]) -> None:
    text = json.dumps(heard(name)[0], indent=2) + "\n"
    compare(DATA / "wire" / f"{name.replace(' ', '_')}.json", text, MEANING.format(what=f"The traffic of {name!r}"))


@pytest.mark.parametrize("name", ["single", "files", "mpi", "warm", "loop", "array of chunks"])
def test_a_runner_consists_of_what_was_recorded(
    name: str, heard: Hear, compare: Callable[[Path, str, str], None]
) -> None:
    text = "\n\n".join("\n".join(members) for members in heard(name)[1]) + "\n"
    compare(DATA / "runner" / f"{name.replace(' ', '_')}.txt", text, MEANING.format(what=f"The runner of {name!r}"))
