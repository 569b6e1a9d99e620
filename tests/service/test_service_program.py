"""The service as one program's private child, and how it copes with much: large objects, many jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from paths import ROOT
from people import Person, alive
from variables import unmeasured

from prominence_executor.service import LocalService

CHILD = [sys.executable, "-m", "prominence_executor.service", "--child"]
PARENT = f"""
import subprocess, sys
child = subprocess.Popen({CHILD!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
print(child.pid, child.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""

Until = Callable[..., None]


def started(command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def running_task(person: Person, until: Until) -> int:
    job = person.create("sh -c 'echo $$$$; sleep 1000'")
    until(lambda: person.stdout(job))
    return int(person.stdout(job))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = started(CHILD)
    yield process
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def test_a_child_says_one_line_and_ends_with_its_standard_input(child: subprocess.Popen[str], until: Until) -> None:
    answer = said(child)
    assert set(answer) == {"url", "token"}
    task = running_task(Person(answer["url"], answer["token"]), until)
    out, error = child.communicate(timeout=20)  # closes its standard input
    assert (child.returncode, out, error) == (0, "", "")
    until(lambda: not alive(task))


def test_the_former_name_still_serves() -> None:
    from prominence_executor import local
    from prominence_executor.local import launch

    assert local.LocalService is LocalService
    child = launch.launch()
    child.stop()
    with started([sys.executable, "-m", "prominence_executor.local", "--child"]) as process:
        assert set(said(process)) == {"url", "token"}
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_child_ends_when_its_parent_is_killed(until: Until) -> None:
    with started([sys.executable, "-c", PARENT]) as parent:
        assert parent.stdout is not None
        pid, _, line = parent.stdout.readline().partition(" ")
        answer = json.loads(line)
        task = running_task(Person(answer["url"], answer["token"]), until)
        parent.kill()
        until(lambda: not alive(int(pid)))
        until(lambda: not alive(task))


def test_a_missing_extra_is_one_sentence() -> None:
    program = """
import sys
sys.modules["aiohttp"] = None
from prominence_executor.service.__main__ import main
sys.exit(main([]))
"""
    with started([sys.executable, "-c", program]) as process:
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert error.count("\n") == 1
    assert "pip install 'prominence-executor[local]'" in error


def test_importing_the_package_loads_no_server() -> None:
    program = "import sys, prominence_executor.service; print(*{'aiohttp', 'jwt', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=unmeasured(PYTHONPATH=str(ROOT)), capture_output=True, text=True,
        timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_a_large_object_goes_round_without_filling_memory(child: subprocess.Popen[str], tmp_path: Path) -> None:
    answer = said(child)
    person = Person(answer["url"], answer["token"])

    def peak() -> int:
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    before, size, piece = peak(), 300_000_000, os.urandom(1_000_000)
    with open(tmp_path / "large", "wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
    url = person("POST", "/data/upload", json={"filename": "large", "checksum": None}).json()["url"]
    with open(tmp_path / "large", "rb") as large:
        requests.put(url, data=large, timeout=120).raise_for_status()
    ended = person.ended(person.create("mv large out", artifacts=[{"url": "large"}], outputFiles=["out"]), seconds=120)
    assert ended["outputFiles"][0]["size"] == size
    with requests.get(ended["outputFiles"][0]["url"], stream=True, timeout=120) as download:
        received = sum(map(len, download.iter_content(1 << 20)))
    assert received == size
    assert peak() - before < 60_000_000


@pytest.mark.once
def test_ten_thousand_active_jobs_are_listed_by_label_within_half_a_second() -> None:
    with LocalService(cpus=1, memory=1) as service:
        person = Person(service.url, service.token)
        job = person.described("true", name="pxcall", resources={"cpus": 2}, labels={"run": "many"})
        values = {"name": "i", "values": list(range(10_000))}
        zipped = {"type": "zip", "name": "f", "jobs": ["pxcall"], "parameters": [values]}
        person("POST", "/workflows", json={"name": "many", "jobs": [job], "factories": [zipped]}).raise_for_status()
        times = []
        for _ in range(3):
            began = time.perf_counter()
            answer = person("GET", "/jobs?constraint=run=many")
            times.append(time.perf_counter() - began)
        assert len(answer.json()) == 10_000
        assert min(times) < 0.5


def test_a_job_of_nothing_costs_the_service_little() -> None:
    """Processor time of this process, which here is client and service both, per job."""
    with LocalService(cpus=4, memory=16) as service:
        person, count = Person(service.url, service.token), 50
        person.ended(person.create("true"))
        began = time.process_time()
        jobs = [person.create("true") for _ in range(count)]
        for job in jobs:
            person.ended(job)
        assert (time.process_time() - began) / count < 0.1
