"""Clocks that are set, threads that fail, descriptors that run out, and command lines that cannot be meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from paths import ROOT
from people import Person, alive

from prominence_executor.service import LocalService
from prominence_executor.service.state.clock import Clock

pytestmark = pytest.mark.once

Until = Callable[..., None]
HOUR = 3600.0


class SetClock(Clock):
    """A machine whose clock is set while the service runs, and whose engine can be made to fail at reading it."""

    ahead = 0.0
    failure: BaseException | None = None

    def time(self) -> float:
        return super().time() + self.ahead

    def monotonic(self) -> float:
        if self.failure is not None and threading.current_thread().name == "engine":
            raise self.failure
        return super().monotonic()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def person(clock: SetClock) -> Iterator[Person]:
    with LocalService(cpus=2, memory=8, clock=clock) as service:
        yield Person(service.url, service.token_for("person", HOUR / 2))


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_setting_the_clock_ends_no_job_no_url_no_token_and_leaves_no_daemon(
    person: Person, clock: SetClock, until: Until, jump: float
) -> None:
    running = person.create("sleep 60", resources={"walltime": 10})
    busy = person.create("sleep 60", resources={"walltime": 10})
    queued = person.create("true", policies={"maximumTimeInQueue": 10})
    until(lambda: {person.job(job)["status"] for job in (running, busy)} == {"running"})
    url = person("POST", "/data/upload", json={"filename": "data", "checksum": None}).json()["url"]
    clock.ahead = jump
    assert requests.put(url, data=b"content", timeout=30).status_code == 200
    person("POST", f"/jobs/{running}/exec?command=true")
    assert {person.job(job)["status"] for job in (running, busy)} == {"running"}
    assert person.job(queued)["status"] == "idle"
    person("DELETE", f"/jobs/{busy}")
    assert person.ended(queued)["status"] == "completed"
    daemon = person.create("sh -c 'setsid sleep 1000 & echo $!'".replace("$!", "$$!"))
    person.ended(daemon)
    until(lambda: not alive(int(person.stdout(daemon))))
    person("DELETE", f"/jobs/{running}")
    for job in (running, busy, queued, daemon):
        events = person.job(job)["events"]
        assert events["createTime"] <= events.get("startTime", events["endTime"]) <= events["endTime"], events


def test_a_walltime_is_kept_though_the_clock_goes_back(clock: SetClock) -> None:
    with LocalService(cpus=1, memory=1, seconds_per_minute=0.5, clock=clock) as service:
        person = Person(service.url, service.token)
        job = person.create("sleep 60", resources={"walltime": 2})
        clock.ahead = -HOUR
        ended = person.ended(job, seconds=10)
        assert (ended["status"], ended["statusReason"]) == ("killed", "Walltime limit exceeded")


def test_a_thread_that_fails_is_told_by_health_and_goes_on(person: Person, clock: SetClock, until: Until) -> None:
    def health() -> requests.Response:
        return person("GET", "/health")

    assert (health().status_code, health().json()) == (200, {})
    clock.failure = OverflowError("timestamp too large")
    job = person.create("true")
    until(lambda: health().status_code == 503)
    reason = "the thread engine fails again and again: OverflowError: timestamp too large"
    assert health().json() == {"error": reason}
    clock.failure = None
    assert person.ended(job)["status"] == "completed"
    until(lambda: health().status_code == 200)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_dead_is_told_by_health(person: Person, clock: SetClock, until: Until) -> None:
    clock.failure = SystemExit("no more")
    person.create("true")
    until(lambda: person("GET", "/health").status_code == 503)
    assert person("GET", "/health").json() == {"error": "the thread engine has ended: SystemExit: no more"}


def test_few_descriptors_cost_no_job_and_no_flood_of_messages(tmp_path: Path) -> None:
    """More jobs at once than there are descriptors for."""
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
               "--cpus", "30", "--memory", "60"]  # fmt: skip
    with subprocess.Popen(
        ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition("=")[2].strip()
            process.stdout.readline()
            person = Person(url, (tmp_path / "state" / "token").read_text())
            program = "import sys, time; time.sleep(0.5); print('done'); open('out', 'w').write('content')"
            jobs = [person.create("python3 p.py", files={"p.py": program}, outputFiles=["out"]) for _ in range(45)]
            for job in jobs:
                ended = person.ended(job, seconds=60)
                assert (ended["status"], ended["outputFiles"][0].get("size")) == ("completed", 7), ended
                assert ended["execution"]["tasks"][0]["exitCode"] == 0
        finally:
            process.terminate()
            _, said = process.communicate(timeout=30)
    assert said.count("\n") < 20, said


def serve(*options: Any) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "prominence_executor.cli", "serve", *map(str, options)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--port", "99999"), ("--port", "-1"), ("--cpus", "-1"), ("--cpus", "0"), ("--memory", "0"), ("--cpus", "1.5"),
        ("--memory", "9" * 30), ("--seconds-per-minute", "nan"), ("--seconds-per-minute", "inf"),
        ("--seconds-per-minute", "0"), ("--unknown",), ("--containers", "some"),
    ],
)  # fmt: skip
def test_a_number_that_no_service_can_have_is_one_sentence(options: tuple[str, ...], tmp_path: Path) -> None:
    code, said = serve("--dir", tmp_path / "state", *options)
    assert (code, said.count("\n")) == (2, 1), said
    assert options[0].strip("-").replace("-", "") in said.replace("-", "").replace("_", "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["pages", "truncated", "table"])
def test_a_damaged_database_is_one_sentence(tmp_path: Path, damage: str) -> None:
    with LocalService(tmp_path / "state", cpus=1, memory=1) as service:
        person = Person(service.url, service.token)
        for _ in range(20):
            person.create("true", resources={"cpus": 2}, labels={f"label{n}": "v" * 300 for n in range(20)})
    database = tmp_path / "state" / "state.sqlite"
    content = bytearray(database.read_bytes())
    if damage == "pages":
        for page in range(4096, len(content), 8192):
            content[page + 8 : page + 1000] = b"\xff" * 992
    elif damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content = content.replace(b"queue_minutes INTEGER", b"queue_MINUTES 1NTEGER")
    database.write_bytes(content)
    code, said = serve("--dir", tmp_path / "state")
    assert (code, said.count("\n")) == (1, 1), said
    assert f"the database {database} cannot be used" in said
