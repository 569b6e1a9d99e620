"""`url="local"` wherever a program is started, and whatever becomes of the service that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from people import alive

from prominence_executor import (
    BrokenRunError,
    ProminenceExecutor,
    Resources,
    RunNotFoundError,
    ServiceUnavailableError,
    Warm,
)

pytestmark = pytest.mark.once

Until = Callable[..., None]


def services() -> list[int]:
    """The embedded services that this program has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"--says" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def started_task(path: Path) -> None:
    """Says which process it is, and stays."""
    path.write_text(str(os.getpid()))
    time.sleep(1000)


PROGRAM = """
from prominence_executor import ProminenceExecutor
with ProminenceExecutor("local") as executor:
    print(executor.submit(pow, 2, 5).result(60))
"""


def run(script: Path, path: str, where: Path) -> str:
    """What a script prints that is started in a directory."""
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=where, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


def test_nothing_in_the_working_directory_is_taken_for_a_module(tmp_path: Path) -> None:
    where = tmp_path / "where"
    (where / "prominence_executor").mkdir(parents=True)
    for name in ("token", "random", "flask", "json", "jwt", "prominence_executor/__init__"):
        (where / f"{name}.py").write_text("open('executed', 'a').close(); raise SystemExit(3)")
    assert run(tmp_path / "script.py", str(ROOT), where) == "32\n"
    assert not (where / "executed").exists()


def test_a_sitecustomize_that_prints_does_not_come_between(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('welcome', flush=True)\nprint('{')\n")
    printed = run(tmp_path / "script.py", f"{tmp_path}{os.pathsep}{ROOT}", tmp_path)
    assert printed == "welcome\n{\n32\n"


@pytest.mark.parametrize("workers", [None, "warm"])
def test_a_service_that_is_killed_is_known_at_once_and_leaves_nothing(
    tmp_path: Path, until: Until, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    threads = threading.active_count()
    executor = ProminenceExecutor("local", workers=workers, max_workers=2)
    futures = [executor.submit(started_task, tmp_path / f"task-{number}") for number in range(3)]
    until(lambda: all((tmp_path / f"task-{number}").exists() for number in range(2)), 60)
    until(lambda: all((tmp_path / f"task-{number}").read_text() for number in range(2)))
    tasks = [int((tmp_path / f"task-{number}").read_text()) for number in range(2)]
    [service] = services()
    os.kill(service, signal.SIGKILL)
    killed = time.monotonic()
    for future in futures:
        with pytest.raises(BrokenRunError, match=rf"the embedded service \(process {service}\) was ended by SIGKILL"):
            future.result(10)
    assert time.monotonic() - killed < 5
    error = futures[0].exception()
    assert "attach" not in str(error)
    assert isinstance(error, BrokenRunError)
    assert isinstance(error.__cause__, ServiceUnavailableError)
    with pytest.raises(BrokenRunError):
        executor.submit(pow, 2, 5)
    executor.shutdown()
    assert time.monotonic() - killed < 15
    until(lambda: not any(map(alive, tasks)))
    until(lambda: not [path for path in (tmp_path / "temporary").iterdir() if path.name.startswith("prominence-")])
    until(lambda: threading.active_count() <= threads)


def together(folder: Path, count: int) -> bool:
    """Whether so many calls run at the same time."""
    (folder / f"{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_no_more_warm_workers_are_wanted_than_have_room_here() -> None:
    cpus = os.cpu_count() or 1
    with ProminenceExecutor("local", workers="warm", resources=Resources(cpus=cpus)) as executor:
        assert executor.slots() == 1
    with ProminenceExecutor("local", workers=Warm(min_workers=3), resources=Resources(cpus=cpus)) as executor:
        assert executor.slots() == 3
    with ProminenceExecutor("local", workers=Warm(max_workers=5)) as executor:
        assert executor.slots() == 5


@pytest.mark.parametrize("resources", [Resources(), Resources(cpus=2, memory=9)])
def test_as_many_calls_run_at_once_as_there_are_to_be_workers(tmp_path: Path, resources: Resources) -> None:
    count = (os.cpu_count() or 1) + 3
    with ProminenceExecutor("local", max_workers=count, resources=resources, poll_interval=(0.05, 0.5)) as executor:
        assert all(executor.map(together, [tmp_path] * count, [count] * count))


def test_a_run_of_another_programs_service_is_not_there_and_why_is_said() -> None:
    with pytest.raises(RunNotFoundError, match="of a run 'gone': that of 'local' is a new one for each program"):
        ProminenceExecutor.attach("gone", "local")
    assert services() == []
