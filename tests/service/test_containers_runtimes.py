"""Tasks in real containers: calls and jobs as elsewhere, by udocker and, where it is installed, by Apptainer."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import container_images as images
import pytest
import requests
from container_images import SECRET, same_python
from people import Person

from prominence_executor import ImagePullError, JobDeletedError, ProminenceExecutor, Resources, WalltimeExceededError
from prominence_executor.service import LocalService

Until = Callable[..., None]

pytestmark = pytest.mark.slow


@pytest.fixture
def person(containers: LocalService) -> Person:
    return Person(containers.url, containers.token)


@pytest.fixture(scope="module")
def task(containers: LocalService, runtime: str, image: Path) -> dict[str, str]:
    """What a task says of its image, which is uploaded."""
    upload(Person(containers.url, containers.token), "image.tar", image.read_bytes())
    return {"image": "image.tar", "runtime": runtime}


@pytest.fixture
def inside(containers: LocalService, runtime: str, image: Path) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(
        containers.url, containers.token, image=image, runtime=runtime, poll_interval=(0.05, 0.5)
    ) as executor:
        yield executor


def upload(person: Person, name: str, content: bytes) -> None:
    answer = person("POST", "/data/upload", json={"filename": name, "checksum": None})
    put = requests.put(answer.json()["url"], data=content, headers={"x-ms-blob-type": "BlockBlob"}, timeout=60)
    assert put.status_code in (200, 201)


def finished(person: Person, command: str, **parts: Any) -> tuple[dict[str, Any], str]:
    """The description of a job that has ended, and what it printed."""
    job = person.create(command, **parts)
    described = person.ended(job, seconds=60)
    assert described["status"] == "completed", person("GET", f"/jobs/{job}/stderr").text
    return described, person.stdout(job)


def started_with(word: str) -> list[int]:
    """The processes of this machine with a word on their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word.encode() in Path("/proc", pid, "cmdline").read_bytes().split(b"\0"):
                found.append(int(pid))
        except OSError:  # gone meanwhile
            continue
    return found


# Calls


@same_python
def test_calls_run_in_the_image(inside: ProminenceExecutor) -> None:
    def where(x: int) -> tuple[int, str, str]:
        import numpy

        with open("/etc/os-release") as file:
            release = file.read()
        return int(numpy.arange(x).sum()), os.getcwd(), release

    total, directory, release = inside.submit(where, 5).result(timeout=60)
    assert (total, directory) == (10, "/home/user")
    assert images.SUITE in release
    assert list(inside.map(lambda x: x * x, range(20), chunksize=5)) == [x * x for x in range(20)]


