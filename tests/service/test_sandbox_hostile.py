"""What a hostile job, artifact, image or name of a user does not achieve with the service."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from people import Person

from prominence_executor.service import LocalService
from prominence_executor.service.containers import proot_shim
from prominence_executor.service.containers.base import PullFailed
from prominence_executor.service.containers.images import Images
from prominence_executor.service.state.objects import BadKey, ObjectStore

pytestmark = pytest.mark.once

Until = Callable[..., None]


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    with LocalService(cpus=4, memory=16) as service:
        yield service


def upload(person: Person, name: str, content: bytes) -> None:
    url = person("POST", "/data/upload", json={"filename": name, "checksum": None}).json()["url"]
    requests.put(url, data=content, timeout=30).raise_for_status()


def names(person: Person) -> list[str]:
    return [item["name"] for item in person("GET", "/data").json()]


@pytest.mark.parametrize("name", ["eve@example.org", "a user", "eve%40example.org", "a/b", "ü", "%", "..%2f"])
def test_a_user_of_any_name_finds_the_own_objects_and_no_others(own: LocalService, name: str) -> None:
    person, others = Person(own.url, own.token_for(name)), (quote(name, safe=""), quote(name), f"{name}%")
    upload(person, "mine", b"content")
    assert names(person) == ["mine"]
    job = person.create("cat mine", artifacts=[{"url": "mine"}])
    assert (person.ended(job)["status"], person.stdout(job)) == ("completed", "content")
    for other in others:
        if other != name:
            stranger = Person(own.url, own.token_for(other))
            assert names(stranger) == []
            for path in ("mine", f"{other}/mine"):
                stranger("DELETE", f"/data/{path}")
                body = stranger.described("cat mine", artifacts=[{"url": path}])
                assert stranger("POST", "/jobs", json=body).status_code == 400
    assert names(person) == ["mine"]
    person("DELETE", "/data/mine")
    assert names(person) == []


def test_what_was_quoted_twice_by_version_0_1_0_is_found(tmp_path: Path) -> None:
    for directory in ("eve%2540example.org", "local", "100%25", "a%40b"):
        (tmp_path / "objects" / "uploads" / directory).mkdir(parents=True)
        (tmp_path / "objects" / "uploads" / directory / "data").write_text(directory)
    for _ in range(2):  # the second start changes nothing
        store = ObjectStore(tmp_path / "objects")
        for user in ("eve@example.org", "local", "100%", "a@b"):
            assert [item["name"] for item in store.uploads(user)] == ["data"]
        assert store.path("uploads/eve%40example.org/data").read_text() == "eve%2540example.org"
    with pytest.raises(BadKey):
        store.path("uploads/eve@example.org/data")


def test_a_stored_output_is_no_file_that_a_process_of_the_job_can_still_write(own: LocalService) -> None:
    """A daemon that keeps the output open, and clears its environment and directory so that it is not found at once."""
    program = """
import os
with open("out", "w") as file:
    file.write("as it was")
