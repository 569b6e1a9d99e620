"""A sweep whose program was killed or interrupted, or lost its service, finishes when it is started again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweeping import Marks

from prominence_executor import ProminenceExecutor, open_sweep
from prominence_executor.local import LocalService

PROGRAM = """
import sys, time
from prominence_executor import ProminenceExecutor, sweep

url, token, store, marks, size, seconds, warm = sys.argv[1:]

def compute(x, y):
    time.sleep(float(seconds))
    with open(marks, "a") as file:
        file.write(f"{x} {y}\\n")
    return {"product": x * y}

options = {"workers": "warm", "max_workers": 2} if warm == "warm" else {}
with ProminenceExecutor(url, token, poll_interval=(0.05, 0.5), **options) as executor:
    scan = sweep(compute, {"x": range(int(size)), "y": range(5)}, executor=executor, store=store, chunksize=2)
    print("begun", scan.counts()["done"], flush=True)
    for point in scan:
        print(point.params["x"], flush=True)
"""


class Program:
    """The same program, started again and again."""

    def __init__(self, service: LocalService, folder: Path, marks: Marks, size: int, seconds: float, kind: str) -> None:
        self.store = folder / "scan.sweep"
        self._arguments = [service.url, service.token, str(self.store), str(marks.path), str(size), str(seconds), kind]

    def start(self) -> subprocess.Popen[str]:
        """Start it; it says "begun" when all is sent."""
        pipe: Any = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *self._arguments], stdout=pipe, stderr=pipe, text=True)

    def finish(self) -> str:
        """Run it to its end; return what it said to people."""
        with self.start() as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out + err


def test_interrupted_in_the_middle_it_leaves_its_jobs_and_says_how_to_go_on(
    service: LocalService, tmp_path: Path, marks: Marks
) -> None:
    program = Program(service, tmp_path, marks, 4, 0.6, "jobs")
    with program.start() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.readline()  # the first point
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode
    assert "start the same program again to go on" in said
    assert "left at the service" in said
    done = open_sweep(program.store).counts()["done"]
    assert 0 < done < 20
    said = program.finish()
    assert "not at this service" not in said
    assert open_sweep(program.store).counts()["done"] == 20
    assert marks.count() == {f"{x} {y}": 1 for x in range(4) for y in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("jobs", 6), ("warm", 4)])
def test_killed_again_and_again_every_point_counts_once(
    kind: str, kills: int, service: LocalService, tmp_path: Path, marks: Marks
) -> None:
    dice = random.Random(3)
    program = Program(service, tmp_path, marks, 12, 0.1, kind)
    for _ in range(kills):
        with program.start() as process:
            time.sleep(dice.uniform(0.4, 2.5))
            process.kill()
    program.finish()
    scan = open_sweep(program.store)
    assert scan.counts()["done"] == 60
    expected = {f"{x} {y}" for x in range(12) for y in range(5)}
    counts = marks.count()
    assert set(counts) == expected
    if kind == "jobs":
        assert set(counts.values()) == {1}
    undisturbed = "x,y,product\n" + "".join(f"{x},{y},{x * y}\n" for x in range(12) for y in range(5))
    assert scan.to_csv() == undisturbed
    with ProminenceExecutor(service.url, service.token) as executor:
        for job in executor.client.list_jobs():  # warm workers of programs that were killed
            executor.client.delete_job(job["id"])


def test_the_warm_workers_of_a_killed_program_give_their_slots_to_those_of_the_next(
    tmp_path: Path, marks: Marks
) -> None:
    with LocalService(cpus=2, memory=8) as small:
        program = Program(small, tmp_path, marks, 4, 0.5, "warm")
        with program.start() as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.readline()  # the first point
            process.kill()
        program.finish()
        with ProminenceExecutor(small.url, small.token) as executor:
            assert executor.client.list_jobs() == []
    assert len(marks.count()) == 20


def test_what_the_service_no_longer_has_is_sent_again_and_said(tmp_path: Path, marks: Marks) -> None:
    with LocalService(cpus=1) as service:
        program = Program(service, tmp_path, marks, 2, 0.5, "jobs")
        with program.start() as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
    with LocalService(cpus=8) as service:
        program = Program(service, tmp_path, marks, 2, 0.5, "jobs")
        said = program.finish()
    assert "is not at this service: its 10 calls are sent again" in said
    assert open_sweep(program.store).counts()["done"] == 10