@same_python
def test_what_a_call_raises_in_the_image_comes_back(inside: ProminenceExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        inside.submit(lambda: 1 / 0).result(timeout=60)


@same_python
def test_a_call_over_its_walltime_leaves_no_process(inside: ProminenceExecutor, until: Until) -> None:
    def linger(word: str) -> None:
        import subprocess

        subprocess.Popen(["sleep", word], start_new_session=True)
        time.sleep(600)

    future = inside.with_options(resources=Resources(walltime=1)).submit(linger, "600.1")
    until(lambda: started_with("600.1"))
    with pytest.raises(WalltimeExceededError):
        future.result(timeout=60)
    until(lambda: not started_with("600.1"))


@same_python
def test_a_running_call_that_is_terminated_leaves_no_process(inside: ProminenceExecutor, until: Until) -> None:
    def linger(word: str) -> None:
        import subprocess

        subprocess.run(["sleep", word], check=True)

    future = inside.submit(linger, "600.2")
    until(lambda: started_with("600.2"))
    assert future.terminate()
    with pytest.raises(JobDeletedError):
        future.result(timeout=30)
    until(lambda: not started_with("600.2"))


def test_an_image_that_is_none_is_told_on_the_future(containers: LocalService, runtime: str, person: Person) -> None:
    if runtime == "singularity":
        pytest.skip("runs whatever it is given, and fails with exit code 255")
    upload(person, "junk.sif", b"no image")
    with ProminenceExecutor(containers.url, containers.token, image="junk.sif", runtime=runtime) as executor:
        with pytest.raises(ImagePullError):
            executor.submit(abs, 1).result(timeout=30)


# Jobs


PROBE = textwrap.dedent("""
    import json, os, pwd, sys, urllib.request
    request = urllib.request.Request(
        os.environ["PROMINENCE_URL"] + "/jobs", headers={"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"]}
    )
    open("result.txt", "w").write("a result")
    open("/tmp/own", "w").close()
    print(json.dumps({
        "argv": sys.argv[1:], "cwd": os.getcwd(), "user": pwd.getpwuid(os.getuid()).pw_name, "uid": os.getuid(),
        "environment": dict(os.environ), "stdin": sys.stdin.read(), "encoding": sys.stdout.encoding,
        "input": open("input.txt").read(), "root": os.listdir("/"), "homes": os.listdir("/home"),
        "tmp": os.listdir("/tmp"),
        "seen": [path for path in json.load(open("paths.json")) if os.path.exists(path)],
        "answer": urllib.request.urlopen(request).status,
    }))
""")


def test_a_task_sees_its_image_and_its_own_files_and_nothing_of_the_host(
    person: Person, task: dict[str, str], tmp_path: Path, containers: LocalService
) -> None:
    hidden = [tmp_path, containers.dir, Path(__file__), Path(sys.prefix), Path.home() / ".bashrc"]
    mine = shlex.quote("two words") if task["runtime"] == "udocker" else "two words"  # which splits its command line
    described, printed = finished(
        person,
        "python3 probe.py 'a b' $HOME *.txt ${PROMINENCE_JOB_ID}",
        task={**task, "env": {"MINE": mine, "NUMBER": 3}},
        files={"probe.py": PROBE, "input.txt": "an input", "paths.json": json.dumps([str(path) for path in hidden])},
        outputFiles=["result.txt"],
    )
    assert described["execution"]["tasks"][0]["exitCode"] == 0, person("GET", f"/jobs/{described['id']}/stderr").text
    seen = json.loads(printed)
    assert seen["argv"] == ["a b", "$HOME", "*.txt", str(described["id"])]
    seen["tmp"].remove(".prominence-node")  # what the jobs of a user keep on this machine
    assert (seen["cwd"], seen["homes"], seen["tmp"], seen["stdin"]) == ("/home/user", ["user"], ["own"], "")
    assert (seen["input"], seen["encoding"].lower(), seen["answer"]) == ("an input", "utf-8", 200)
    assert seen["seen"] == []
    if task["runtime"] == "udocker" or os.geteuid() != 0:
        assert seen["uid"] != 0
    environment = seen["environment"]
    expected = {
        "HOME": "/home/user", "TMP": "/tmp", "TEMP": "/tmp", "TMPDIR": "/tmp", "USER": "user", "MINE": "two words",
        "NUMBER": "3", "PROMINENCE_URL": containers.url, "PROMINENCE_CPUS": "1", "PROMINENCE_MEMORY": "1",
        "PROMINENCE_NODES": "1", "PROMINENCE_NODE_NUM": "0", "PROMINENCE_TASK_NUM": "0",
        "PROMINENCE_CONTAINER_RUNTIME": task["runtime"], "PROMINENCE_JOB_ID": str(described["id"]),
    }  # fmt: skip
    assert expected.items() <= environment.items()
    assert SECRET not in environment
    assert not {name for name in environment if name.startswith(("PYTEST", "VIRTUAL_ENV", "UDOCKER"))}
    assert requests.get(described["outputFiles"][0]["url"], timeout=10).content == b"a result"


def test_the_description_says_how_the_image_came(person: Person, task: dict[str, str], image: Path) -> None:
    tasks = [{**task, "cmd": "true"}, {**task, "cmd": "python3 -c 'raise SystemExit(3)'"}]
    described, _ = finished(person, "true", tasks=tasks)
    first, second = described["execution"]["tasks"]
    assert first["imageSha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert (first["imagePullStatus"], second["imagePullStatus"]) == ("completed", "cached")
    assert (first["exitCode"], second["exitCode"]) == (0, 3)
    assert first["imagePullTime"] >= 0
    assert "imagePullTime" not in second
    (version,) = described["execution"]["runtimeVersion"].items()
    assert version[0] == task["runtime"]
    assert version[1].startswith("1." if task["runtime"] == "udocker" else ("apptainer", "singularity"))


def test_jobs_at_once_unpack_an_image_once_and_do_not_see_each_other(
    person: Person, task: dict[str, str], containers: LocalService, image: Path
) -> None:
    def unpacked() -> set[str]:
        found = [*containers.dir.glob("udocker/unpacked/*"), *containers.dir.glob("apptainer/built/*")]
        return {path.stem for path in found}

    before = unpacked()
    command = "sh -c 'echo one >> /tmp/it; echo one >> /home/user/it; cat /tmp/it /home/user/it'"
    with ThreadPoolExecutor(4) as threads:
        printed = list(threads.map(lambda _: finished(person, command, task=task)[1], range(4)))
    assert printed == ["one\none\n"] * 4
    assert unpacked() == before | {hashlib.sha256(image.read_bytes()).hexdigest()}


def test_what_a_task_writes_into_its_image_is_its_job_s_own(person: Person, task: dict[str, str]) -> None:
    if task["runtime"] != "udocker":
        pytest.skip("the image is read-only")
    command = "sh -c 'cat /etc/mark; echo changed >> /etc/mark; echo changed >> /etc/hostname; cat /etc/mark'"
    tasks = [{**task, "cmd": command}, {**task, "cmd": "cat /etc/mark"}]
    assert finished(person, "true", tasks=tasks)[1] == "changed\nchanged\n"
    assert finished(person, "true", tasks=tasks)[1] == "changed\nchanged\n"
    assert "changed" not in finished(person, "sh -c 'cat /etc/hostname; true'", task=task)[1]


def test_a_running_job_is_looked_into_and_deleted(person: Person, task: dict[str, str], until: Until) -> None:
    job = person.create("sh -c 'echo inside > note; echo ready; sleep 600.3'", task=task)
    until(lambda: person.stdout(job) == "ready\n")
    answer = person("POST", f"/jobs/{job}/exec", params={"command": "cat,note,/etc/os-release"})
    assert answer.status_code == 200
    assert answer.text.startswith("inside\n")
    assert images.SUITE in answer.text
    assert person("POST", f"/jobs/{job}/exec", params={"command": "nosuchprogram"}).status_code == 400
    assert person("PUT", f"/jobs/{job}/snapshot", params={"path": "note"}).status_code == 200
    url = person("GET", f"/jobs/{job}/snapshot").json()["url"]
    with tarfile.open(fileobj=io.BytesIO(requests.get(url, timeout=10).content)) as archive:
        member = archive.extractfile("note")
        assert member is not None
        assert member.read() == b"inside\n"
    assert started_with("600.3")
    assert person("DELETE", f"/jobs/{job}").status_code == 200
    until(lambda: not started_with("600.3"))


def test_a_job_ends_with_its_task_whatever_that_left_running(
    person: Person, task: dict[str, str], until: Until
) -> None:
    described, printed = finished(person, "sh -c 'setsid sleep 600.6 & echo done; exit 3'", task=task)
    assert (printed, described["execution"]["tasks"][0]["exitCode"]) == ("done\n", 3)
    until(lambda: not started_with("600.6"))


def test_a_sidecar_ends_with_the_tasks_beside_it(person: Person, task: dict[str, str], until: Until) -> None:
    tasks = [
        {**task, "type": "sidecar", "cmd": "sh -c 'touch /home/user/there; sleep 600.4'"},
        {**task, "cmd": "sh -c 'until test -e there; do sleep 0.1; done; echo seen'"},
    ]
    assert finished(person, "true", tasks=tasks)[1] == "seen\n"
    until(lambda: not started_with("600.4"))


def test_an_artifact_is_mounted_where_the_job_says(person: Person, task: dict[str, str]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("data/table.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"1 2"))
    upload(person, "data.tgz", packed.getvalue())
    for place in ("/home/user/elsewhere", "/srv/tables"):
        artifacts = [{"url": "data.tgz", "mountpoint": f"data:{place}"}]
        assert finished(person, f"cat {place}/table.txt", task=task, artifacts=artifacts)[1] == "1 2"


def test_a_working_directory_is_one_of_the_image_or_of_the_job(person: Person, task: dict[str, str]) -> None:
    assert finished(person, "pwd", task={**task, "workdir": "/usr/lib"})[1] == "/usr/lib\n"
    described, _ = finished(person, "pwd", task={**task, "workdir": "nowhere"})
    assert described["execution"]["tasks"][0]["exitCode"] != 0


def test_without_layers_each_job_has_a_copy(tmp_path: Path, task: dict[str, str], image: Path) -> None:
    if task["runtime"] != "udocker":
        pytest.skip("the image is read-only")
    with LocalService(tmp_path / "no,layers", containers="real") as service:  # a name that cannot be mounted
        person = Person(service.url, service.token)
        upload(person, "image.tar", image.read_bytes())
        for _ in range(2):
            command = "sh -c 'cat /etc/mark; echo changed >> /etc/mark; cat /etc/mark'"
            assert finished(person, command, task=task)[1] == "changed\n"


# Images


class _Counting(http.server.SimpleHTTPRequestHandler):
    answers: list[int]

    def send_response(self, code: int, message: str | None = None) -> None:
        self.answers.append(code)
        super().send_response(code, message)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_an_image_at_a_url_is_fetched_again_only_when_it_has_changed(
    person: Person, task: dict[str, str], image: Path
) -> None:
    answers: list[int] = []
    handler = type("Handler", (_Counting,), {"answers": answers})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(image.parent))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/{image.name}"
            for _ in range(2):
                finished(person, "true", task={**task, "image": url})
        finally:
            server.shutdown()
            thread.join()
    assert answers == [200, 304]


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/image.tar", "junk.tar"])
def test_an_image_that_cannot_be_had_fails_the_job_as_recorded(person: Person, task: dict[str, str], name: str) -> None:
    upload(person, "junk.tar", b"no image")
    if name == "junk.tar" and task["runtime"] == "singularity":
        pytest.skip("runs whatever it is given, and fails with exit code 255")
    described = person.ended(person.create("true", task={**task, "image": name}))
    assert (described["status"], described["statusReason"]) == ("failed", "Container image pull failed")
    (entry,) = described["execution"]["tasks"]
    assert set(entry) - {"imageSha256"} == {"imagePullStatus", "imagePullTime"}
    assert entry["imagePullStatus"] == "failed"


def test_a_service_that_was_killed_leaves_nothing_that_the_next_one_does_not_clear_away(
    task: dict[str, str], image: Path, tmp_path: Path, until: Until
) -> None:
    words = [sys.executable, "-m", "prominence_executor.service", "--dir", str(tmp_path / "state")]
    with subprocess.Popen([*words, "--containers", "real", "--quiet"], stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout is not None
            url = killed.stdout.readline().partition("=")[2].strip()
            person = Person(url, (tmp_path / "state" / "token").read_text())
            upload(person, "image.tar", image.read_bytes())
            job = person.create("sleep 600.5", task=task)
            until(lambda: started_with("600.5"), 60)
        finally:
            killed.kill()
    with LocalService(tmp_path / "state", containers="real") as service:
        assert not started_with("600.5")
        person = Person(service.url, service.token)
        assert person.ended(job)["status"] == "failed"
        assert finished(person, "python3 -V", task=task)[1].startswith("Python 3.")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.mark.parametrize("name", images.RUNTIMES)
def test_a_runtime_that_is_not_installed_fails_the_job_and_says_how_to_install_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "udocker" or not images.missing(name):
        # There is none on this PATH, whatever is installed.
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("UDOCKER_USE_PROOT_EXECUTABLE", raising=False)
    with LocalService(containers="real") as service:
        person = Person(service.url, service.token)
        job = person.create("true", task={"image": "python:3.11-slim", "runtime": name})
        described = person.ended(job)
        assert (described["status"], described["statusReason"]) == ("failed", "Container image pull failed")
        assert described["execution"]["tasks"][0]["imagePullStatus"] == "failed"
        log = person("GET", f"/jobs/{job}/stderr").text
        assert f"the runtime {name} is not installed" in log
        assert "install" in log
