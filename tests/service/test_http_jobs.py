"""Jobs of the embedded service: their sandbox, their files, their ends, and what outlives the service itself."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from job_processes import processes_of
from paths import ROOT, WIRE
from people import files_named

from prominence_executor.service import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
ENDED = ("completed", "failed", "killed", "deleted")


class User:
    """One user's requests."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        answer = requests.request(method, self.url + path, headers=self._headers, timeout=30, **options)
        return (
            answer.json() if answer.headers.get("Content-Type", "").startswith("application/json") else answer.content
        )

    def create(self, command: str, **parts: Any) -> int:
        resources = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10, **parts.pop("resources", {})}
        task = {"image": "any", "runtime": "singularity", "cmd": command, **parts.pop("task", {})}
        answer = self("POST", "/jobs", json={"tasks": [task], "resources": resources, **parts})
        assert "id" in answer, answer
        return int(answer["id"])

    def python(self, program: str, **parts: Any) -> int:
        return self.create(
            "python3 program.py", inputs=[inline("program.py", program), *parts.pop("inputs", [])], **parts
        )

    def describe(self, job: int) -> dict[str, Any]:
        return dict(self("GET", f"/jobs/{job}")[0])

    def ended(self, job: int, seconds: float = 20) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (description := self.describe(job))["status"] not in ENDED:
            assert time.monotonic() < deadline, description
            time.sleep(0.03)
        return description

    def stdout(self, job: int) -> bytes:
        return bytes(self("GET", f"/jobs/{job}/stdout"))

    def upload(self, name: str, content: bytes) -> None:
        url = self("POST", "/data/upload", json={"filename": name, "checksum": None})["url"]
        requests.put(url, data=content, timeout=60).raise_for_status()


def inline(name: str, content: str | bytes) -> dict[str, str]:
    data = content.encode() if isinstance(content, str) else content
    return {"filename": name, "content": base64.b64encode(data).decode()}


@pytest.fixture
def user(service: LocalService) -> User:
    return User(service.url, service.token_for("jobs"))


def shape(value: Any) -> Any:
    """Key names and the order of nesting, without values; lists by their first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else type(value).__name__


CASES = [
    "completed", "completed-output", "exit3", "exit3-ignored", "exit3-report-success", "exit3-taskretries",
    "exit3-jobretries", "output-missing", "output-one-missing", "output-glob", "output-abs", "outputdir-missing",
    "task-stdout-file", "two-tasks-second-fails", "leaveinqueue",
]  # fmt: skip


@pytest.mark.skipif(not WIRE.exists(), reason="the recordings are not beside this repository")
@pytest.mark.parametrize("case", CASES)
def test_a_jobs_end_is_described_as_the_real_service_describes_it(case: str, service: LocalService) -> None:
    user = User(service.url, service.token_for("recorded"))
    user.upload("py313.sif", b"image")
    recorded = json.loads((WIRE / f"state-{case}-describe.json").read_text())["response"]["json"][0]
    keys = ("tasks", "resources", "labels", "policies", "inputs", "name")
    body = {key: recorded[key] for key in keys if key in recorded}
    for key in ("outputFiles", "outputDirs"):
        if key in recorded:
            body[key] = [item["name"] for item in recorded[key]]
    job = user("POST", "/jobs", json=body)["id"]
    ours = user.ended(job)
    for key in ("status", "statusReason", *keys):
        assert ours.get(key) == recorded.get(key), key
    for key in ("outputFiles", "outputDirs"):
        ours_outputs = [(o["name"], bool(o["url"]), o.get("size")) for o in ours.get(key, [])]
        if key == "outputDirs":
            ours_outputs = [(name, there, None) for name, there, _ in ours_outputs]
        recorded_outputs = [
            (o["name"], bool(o["url"]), None if key == "outputDirs" else o.get("size")) for o in recorded.get(key, [])
        ]
        assert ours_outputs == recorded_outputs
    codes = [(task["exitCode"], task["retries"]) for task in ours["execution"]["tasks"]]
    assert codes == [(task["exitCode"], task["retries"]) for task in recorded["execution"]["tasks"]]
    assert set(ours["execution"]) >= set(recorded["execution"]) - {"stageOutTime"}
    assert set(ours["execution"]["tasks"][0]) >= set(recorded["execution"]["tasks"][0]) - {"imageSha256"}
    assert shape(ours["events"]) == shape(recorded["events"])


def test_the_environment_and_directory_of_a_task(user: User) -> None:
    program = """
