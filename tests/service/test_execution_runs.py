"""What a job may ask for while it waits, runs and ends; and what hostile jobs and requests do not achieve."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import requests
from people import Person, alive, files_named

from prominence_executor.service import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]


def test_a_failing_job_is_run_again_as_often_as_it_may(person: Person) -> None:
    program = "import os, sys; print('try'); sys.exit(3)"
    job = person.create("python3 p.py", files={"p.py": program}, policies={"maximumRetries": 2})
    ended = person.ended(job)
    assert (ended["status"], ended["execution"]["retries"]) == ("completed", 2)
    assert person.stdout(job) == "try\n"  # the last run's


def test_a_job_that_is_run_again_can_still_be_ended(person: Person, until: Until) -> None:
    """The second run sleeps: it must be found, and not be forgotten with the first."""
    gate = f"g{time.monotonic_ns()}"
    command = "sh -c 'python3 key.py || exec sleep 1000; exit 1'"
    key = f"""
import os, sys, urllib.request
headers = {{"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"]}}
url = os.environ["PROMINENCE_URL"] + "/kv/{gate}"
try:
    urllib.request.urlopen(urllib.request.Request(url, headers=headers)).close()
    sys.exit(1)  # there already: this is the second run
except urllib.error.HTTPError:
    urllib.request.urlopen(urllib.request.Request(url, b"first", headers, method="POST")).close()
"""
    job = person.create(command, files={"key.py": key}, policies={"maximumRetries": 1})
    until(lambda: person.job(job)["execution"].get("retries") == 1 and person.job(job)["status"] == "running")
    until(lambda: person("POST", f"/jobs/{job}/exec?command=ls").status_code == 200)
    assert person("DELETE", f"/jobs/{job}").json() == {}
    until(lambda: person("POST", f"/jobs/{job}/exec?command=ls").json() == {"error": "Job is not running"})


def test_a_running_job_can_be_looked_into_at_once(person: Person, until: Until) -> None:
    for _ in range(5):
        job = person.create("sleep 60")
        until(lambda job=job: person.job(job)["status"] == "running")
        assert person("POST", f"/jobs/{job}/exec?command=ls").status_code == 200
        person("DELETE", f"/jobs/{job}")


def test_a_job_that_may_stay_in_the_queue_leaves_it_by_remove(person: Person) -> None:
    job = person.create("true", policies={"leaveInQueue": True}, labels={"stays": "1"})
    person.ended(job)
    listed = [item["id"] for item in person("GET", "/jobs?constraint=stays=1").json()]
    assert listed == [job]
    assert person("PUT", f"/jobs/{job}/remove").json() == {}
    assert person("GET", "/jobs?constraint=stays=1").json() == []
    assert person("PUT", f"/jobs/{job}/remove").json() == {"error": "Job is no longer in the queue"}
    assert person.job(job)["status"] == "completed"


def test_a_clone_is_a_new_job_of_the_same_description(person: Person) -> None:
    job = person.create("echo same", name="cloned", labels={"of": "x"})
    answer = person("PUT", f"/jobs/{job}/clone")
    assert answer.status_code == 201
    clone = answer.json()["id"]
    assert clone > job
    ended = person.ended(clone)
    assert (ended["name"], ended["labels"], person.stdout(clone)) == ("cloned", {"of": "x"}, "same\n")


def test_commands_and_snapshots_look_inside_a_running_job(person: Person, until: Until) -> None:
    job = person.create("sh -c 'echo text > seen; sleep 60'")
    until(lambda: person("POST", f"/jobs/{job}/exec?command=cat,seen").content == b"text\n")
    failed = person("POST", f"/jobs/{job}/exec?command=false")
    assert (failed.status_code, failed.json()) == (400, {"error": "Unable to execute command"})
    endless = person("POST", f"/jobs/{job}/exec?command=yes")
    assert (endless.status_code, endless.json()) == (400, {"error": "Unable to execute command"})
    assert person("PUT", f"/jobs/{job}/snapshot?path=/etc").json() == {"error": "Invalid path"}
    assert person("PUT", f"/jobs/{job}/snapshot?path=../..").json() == {"error": "Invalid path"}
    assert person("PUT", f"/jobs/{job}/snapshot?path=seen").json() == {}
    url = person("GET", f"/jobs/{job}/snapshot").json()["url"]
    with tarfile.open(fileobj=BytesIO(requests.get(url, timeout=30).content)) as archive:
        assert archive.getnames() == ["seen"]
    person("DELETE", f"/jobs/{job}")
    until(lambda: person("POST", f"/jobs/{job}/exec?command=ls").json() == {"error": "Job is not running"})


def test_a_job_uploads_to_its_own_place_with_its_own_token(person: Person) -> None:
    program = """
