"""The service of `url="slurm"`: one for all programs, there as long as one needs it, and back when it was killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from one_node_slurm import OneNodeSlurm
from paths import ROOT
from people import Person

from prominence_executor import ProminenceExecutor
from prominence_executor.service import LocalService
from prominence_executor.service.serving import is_needed, who_serves

Until = Callable[..., None]

pytestmark = pytest.mark.once

FINDS = """
import sys
from pathlib import Path
from prominence_executor.service.found import find_or_start
print(find_or_start("slurm", Path(sys.argv[1]), {}).serving.pid)
"""


def square(number: int) -> int:
    return number * number


def test_programs_that_start_it_at_once_all_find_the_same_one(stays: Path) -> None:
    command = [sys.executable, "-c", FINDS, str(stays)]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    found = {program.communicate(timeout=120)[0] for program in programs}
    assert len(found) == 1
    serving = who_serves(stays)
    assert serving is not None
    assert found == {f"{serving.pid}\n"}


def test_it_is_needed_as_long_as_an_executor_lives_and_comes_back_when_it_is_killed(stays: Path) -> None:
    with ProminenceExecutor(url="slurm", engine={"dir": str(stays)}, poll_interval=(0.05, 0.5)) as executor:
        assert is_needed(stays)
        assert executor.submit(square, 3).result(60) == 9
        serving = who_serves(stays)
        assert serving is not None
        os.kill(serving.pid, signal.SIGKILL)
        assert executor.submit(square, 4).result(120) == 16
        again = who_serves(stays)
        assert again is not None
        assert (again.url, again.pid != serving.pid) == (serving.url, True)
    assert not is_needed(stays)


def test_what_an_ended_service_says_does_not_take_back_what_the_next_one_says(tmp_path: Path) -> None:
    from prominence_executor.service.serving import said

    with said(tmp_path, "http://127.0.0.1:1"):
        path = tmp_path / "serving.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 1}))
    assert who_serves(tmp_path) is not None


def test_the_time_in_the_queue_is_limited_after_a_restart_as_well(
    slurm: OneNodeSlurm, tmp_path: Path, until: Until
) -> None:
    how = {"engine": "slurm", "engine_options": {"poll_seconds": "0.5"}, "seconds_per_minute": 5}
    with LocalService(tmp_path / "state", **how) as service:  # type: ignore[arg-type]
        user = Person(service.url, service.token)
        large = user.create("sleep 600", resources={"cpus": 8})
        until(lambda: user.job(large)["status"] == "running", 60)
        waits = user.create("true", resources={"cpus": 8}, policies={"maximumTimeInQueue": 1})
        until(lambda: slurm.asked("squeue", "-h", "-t", "PD", "-o", "%i"), 60)
    with LocalService(tmp_path / "state", **how) as service:  # type: ignore[arg-type]
        user = Person(service.url, service.token)
        ended = user.ended(waits, 60)
        assert (ended["status"], ended["statusReason"]) == ("failed", "Maximum time queued was exceeded")
        user("DELETE", f"/jobs/{large}")
        until(lambda: not slurm.asked("squeue", "-h", "-o", "%i"), 60)


def test_an_end_that_cannot_be_stored_when_the_service_ends_is_heard_by_the_next_one(
    slurm: OneNodeSlurm, tmp_path: Path, until: Until
) -> None:
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
               "--engine", "slurm"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition("=")[2].strip()
            process.stdout.readline()
            user = Person(url, (tmp_path / "state" / "token").read_text())
            job = user.create("sleep 2")
            until(lambda: user.job(job)["status"] == "running", 60)
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))  # it can write nothing any more
            until(lambda: list((tmp_path / "state" / "engine" / "said").glob("*.ended")), 60)
        finally:
            process.terminate()
    with LocalService(tmp_path / "state", engine="slurm") as service:
        assert Person(service.url, service.token).ended(job, 60)["status"] == "completed"