import json, os, sys, urllib.request
own = urllib.request.Request(os.environ["PROMINENCE_URL"] + "/jobs/" + os.environ["PROMINENCE_JOB_ID"])
own.add_header("Authorization", "Bearer " + os.environ["PROMINENCE_TOKEN"])
described = json.load(urllib.request.urlopen(own))
print(json.dumps({"own": described, "env": dict(os.environ), "cwd": os.getcwd(), "files": sorted(os.listdir(".")),
    "stdin": sys.stdin.read(), "argv": sys.argv[1:], "encoding": sys.stdout.encoding, "python": sys.executable}))
"""
    command = "python3 program.py \"a b\" $HOME '*.txt' ${PROMINENCE_JOB_ID} && | $$x"
    os.environ["PX_SECRET_OF_THE_SERVICE"] = "1"
    job = user.python(program, task={"cmd": command, "env": {"MINE": "1", "N": 3}}, inputs=[inline("sub/x.txt", "x")])
    assert user.ended(job)["status"] == "completed"
    seen = json.loads(user.stdout(job))
    env = seen["env"]
    assert env["HOME"] == seen["cwd"]
    assert seen["cwd"].endswith("/home/user")
    assert seen["files"] == ["program.py", "x.txt"]
    assert seen["stdin"] == ""
    assert seen["argv"] == ["a b", "$HOME", "*.txt", str(job), "&&", "|", "$x"]
    assert seen["encoding"].lower() == "utf-8"
    assert seen["python"] == sys.executable
    expected = {"JOB_ID": str(job), "CPUS": "1", "MEMORY": "1", "NODES": "1", "NODE_NUM": "0", "TASK_NUM": "0"}
    assert {key: env[f"PROMINENCE_{key}"] for key in expected} == expected
    assert (env["MINE"], env["N"], env["PROMINENCE_CONTAINER_RUNTIME"]) == ("1", "3", "singularity")
    assert env["PROMINENCE_URL"] == user.url
    assert "PX_SECRET_OF_THE_SERVICE" not in env
    assert "PYTHONPATH" not in env
    assert seen["own"][0]["id"] == job  # the job's own token: the same user
    assert user.describe(job)["status"] == "completed"
    assert User(env["PROMINENCE_URL"], env["PROMINENCE_TOKEN"])("GET", "/jobs") == {"error": "Authentication failure"}


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/etc/escape", "..", "a,b"])
def test_an_input_name_that_leaves_the_sandbox_or_breaks_it_is_refused_or_flattened(
    name: str, user: User, service: LocalService
) -> None:
    answer = user(
        "POST", "/jobs",
        json={
            "tasks": [{"image": "any", "runtime": "singularity", "cmd": "true"}],
            "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1},
            "inputs": [inline(name, "x")],
        },
    )  # fmt: skip
    if "id" in answer:
        user.ended(answer["id"])
    else:
        assert answer["error"]
    assert not Path("/etc/escape").exists()
    assert [path for path in files_named(service.dir, "escape") if path.parent.name != "user"] == []


def test_archive_members_never_leave_the_sandbox(user: User, service: LocalService) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        for name in ("good.txt", "../../../evil.txt", "/tmp/px-evil-absolute.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    user.upload("evil.tgz", tar.getvalue())
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive_:
        archive_.writestr("../../evil.txt", "abc")
    user.upload("evil.zip", zipped.getvalue())
    for name in ("evil.tgz", "evil.zip"):
        job = user.create("ls", artifacts=[{"url": name}])
        user.ended(job)
    assert not Path("/tmp/px-evil-absolute.txt").exists()
    assert [path for path in files_named(service.dir, "evil.txt") if "user" not in path.parts] == []


def test_an_output_that_points_out_of_the_sandbox_is_not_given_out(user: User) -> None:
    job = user.create("ln -s /etc/passwd o", outputFiles=["o"])
    ended = user.ended(job)
    assert ended["outputFiles"] == [{"name": "o", "url": ""}]


def test_artifacts_arrive_archives_unpacked_and_outputs_come_back_as_written(user: User) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("inside/a.txt")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    user.upload("bundle.tar", tar.getvalue())
    blob = bytes(range(256)) * 100
    user.upload("blob", blob)
    program = "import shutil; shutil.copy('blob', 'out'); print(open('inside/a.txt').read())"
    job = user.python(
        program, artifacts=[{"url": "blob"}, {"url": "bundle.tar"}], outputFiles=["out"], outputDirs=["inside"]
    )
    ended = user.ended(job)
    assert ended["status"] == "completed"
    assert user.stdout(job) == b"hi\n"
    assert requests.get(ended["outputFiles"][0]["url"], timeout=30).content == blob
    part = requests.get(ended["outputFiles"][0]["url"], headers={"Range": "bytes=10-19"}, timeout=30)
    assert (part.status_code, part.content) == (206, blob[10:20])
    directory = requests.get(ended["outputDirs"][0]["url"], timeout=30).content
    with tarfile.open(fileobj=io.BytesIO(directory)) as tgz:
        assert [name for name in tgz.getnames() if name.endswith("a.txt")]


def test_a_signed_url_is_good_for_one_object_and_one_method(user: User) -> None:
    job = user.create("touch o", outputFiles=["o"])
    url = user.ended(job)["outputFiles"][0]["url"]
    assert requests.get(url, timeout=30).ok
    assert requests.put(url, data=b"x", timeout=30).status_code == 403
    assert requests.get(url.partition("?")[0], timeout=30).status_code == 403
    head, _, query = url.partition("?")
    assert requests.get(head + "x?" + query, timeout=30).status_code == 403


def test_two_users_do_not_see_each_other(user: User, service: LocalService) -> None:
    other = User(service.url, service.token_for("somebody-else"))
    job = user.create("sleep 60", labels={"px": "mine"})
    try:
        assert other("GET", f"/jobs/{job}") == []
        assert other("GET", f"/jobs?id={job}") == []
        assert other("GET", "/jobs?constraint=px=mine") == []
        assert other("DELETE", f"/jobs/{job}") == {"error": "No such job(s)"}
        assert other("GET", f"/jobs/{job}/stdout") == {"error": "Not authorized to access this job"}
    finally:
        assert user("DELETE", f"/jobs/{job}") == {}
    assert user.ended(job)["statusReason"] == "Job deleted by user"


def test_stdout_is_live_and_read_by_offset(user: User, until: Until) -> None:
    job = user.create("sh -c 'echo one; echo two >&2; sleep 60'")
    until(lambda: user.stdout(job) == b"one\n")
    assert user("GET", f"/jobs/{job}/stdout?offset=2") == b"e\n"
    assert user("GET", f"/jobs/{job}/stdout?offset=1000") == b""
    assert user("GET", f"/jobs/{job}/stderr") == b"two\n"
    user("DELETE", f"/jobs/{job}")


def test_deleting_a_running_job_ends_its_whole_process_tree(user: User, until: Until) -> None:
    program = """
