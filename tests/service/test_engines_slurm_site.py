"""What sites do with their Slurm: they change limits, let jobs wait for weeks, have sbatch say more than a number."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from one_node_slurm import OneNodeSlurm
from people import Person

from prominence_executor.service import LocalService
from prominence_executor.service.state.clock import Clock

Until = Callable[..., None]
DAY = 86400.0
OPTIONS = {"poll_seconds": "0.5"}

pytestmark = pytest.mark.once


class AheadClock(Clock):
    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def test_limits_that_a_site_changes_hold_without_a_new_start(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    options = {**OPTIONS, "partition": "short", "limits_seconds": "0.1"}
    with LocalService(tmp_path / "state", engine="slurm", engine_options=options) as service:
        user = Person(service.url, service.token)
        assert user.ended(user.create("true", resources={"walltime": 35}), 60)["status"] == "failed"
        slurm.asked("scontrol", "update", "partitionname=short", "maxtime=40")
        try:
            time.sleep(0.1)  # the interval itself
            assert user.ended(user.create("true", resources={"walltime": 35}), 60)["status"] == "completed"
        finally:
            slurm.asked("scontrol", "update", "partitionname=short", "maxtime=30")


def test_the_token_of_a_job_that_has_waited_for_long_is_good_from_its_start(
    slurm: OneNodeSlurm, tmp_path: Path, until: Until
) -> None:
    program = "\n".join([
        "import os, time, urllib.request",
        "told = {'Authorization': 'Bearer ' + os.environ['PROMINENCE_TOKEN']}",
        "answer = urllib.request.urlopen(urllib.request.Request(os.environ['PROMINENCE_URL'] + '/jobs', headers=told))",
        "print(answer.status, os.environ['PROMINENCE_TOKEN'])",
        "open('place', 'w').write('x')",
    ])  # fmt: skip
    clock = AheadClock()
    with LocalService(tmp_path, engine="slurm", engine_options=OPTIONS, clock=clock) as service:
        user = Person(service.url, service.token)
        large = user.create("sleep 600", resources={"cpus": 8})
        until(lambda: user.job(large)["status"] == "running", 60)
        job = user.create("python3 p.py", files={"p.py": program}, outputFiles=["place"], resources={"cpus": 8})
        until(lambda: slurm.asked("squeue", "-h", "-t", "PD", "-o", "%i"), 60)
        clock.ahead = 20 * DAY
        assert user("DELETE", f"/jobs/{large}").status_code == 200
        assert user.ended(job, 60)["status"] == "completed"
        status, token = user.stdout(job).split()
        assert status == "200"

        def asked(method: str, path: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return requests.request(
                method, service.url + path, headers=headers, json={"name": "place"}, timeout=30
            ).status_code

        assert (asked("GET", "/jobs"), asked("POST", "/data/output")) == (401, 201)
        clock.ahead = 40 * DAY
        assert asked("POST", "/data/output") == 401


def test_the_last_job_of_an_array_whose_number_is_lost_is_ended_alone(
    slurm: OneNodeSlurm, tmp_path: Path, until: Until
) -> None:
    """Its own number is that of the array."""
    with LocalService(tmp_path / "state", engine="slurm", engine_options=OPTIONS) as service:
        user = Person(service.url, service.token)
        text = json.dumps([user.described("sleep 600")])[1:-1]
        workflow = {"name": "w", "jobs": [{**json.loads(text), "name": "j"}],
                    "factories": [{"name": "f", "type": "zip", "jobs": ["j"],
                                   "parameters": [{"name": "n", "values": [0, 1, 2]}]}]}  # fmt: skip
        assert user("POST", "/workflows", json=workflow).status_code == 201
        until(lambda: len(running(user)) == 3, 60)
        numbers = dict(line.split() for line in slurm.asked("squeue", "-h", "-t", "R", "-o", "%A %F").splitlines())
    (path,) = (tmp_path / "state" / "engine" / "batches").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "id": ""}))  # as after a submission that nobody found
    began = {
        json.loads(said.read_text())["id"]: int(said.name.partition("-")[0])
        for said in (tmp_path / "state" / "engine" / "said").glob("*.began")
    }
    (last,) = [job for number, job in began.items() if numbers[number] == number]
    with LocalService(tmp_path / "state", engine="slurm", engine_options=OPTIONS) as service:
        user = Person(service.url, service.token)
        until(lambda: len(running(user)) == 3, 60)
        assert user("DELETE", f"/jobs/{last}").status_code == 200
        until(lambda: len(slurm.asked("squeue", "-h", "-t", "R", "-o", "%i").split()) == 2, 60)
        others = [job for job in began.values() if job != last]
        assert sorted(running(user)) == sorted(others)
        assert user("DELETE", "/jobs?id=" + ",".join(map(str, others))).status_code == 200
        until(lambda: not slurm.asked("squeue", "-h", "-o", "%i"), 60)


def running(user: Person) -> list[int]:
    return [job["id"] for job in user("GET", "/jobs?status=running").json()]


@pytest.mark.parametrize("says", ['echo Welcome; "$real" "$@"; echo "2 jobs wait"', '"$real" "$@" >/dev/null'])
def test_a_job_is_followed_whatever_a_site_has_sbatch_say(
    slurm: OneNodeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    (tmp_path / "bin").mkdir()
    own = tmp_path / "bin" / "sbatch"
    own.write_text(f"#!/bin/sh\necho >>{tmp_path}/calls\nreal={shutil.which('sbatch')}\n{says}\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")
    with LocalService(tmp_path / "state", engine="slurm", engine_options=OPTIONS) as service:
        user = Person(service.url, service.token)
        ended = user.ended(user.create("true"), 60)
    assert (ended["status"], ended["execution"]["site"]) == ("completed", "tests")
    assert (tmp_path / "calls").read_text() == "\n"
