"""The service as slow and quirky as the real one: each setting alone, and all together from the command line."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from people import Person

from prominence_executor.service import LocalService, Platform

pytestmark = [pytest.mark.once, pytest.mark.slow]

Until = Callable[..., None]
QUIRKS = Platform(
    create_seconds=0.1, detail_seconds=0.1, requests_at_once=2, job_seconds=0.3, memory_enforced=True,
    young_seconds=0.5, blocked_seconds=2.0, hold_every=7, held_seconds=1.0,
    workflow_pace=5.0, workflow_starts=0.5, workflow_idle=2,
    splits_env=True, without_sshd=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def quirky() -> Iterator[LocalService]:
    with LocalService(cpus=2, memory=8, platform=QUIRKS) as service:
        yield service


@pytest.fixture
def person(quirky: LocalService) -> Person:
    return Person(quirky.url, quirky.token_for("person"))


def unheld(person: Person, command: str, **parts: Any) -> int:
    """A job that is not held, after as many as are needed for that; those end at once."""
    while (job := person.create(command, **parts)) % QUIRKS.hold_every == 0:
        person("DELETE", f"/jobs/{job}")
    return job


def test_a_job_that_uses_more_memory_than_it_asked_for_is_killed(person: Person) -> None:
    greedy = "import time; x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096]); time.sleep(60)"
    ended = person.ended(unheld(person, f"python3 -c {shlex.quote(greedy)}"))
    assert (ended["status"], ended["statusReason"]) == ("killed", "Job used too much memory")


def test_a_held_job_looks_failed_until_it_is_released(person: Person, until: Until) -> None:
    while (job := person.create("true")) % QUIRKS.hold_every:
        pass
    described = person.job(job)
    assert described["status"] == "failed"
    assert "statusReason" not in described
    assert "endTime" not in described["events"]
    assert job in [one["id"] for one in person("GET", "/jobs").json()]
    until(lambda: person.job(job)["status"] == "completed")
    assert person.job(job)["execution"]["tasks"][0]["exitCode"] == 0


def test_creating_and_describing_take_their_time_a_few_at_once(person: Person) -> None:
    began = time.monotonic()
    jobs = [unheld(person, "touch out", outputFiles=["out"]) for _ in range(3)]
    assert time.monotonic() - began >= 3 * QUIRKS.create_seconds
    for job in jobs:
        person.ended(job)
    began = time.monotonic()
    person("GET", "/jobs", params={"id": ",".join(map(str, jobs)), "detail": "true"})
    assert time.monotonic() - began >= 3 * QUIRKS.detail_seconds
    began = time.monotonic()
    person("GET", "/jobs", params={"id": ",".join(map(str, jobs))})
    assert time.monotonic() - began < QUIRKS.detail_seconds


def test_a_workflow_makes_its_jobs_one_after_the_other(person: Person, until: Until) -> None:
    member = person.described("sleep 60", labels={"of": "pace"}, name="m")
    factory = {"name": "f", "type": "zip", "jobs": ["m"], "parameters": [{"name": "n", "values": list(range(9))}]}
    body = {"name": "paced", "jobs": [member], "factories": [factory]}
    workflow = person("POST", "/workflows", json=body).json()["id"]

    def made() -> list[str]:
        listed = person("GET", "/jobs", params={"constraint": "of=pace"}).json()
        return [job["name"] for job in listed if job["status"] != "failed"]

    assert made() == []
    until(made)
    assert len(made()) < 3
    until(lambda: len(made()) >= 4)  # two run, two are idle
    time.sleep(1.0)
    progress = person("GET", f"/workflows/{workflow}").json()[0]["progress"]
    assert progress["total"] == 9
    assert 4 <= progress["queued"] <= 5  # one may be held
    assert person("DELETE", f"/workflows/{workflow}").status_code == 200
    assert made() == []
    assert len(person("GET", "/jobs", params={"constraint": "of=pace", "all": "true"}).json()) <= 5


def test_what_is_not_made_yet_is_made_by_the_next_service(tmp_path: Path, until: Until) -> None:
    slow = Platform(workflow_pace=0.01, workflow_starts=0.0)
    member = Person.described("true", labels={"of": "restart"}, name="m")
    factory = {"name": "f", "type": "zip", "jobs": ["m"], "parameters": [{"name": "n", "values": [1, 2, 3]}]}
    with LocalService(tmp_path, platform=slow) as service:
        first = Person(service.url, service.token)
        body = {"name": "w", "jobs": [member], "factories": [factory]}
        workflow = first("POST", "/workflows", json=body).json()["id"]
        until(lambda: first("GET", "/jobs", params={"constraint": "of=restart", "all": "true"}).json())
    with LocalService(tmp_path) as service:
        later = Person(service.url, service.token)
        assert later.ended(f"/workflows/{workflow}")["progress"]["done"] >= 2


def test_a_job_that_cannot_be_made_is_made_when_that_can_be_done(tmp_path: Path, until: Until) -> None:
    refused = "CREATE TRIGGER refused BEFORE UPDATE OF active ON jobs WHEN OLD.active = -1 AND NEW.active = 1"
    member = Person.described("true", name="m")
    factory = {"name": "f", "type": "zip", "jobs": ["m"], "parameters": [{"name": "n", "values": [1, 2, 3]}]}
    with LocalService(tmp_path, platform=Platform(workflow_pace=20.0, workflow_starts=0.0)) as service:
        person = Person(service.url, service.token)
        with closing(sqlite3.connect(tmp_path / "state.sqlite")) as database:
            database.execute(f"{refused} BEGIN SELECT RAISE(ABORT, 'not now'); END")
            workflow = person("POST", "/workflows", json={"name": "w", "jobs": [member], "factories": [factory]}).json()
            until(lambda: person("GET", "/health").status_code == 503)
            assert "the thread pace fails again and again" in person("GET", "/health").json()["error"]
            database.execute("DROP TRIGGER refused")
        assert person.ended(f"/workflows/{workflow['id']}")["progress"]["done"] == 3
        assert person("GET", "/health").status_code == 200


def test_a_young_job_that_is_deleted_blocks_its_slot(person: Person, until: Until) -> None:
    def running(cpus: int) -> int:
        job = unheld(person, "sleep 60", resources={"cpus": cpus})
        until(lambda: person.job(job)["status"] == "running")
        return job

    person("DELETE", f"/jobs/{running(2)}")
    next_one = unheld(person, "sleep 60", resources={"cpus": 2})
    time.sleep(0.5)
    assert person.job(next_one)["status"] == "idle"
    until(lambda: person.job(next_one)["status"] == "running")
    time.sleep(QUIRKS.young_seconds)
    person("DELETE", f"/jobs/{next_one}")
    began = time.monotonic()
    person("DELETE", f"/jobs/{running(2)}")
    assert time.monotonic() - began < QUIRKS.blocked_seconds


PRINTED = "python3 -c 'import os; print(ascii(os.environ[\"VALUE\"]))'"
TEXTS = ["x y", 'x"y"z', "a\\b", "it's", "tab\tnewline\nend", "$HOME * é", ""]


def test_udocker_splits_what_it_is_given(person: Person) -> None:
    def arrived(value: str) -> dict[str, Any]:
        return person.ended(unheld(person, PRINTED, task={"runtime": "udocker", "env": {"VALUE": value}}))

    for text in TEXTS:
        ended = arrived(shlex.quote(text))
        assert person.stdout(ended["id"]).strip() == ascii(text)
    assert person.stdout(arrived('x"y"z')["id"]).strip() == "'xyz'"
    assert person.stdout(arrived("a\\b")["id"]).strip() == "'ab'"
    assert arrived("x y")["execution"]["tasks"][0]["exitCode"] != 0
    crashed = arrived("it's")
    assert crashed["status"] == "completed"
    assert "tasks" not in crashed["execution"]


def test_what_udocker_would_alter_is_refused_where_it_is_not_to_be_as_there(service: LocalService) -> None:
    person = Person(service.url, service.token_for("person"))
    for text in TEXTS:
        task = {"runtime": "udocker", "env": {"VALUE": shlex.quote(text)}}
        assert person.stdout(person.ended(person.create(PRINTED, task=task))["id"]).strip() == ascii(text)
    for text in ('x"y"z', "a\\b", "it's", "x y"):
        task = {"runtime": "udocker", "env": {"VALUE": text}}
        answer = person("POST", "/jobs", json=person.described(PRINTED, task=task))
        assert (answer.status_code, "VALUE" in answer.text, "udocker" in answer.text) == (400, True, True)
        workflow = {"name": "w", "jobs": [{**person.described(PRINTED, task=task), "name": "m"}]}
        assert person("POST", "/workflows", json=workflow).status_code == 400
        person.ended(person.create(PRINTED, task={"env": {"VALUE": text}}))  # singularity takes it


def test_nothing_looks_into_a_job_without_an_sshd(person: Person, until: Until) -> None:
    job = unheld(person, "sleep 60")
    until(lambda: person.job(job)["status"] == "running")
    assert person("POST", f"/jobs/{job}/exec?command=ls").json() == {"error": "Unable to execute command"}
    assert person("PUT", f"/jobs/{job}/snapshot?path=x").json() == {"error": "Unable to create snapshot"}
    person("DELETE", f"/jobs/{job}")


def test_the_measured_platform_can_be_changed_in_words() -> None:
    changed = Platform.measured("detail_seconds=0.24,hold_every=10,memory_enforced=false")
    assert (changed.detail_seconds, changed.hold_every, changed.memory_enforced) == (0.24, 10, False)
    assert changed.workflow_pace == Platform.measured().workflow_pace > 0
    for wrong in ("no_such=1", "detail_seconds=soon", "hold_every=-1", "splits_env=2", "job_seconds=nan"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            Platform.measured(wrong)


def test_the_command_line_says_which_setting_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prominence_executor.service", "--dir", str(tmp_path), "--like-real", "no_such=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "'no_such' is no setting of the platform" in done.stderr