import os, subprocess, time
child = subprocess.Popen(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
time.sleep(0.3)
print(os.getpid(), child.pid, flush=True)
time.sleep(1000)
"""
    job = user.python(program, outputFiles=["o"])
    until(lambda: user.stdout(job))
    until(lambda: len(processes_of(user.url, job)) >= 3)
    assert user("DELETE", f"/jobs/{job}") == {}
    until(lambda: not processes_of(user.url, job))
    ended = user.ended(job)
    assert (ended["status"], ended["outputFiles"]) == ("deleted", [{"name": "o", "url": ""}])
    assert user("DELETE", f"/jobs/{job}") == {"error": "No such job(s)"}


def test_jobs_queue_for_cpus_and_what_fits_nowhere_stays_idle() -> None:
    with LocalService(cpus=1, memory=4) as service:
        user = User(service.url, service.token)
        first, second = user.create("sleep 60"), user.create("echo second")
        large = user.create("true", resources={"cpus": 100})
        assert [user.describe(job)["status"] for job in (second, large)] == ["idle", "idle"]
        user("DELETE", f"/jobs/{first}")
        assert user.ended(second)["status"] == "completed"
        assert user.describe(large)["status"] == "idle"
        assert [job["id"] for job in user("GET", "/jobs?status=idle")] == [large]


def test_filters_of_the_list(user: User) -> None:
    jobs = [user.create("true", name=f"list-{i}", labels={"list": str(i % 2)}) for i in range(4)]
    for job in jobs:
        user.ended(job)
    ids = ",".join(map(str, jobs))
    assert {job["id"] for job in user("GET", f"/jobs?id={ids},99999")} == set(jobs)
    assert [job["id"] for job in user("GET", "/jobs?all=true&name=list-2")] == [jobs[2]]
    assert {job["id"] for job in user("GET", "/jobs?all=true&constraint=list=1")} == {jobs[1], jobs[3]}
    assert len(user("GET", "/jobs?completed=true")) == 1
    assert len(user("GET", "/jobs?completed=true&num=2&constraint=list=0")) == 2
    assert user("GET", "/jobs?constraint=list=1") == []
    short = user("GET", f"/jobs?id={jobs[0]}")[0]
    assert set(short) == {"id", "name", "status", "events", "tasks"}


def test_a_job_over_its_walltime_is_killed_without_its_outputs() -> None:
    with LocalService(seconds_per_minute=1) as service:
        user = User(service.url, service.token)
        ended = user.ended(user.create("sh -c 'touch o; sleep 60'", outputFiles=["o"], resources={"walltime": 1}))
    assert (ended["status"], ended["statusReason"]) == ("killed", "Walltime limit exceeded")
    assert ended["outputFiles"] == [{"name": "o", "url": ""}]


class Program:
    """The service as a program of its own, on a directory of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prominence_executor.service", "--dir", str(folder), *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("export PROMINENCE_TOKEN"):
            lines.append(self.process.stdout.readline())
            assert lines[-1], "the service did not start"
        self.said = "".join(lines)
        self.url = next(line for line in lines if "PROMINENCE_URL" in line).strip().partition("=")[2]
        self.token = (folder / "token").read_text()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_the_program_says_how_to_use_it_and_keeps_its_token_to_itself(folder: Path) -> None:
    program = Program(folder)
    try:
        assert f"export PROMINENCE_URL={program.url}" in program.said
        assert "not in containers" in program.said
        assert program.token not in program.said
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        assert User(program.url, program.token)("GET", "/jobs") == []
    finally:
        program.end(signal.SIGTERM)
    assert program.process.returncode == 0


def test_a_killed_and_restarted_service_knows_its_jobs_and_runs_the_waiting_ones(folder: Path) -> None:
    first = Program(folder, "--cpus", "1")
    user = User(first.url, first.token)
    done = user.create("echo done")
    user.ended(done)
    running = user.create("sleep 300")
    while user.describe(running)["status"] != "running":
        time.sleep(0.02)
    waiting = user.create("echo waited")
    first.end(signal.SIGKILL)
    second = Program(folder, "--cpus", "1", "--port", first.url.rpartition(":")[2].partition("/")[0])
    try:
        assert second.url == first.url
        assert user.describe(done)["status"] == "completed"
        assert user.stdout(done) == b"done\n"
        lost = user.ended(running)
        assert lost["status"] == "failed"
        assert "restart" in lost["statusReason"]
        assert user.ended(waiting)["status"] == "completed"
        assert user.stdout(waiting) == b"waited\n"
        assert processes_of(user.url, running) == []
    finally:
        second.end(signal.SIGTERM)


def test_a_zip_workflow_runs_its_instances_each_with_outputs_of_its_own(user: User, until: Until) -> None:
    job = {
        "name": "pxcall",
        "tasks": [{"image": "any", "runtime": "singularity", "cmd": 'sh -c "echo ${i} $PROMINENCE_PARAMETER_i > out"'}],
        "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
        "labels": {"pxrun": "zip-test"},
        "outputFiles": ["out"],
    }
    zipped = {"type": "zip", "name": "f", "jobs": ["pxcall"], "parameters": [{"name": "i", "values": [3, 4, 5]}]}
    workflow = user("POST", "/workflows", json={"name": "sweep", "jobs": [job], "factories": [zipped]})["id"]
    until(lambda: user("GET", f"/workflows/{workflow}")[0]["status"] == "completed")
    instances = user("GET", "/jobs?constraint=pxrun=zip-test&all=true&detail=1")
    assert {item["name"] for item in instances} == {f"sweep/pxcall/{i}" for i in range(3)}
    for item in instances:
        index = int(item["name"].rpartition("/")[2])
        assert item["parameters"] == {"i": index + 3}
        content = requests.get(item["outputFiles"][0]["url"], timeout=30).text
        assert content == f"{index + 3} {index + 3}\n"
    assert user("GET", f"/workflows/{workflow}")[0]["progress"]["done"] == 3


@pytest.mark.slow
def test_listing_the_active_jobs_stays_fast_with_a_long_history(tmp_path: Path) -> None:
    """100,000 ended jobs are written into the state of a stopped service; then its list is timed."""
    with LocalService(tmp_path) as service:
        user = User(service.url, service.token)
        template = user.create("true", labels={"pxrun": "history"})
        user.ended(template)
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        for table, key in (("jobs", "id"), ("labels", "job")):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != key]
            names = ", ".join(columns)
            database.execute(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
                f"INSERT INTO {table} ({key}, {names}) SELECT ? + n.i, {names} FROM {table}, n WHERE {key} = ?",
                (template, template),
            )
    database.close()
    with LocalService(tmp_path) as service:
        user = User(service.url, service.token)
        job = user.create("sleep 60", labels={"pxrun": "history"})
        times = []
        for _ in range(5):
            began = time.perf_counter()
            listed = user("GET", "/jobs?constraint=pxrun=history")
            times.append(time.perf_counter() - began)
            assert [item["id"] for item in listed] == [job]
        assert min(times) < 0.05


def test_a_listing_has_the_limit_that_was_measured_of_the_real_service(user: User) -> None:
    for number in range(196):
        assert user("POST", f"/kv/many/{number:03d}", data="x" * 15_960) == {}
    assert len(user("GET", "/kv/many?list=true&values=true")) == 196
    assert user("POST", "/kv/many/196", data="x" * 15_960) == {}
    for query in ("list=true&values=true", "list=true"):
        assert user("GET", f"/kv/many?{query}") == {"error": "Unable to access key-value store"}
        assert user("GET", f"/kv/man?{query}") == {"error": "Unable to access key-value store"}
    assert len(user("GET", "/kv/many/00?list=true&values=true")) == 10
    user("DELETE", "/kv/many?prefix=true")
    assert user("GET", "/kv/many?list=true") == []