number = os.dup2(os.open("out", os.O_WRONLY | os.O_APPEND), 9, inheritable=True)
if os.fork() == 0:
    os.setsid()
    os.chdir("/")
    os.execve("/bin/sh", ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; echo changed >&9; done"], {})
"""
    person = Person(own.url, own.token)
    ended = person.ended(person.create("python3 p.py", files={"p.py": program}, outputFiles=["out"]))
    time.sleep(0.5)
    assert requests.get(ended["outputFiles"][0]["url"], timeout=30).text == "as it was"


def test_an_output_that_lies_outside_by_the_time_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "o").write_text("secret")
    (tmp_path / "sandbox" / "dir").symlink_to(tmp_path / "elsewhere")  # a moment ago it was a directory
    objects = ObjectStore(tmp_path / "objects")
    with pytest.raises(OSError, match="outside"):
        objects.put_file("scratch/p/o", tmp_path / "sandbox" / "dir" / "o", tmp_path / "sandbox")
    assert not objects.exists("scratch/p/o")


@pytest.mark.parametrize(
    "url",
    ["http://[", "http://[::1", "http://host:port/a", "http://127.0.0.1:1/a b\r\nX: y", "http:///a", "ftp://127.0.0.1/a",
     "file:///etc/passwd", "http://127.0.0.1:1/..", "://", "http://\x00/a", "x" * 300 + "://a/b"],
)  # fmt: skip
def test_an_odd_url_of_an_artifact_is_a_failed_download(own: LocalService, url: str) -> None:
    person = Person(own.url, own.token)
    answer = person("POST", "/jobs", json=person.described("ls", artifacts=[{"url": url}]))
    assert answer.status_code in (201, 400), answer.text
    if answer.status_code == 201:
        ended = person.ended(answer.json()["id"])
        assert (ended["status"], ended["statusReason"]) == ("failed", "Artifact download failed")


def test_an_archive_takes_no_more_than_the_disk_of_its_job(own: LocalService) -> None:
    """Two gigabytes of zeros, of which not one is written."""
    person = Person(own.url, own.token)
    pieces = gzip.compress(bytes(64 << 20))
    upload(person, "zeros.gz", pieces * 32)
    job = person.create("ls", artifacts=[{"url": "zeros.gz"}])
    ended = person.ended(job, seconds=60)
    assert (ended["status"], ended["statusReason"]) == ("failed", "Artifact download failed")
    said = person("GET", f"/jobs/{job}/stderr").text
    assert said == "artifact zeros.gz: more than the job's disk\n"


def test_unpacking_ends_with_its_job(own: LocalService, until: Until) -> None:
    person = Person(own.url, own.token)
    upload(person, "zeros.gz", gzip.compress(bytes(64 << 20)) * 320)
    job = person.create("ls", artifacts=[{"url": "zeros.gz"}], resources={"disk": 100})
    until(lambda: any(path.stat().st_size for path in (own.dir / "sandboxes").glob("*/home/user/zeros")))
    person("DELETE", f"/jobs/{job}")
    until(lambda: not any((own.dir / "sandboxes").iterdir()), 5)


def test_the_token_of_a_job_ends_with_it(own: LocalService, until: Until) -> None:
    person = Person(own.url, own.token)
    job = person.create("sh -c 'printf %s $PROMINENCE_TOKEN; exec sleep 60'")
    until(lambda: person.stdout(job).count(".") == 2)
    of_job = Person(own.url, person.stdout(job))
    assert of_job("GET", "/jobs").status_code == 200
    person("DELETE", f"/jobs/{job}")
    answer = of_job("GET", "/jobs")
    assert (answer.status_code, answer.json()) == (401, {"error": "Authentication failure"})


def test_a_mountpoint_is_one_mountpoint(own: LocalService) -> None:
    person = Person(own.url, own.token)
    for mountpoint in ("a:/mnt,/etc", "a,/etc:/mnt", "a:/mnt:/etc"):
        body = person.described("ls", artifacts=[{"url": "http://127.0.0.1:1/a", "mountpoint": mountpoint}])
        answer = person("POST", "/jobs", json=body)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid mountpoint for artifact"})


@pytest.mark.parametrize(
    "name",
    [
        "--help",
        "-q",
        "--opt=a://b",
        "docker-archive://etc/a",
        "oci://dir",
        "a b",
        "a\nb",
        "docker://-v",
        "",
    ],
)
def test_no_image_is_an_option_of_its_runtime_or_a_file_of_this_machine(tmp_path: Path, name: str) -> None:
    images = Images(tmp_path / "images", ObjectStore(tmp_path / "objects"))
    with pytest.raises(PullFailed, match="is not the name of an image"):
        images.get(name, "user", lambda: False)
    for good in ("python:3.11-slim", "docker://ghcr.io/a/b@sha256:0f", "library://u/c/i:1", "localhost:5000/a_b"):
        assert images.get(good, "user", lambda: False).name == good


def test_containers_need_a_directory_that_their_runtimes_can_be_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not contain"):
        LocalService(tmp_path / "a:b", containers="real").start()


def test_the_environment_of_a_task_in_a_container_is_not_on_a_command_line(tmp_path: Path) -> None:
    """The words of a process can be read by every user of the machine."""
    shim = [sys.executable, proot_shim.__file__]
    given = tmp_path / "given"
    given.write_text('{"SECRET": "of the task\\n", "LD_PRELOAD": ""}')
    done = subprocess.run(
        [*shim, "env"], env={"PROMINENCE_LOCAL_ENVIRONMENT": str(given), "SECRET": "of the host"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert "SECRET=of the task\n\n" in done.stdout
    assert "PROMINENCE_LOCAL_ENVIRONMENT" not in done.stdout
