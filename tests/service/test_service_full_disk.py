"""A full disk stops nothing for good: what cannot be stored is refused whole, or kept and stored when there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from people import Person
from small_disk import SmallDisk

pytestmark = [pytest.mark.once, pytest.mark.slow]

Until = Callable[..., None]
FULL = {"error": "no space is left on the service's disk"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small", "--cpus", "2", "--memory", "8", "--seconds-per-minute", "1")
    yield disk
    disk.process.kill()
    disk.process.communicate()


def fill(disk: SmallDisk, person: Person) -> None:
    """Fill the disk, and what the database still has of it, until nothing can be stored any more."""
    for number in range(1000):
        disk.fill()
        answer = person("POST", f"/kv/filling/{number}", data=b"x" * 4000)
        assert answer.status_code in (201, 507), answer.text
        if answer.status_code == 507:
            assert answer.json() == FULL
            return
    raise AssertionError("the disk is never full")


def test_a_service_does_not_start_on_a_full_disk_and_says_why(tmp_path: Path) -> None:
    code, said = SmallDisk(tmp_path / "small", full=True).end()
    assert code == 1
    assert said.splitlines()[-1] == FULL["error"], said
    assert "Traceback" not in said


def test_requests_are_refused_whole_with_507_and_work_when_there_is_room(disk: SmallDisk) -> None:
    person = disk.person()
    url = person("POST", "/data/upload", json={"filename": "large", "checksum": None}).json()["url"]
    fill(disk, person)
    job = person.described("true", labels={"on": "full"})
    workflow = {"name": "w", "jobs": [{**job, "name": "pxcall"}]}
    for _ in range(3):
        for path, body in (("/jobs", job), ("/workflows", workflow)):
            answer = person("POST", path, json=body)
            assert (answer.status_code, answer.json()) == (507, FULL)
        assert requests.put(url, data=bytes(100_000), timeout=30).status_code == 507
        assert person("GET", "/jobs?all=true").json() == person("GET", "/workflows?all=true").json() == []
        assert person("GET", "/data").json() == []
        assert person("GET", "/health").status_code == 200
    assert [path for path in (disk.directory / "objects" / "incoming").iterdir() if path.stat().st_size] == []
    disk.make_room()
    requests.put(url, data=bytes(100_000), timeout=30).raise_for_status()
    ended = person.ended(person.create("true"))
    assert ended["status"] == "completed"
    created = person("POST", "/workflows", json=workflow)
    assert person.ended(f"/workflows/{created.json()['id']}")["status"] == "completed"
    assert len(person("GET", "/jobs?constraint=on=full&all=true").json()) == 1


def test_the_end_of_a_job_is_kept_and_stored_later(disk: SmallDisk, tmp_path: Path, until: Until) -> None:
    """Two in one workflow, of which the second is due when the first has ended; with outputs."""
    person = disk.person()
    wait = f"""import os, time
open("out", "w").write("content" * 1000)
open({str(tmp_path / "started")!r}, "w")
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.02)
"""
    first = person.described("python3 p.py", name="first", files={"p.py": wait}, outputFiles=["out"])
    second = person.described("true", name="second")
    described = {"name": "w", "jobs": [first, second], "dependencies": {"first": ["second"]}}
    workflow = person("POST", "/workflows", json=described).json()["id"]
    until((tmp_path / "started").exists)
    fill(disk, person)
    (tmp_path / "go").touch()
    time.sleep(2)
    [job] = person("GET", "/jobs?all=true").json()
    assert job["status"] == "running"
    disk.make_room()
    ended = person.ended(job["id"])
    assert ended["status"] == "completed"
    assert requests.get(ended["outputFiles"][0]["url"], timeout=30).text == "content" * 1000
    assert person.ended(f"/workflows/{workflow}")["status"] == "completed"
    assert len(person("GET", "/jobs?all=true").json()) == 2
    assert person("GET", "/health").json() == {}
    until(lambda: not any((disk.directory / "sandboxes").iterdir()))


def test_the_queue_goes_on_when_there_is_room_and_times_in_it_are_kept(
    disk: SmallDisk, tmp_path: Path, until: Until
) -> None:
    person = disk.person()
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)\n"
    running = [person.create("python3 p.py", files={"p.py": wait}, resources={"walltime": 100}) for _ in range(2)]
    until(lambda: all(person.job(job)["status"] == "running" for job in running))
    queued = [person.create("true") for _ in range(3)]
    overdue = person.create("true", policies={"maximumTimeInQueue": 2, "priority": -1})
    fill(disk, person)
    time.sleep(2.5)  # the time in the queue is over: it cannot be stored
    (tmp_path / "go").touch()
    time.sleep(1.5)  # the jobs have ended, nothing of it can be stored, and no other starts
    assert {job["status"] for job in person("GET", "/jobs").json()} == {"running", "idle"}
    disk.make_room()
    assert [person.ended(job)["status"] for job in running + queued] == ["completed"] * 5
    ended = person.ended(overdue)
    assert (ended["status"], ended["statusReason"]) == ("failed", "Maximum time queued was exceeded")