import json, os, urllib.request
def ask(path, body):
    headers = {"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"], "Content-Type": "application/json"}
    url = os.environ["PROMINENCE_URL"] + path
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)
url = ask("/data/output", {"name": "early"})["url"]
urllib.request.urlopen(urllib.request.Request(url, b"sent early", method="PUT")).close()
print(url)
"""
    job = person.create("python3 p.py", files={"p.py": program})
    assert person.ended(job)["execution"]["tasks"][0]["exitCode"] == 0
    assert "/scratch/" in person.stdout(job)
    refused = person("POST", "/data/output", json={"name": "x"})
    assert (refused.status_code, refused.json()) == (400, {"error": "Unspecified error"})


def test_the_outputs_of_an_ended_job_can_be_overwritten_with_its_token(person: Person) -> None:
    job = person.create("sh -c 'echo $PROMINENCE_TOKEN > place'", outputFiles=["place"])
    place = person.ended(job)["outputFiles"][0]["url"]
    token = requests.get(place, timeout=10).text.strip()
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{person.url}/data/output", json={"name": "place"}, headers=headers, timeout=10)
    for content in (b"first", b"second, longer"):
        requests.put(answer.json()["url"], data=content, timeout=10).raise_for_status()
        assert requests.get(place, timeout=10).content == content
    other = requests.get(f"{person.url}/jobs", headers=headers, timeout=10)
    assert other.status_code == 401  # for all else, a job's token ends with the job


def test_higher_priority_starts_first_and_what_waits_too_long_fails() -> None:
    with LocalService(cpus=1, memory=4, seconds_per_minute=0.5) as service:
        person = Person(service.url, service.token)
        blocking = person.create("sleep 60", resources={"walltime": 1000})
        low, high = person.create("true"), person.create("true", policies={"priority": 5})
        late = person.create("true", policies={"maximumTimeInQueue": 1})
        assert person.ended(late)["statusReason"] == "Maximum time queued was exceeded"
        person("DELETE", f"/jobs/{blocking}")
        person.ended(low)
        finished = person("GET", f"/jobs?id={low},{high}").json()
        assert [item["id"] for item in finished] == [low, high]  # the newest end leads


def test_a_daemon_that_hides_its_origin_ends_with_its_job(person: Person, until: Until) -> None:
    """Double fork, own session, cleared environment: known by its working directory."""
    command = "sh -c 'env -i setsid sh -c \"echo \\$\\$ > pid; sleep 1000\" & while ! test -s pid; do :; done; cat pid'"
    job = person.create(command)
    person.ended(job)
    daemon = int(person.stdout(job))
    until(lambda: not alive(daemon))


@pytest.mark.parametrize("name", ["../../../stolen", "/etc/stolen", "link", "pipe", "no/such/directory"])
def test_a_tasks_stdout_file_stays_inside_and_never_blocks(name: str, person: Person, service: LocalService) -> None:
    target = service.dir / "stolen"
    program = f"import os; os.symlink({str(target)!r}, 'link'); os.mkfifo('pipe'); print('text')"
    job = person.create("python3 p.py", files={"p.py": program}, task={"stdout": name})
    assert person.ended(job)["status"] == "completed"
    assert person.stdout(job) == "text\n"
    assert [path for path in files_named(service.dir, "stolen") if path.is_file()] == []
    assert not Path("/etc/stolen").exists()


def test_outputs_that_a_task_made_unreadable_are_still_readable_for_its_user(person: Person) -> None:
    program = "import os; open('o', 'w').write('text'); os.chmod('o', 0); os.mkdir('d'); os.chmod('d', 0)"
    job = person.create("python3 p.py", files={"p.py": program}, outputFiles=["o"])
    ended = person.ended(job)
    assert requests.get(ended["outputFiles"][0]["url"], timeout=30).text == "text"


@pytest.mark.parametrize(
    "output", ["../../../../state.sqlite", "../../../*/../../../secret", "/etc/passwd", "a/../../../.."]
)
def test_outputs_outside_the_sandbox_are_missing(output: str, person: Person) -> None:
    answer = person("POST", "/jobs", json=person.described("mkdir a", outputFiles=[output]))
    if answer.status_code == 201:
        ended = person.ended(answer.json()["id"])
        assert (ended["status"], ended["outputFiles"][0]["url"]) == ("failed", "")
    else:
        assert answer.status_code == 400


def test_sandboxes_are_gone_after_their_jobs(until: Until) -> None:
    with LocalService() as service:
        person = Person(service.url, service.token)
        program = "import os; os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod('a/b', 0o500)"
        person.ended(person.create("python3 p.py", files={"p.py": program}))
        until(lambda: not list((service.dir / "sandboxes").iterdir()))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "\ud800"},
        {"files": {"\ud800": "x"}},
        {"task": {"cmd": "echo \ud800"}},
        {"task": {"cmd": "echo \0"}},
        {"task": {"env": {"A\0": "1"}}},
        {"task": {"workdir": 1}},
        {"resources": {"cpus": 10**30}},
        {"policies": {"priority": 10**30}},
        {"artifacts": [{"url": "a", "mountpoint": "a:/../../b"}]},
        {"artifacts": [{"url": "../secret"}]},
        {"outputFiles": [".."]},
        {"inputs": {}},
        {"tasks": ["x"]},
        {"labels": {"": "x"}},
    ],
)
def test_unusable_descriptions_are_refused_with_a_sentence(change: dict[str, object], person: Person) -> None:
    body = person.described("true", **change)
    answer = person("POST", "/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/jobs/99999999999999999999", "/jobs?id=99999999999999999999", "/kv/%00", "/data/%2e%2e"]
)
def test_unusable_addresses_are_no_error_of_the_service(path: str, person: Person) -> None:
    assert person("GET", path).status_code < 500
    assert person("DELETE", path).status_code < 500


def test_a_download_whose_host_is_gone_fails_the_job(person: Person) -> None:
    job = person.create("ls", artifacts=[{"url": "http://127.0.0.1:9/none.tar"}])
    ended = person.ended(job)
    assert (ended["status"], ended["statusReason"]) == ("failed", "Artifact download failed")
    assert "stageInTime" in ended["execution"]


def test_artifacts_come_by_url_too_and_can_be_mounted_in_home(person: Person) -> None:
    first = person.create("sh -c 'echo text > o'", outputFiles=["o"])
    url = person.ended(first)["outputFiles"][0]["url"]
    job = person.create("cat o sub/mounted", artifacts=[{"url": url, "mountpoint": "o:/home/user/sub/mounted"}])
    person.ended(job)
    assert person.stdout(job) == "text\ntext\n"


def test_stdout_larger_than_a_piece_comes_whole(person: Person) -> None:
    size = 3_000_001
    job = person.create(f"python3 -c \"print('x' * {size - 1})\"")
    person.ended(job)
    answer = person("GET", f"/jobs/{job}/stdout", stream=True)
    assert int(answer.headers["Content-Length"]) == size
    assert len(answer.content) == size
    assert person("GET", f"/jobs/{job}/stdout?offset={size - 2}").content == b"x\n"


def test_programs_that_tasks_start_find_the_same_python(person: Person) -> None:
    script = "#!/usr/bin/env python3\nimport sys; print(sys.executable, sys.prefix)"
    job = person.create(
        'sh -c \'sh -c "python3 s.py"; python -c "import s"; env python3 s.py\'', files={"s.py": script}
    )
    person.ended(job)
    lines = set(person.stdout(job).splitlines())
    import sys

    assert lines == {f"{sys.executable} {sys.prefix}"}


def test_a_stopped_service_leaves_nothing_behind() -> None:
    import threading

    before = set(threading.enumerate())
    with LocalService(cpus=8, memory=64) as service:
        person = Person(service.url, service.token)
        jobs = [person.create("sh -c 'echo $$$$; sleep 1000'") for _ in range(4)]
        deadline = time.monotonic() + 20
        while not all(person.stdout(job) for job in jobs):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pids = [int(person.stdout(job)) for job in jobs]
        directory = service.dir
    assert not any(alive(pid) for pid in pids)
    assert not os.path.exists(directory)
    assert set(threading.enumerate()) <= before
    with pytest.raises(requests.ConnectionError):
        requests.get(person.url + "/health", timeout=5)


def test_a_directory_serves_one_service_at_a_time(tmp_path: Path) -> None:
    with LocalService(tmp_path / "state") as service:
        with pytest.raises(RuntimeError, match="another service uses"):
            LocalService(tmp_path / "state").start()
        assert (service.dir / "secret").stat().st_mode & 0o777 == 0o600
        assert (service.dir / "state.sqlite").stat().st_mode & 0o777 == 0o600
        token = service.token
    with LocalService(tmp_path / "state") as again:
        assert Person(again.url, token)("GET", "/jobs").status_code == 200  # the secret stays
