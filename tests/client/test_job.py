"""Job, from description to outputs, on the real embedded service."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prominence_executor.client.client import ProminenceClient
from prominence_executor.client.job import Job
from prominence_executor.client.model import Artifact, InputFile, JobPolicies, Resources, Task
from prominence_executor.client.status import ENDED
from prominence_executor.client.submitted import default_client, poll_interval
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OutputNotFoundError,
    ProminenceError,
)
from prominence_executor.local import LocalService

IMAGE = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
SMALL = Resources(disk=1, walltime=10)


@pytest.fixture(scope="module")
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


@pytest.fixture
def run(client: ProminenceClient) -> Callable[..., Job]:
    """Creates a job of one task that runs this command."""

    def create(command: str, **description: object) -> Job:
        job = Job(tasks=[Task(IMAGE, command)], resources=SMALL, client=client, **description)  # type: ignore[arg-type]
        job.create()
        return job

    return create


@pytest.fixture
def environment(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What makes the default client; that is closed when the test is over."""
    with monkeypatch.context() as environment:
        environment.setenv("PROMINENCE_URL", service.url)
        environment.setenv("PROMINENCE_TOKEN", service.token)
        yield
        default_client().close()


# -- as it is documented -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_the_documentations_example(capsys: pytest.CaptureFixture[str]) -> None:
    # Define a task
    task = Task()
    task.image = "centos:7"
    task.runtime = "singularity"
    task.command = "hostname"

    # Define a job
    job = Job()
    job.tasks.append(task)
    job.create()

    # Wait for job to complete
    job.wait()

    # Print standard output
    print(job.stdout())

    assert capsys.readouterr().out.strip() == os.uname().nodename
    assert job.status == "completed"


def test_a_description_needs_neither_network_nor_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PROMINENCE_URL", raising=False)
    monkeypatch.delenv("PROMINENCE_TOKEN", raising=False)
    job = Job(tasks=[Task(IMAGE, "true")])
    assert job.json()["tasks"]
    assert job.id is None
    assert job.status is None
    assert not job.done()
    with pytest.raises(ProminenceError, match="PROMINENCE_URL"):
        job.create()
    monkeypatch.setenv("PROMINENCE_URL", "http://127.0.0.1:1")
    with pytest.raises(AuthenticationError, match="PROMINENCE_TOKEN"):
        job.create()


def test_a_wrong_description_is_refused_before_any_request(client: ProminenceClient) -> None:
    before = client.requests_sent
    with pytest.raises(ValueError, match=r"Resources\.nodes .* 0"):
        Job(tasks=[Task(IMAGE)], resources=Resources(nodes=0), client=client).create()
    assert client.requests_sent == before


@pytest.mark.parametrize(
    "ask",
    [
        Job.wait,
        Job.refresh,
        Job.stdout,
        Job.delete,
        lambda job: job.execution,
        lambda job: job.get_output_file("o"),
        lambda job: job.get_input_file("i"),
    ],
)
def test_a_job_that_was_not_created_cannot_be_asked(client: ProminenceClient, ask: Callable[[Job], object]) -> None:
    with pytest.raises(InvalidRequestError, match="no id yet"):
        ask(Job(client=client))


# -- its life ----------------------------------------------------------------------------------------------------------


def test_a_job_from_its_creation_to_its_end(run: Callable[..., Job]) -> None:
    job = run("sh -c 'echo out; echo err >&2; exit 3'", name="life", labels={"kind": "life"})
    assert isinstance(job.id, int)
    job.wait()
    assert job.done()
    assert job.status == "completed"
    assert job.status_reason is None
    assert job.execution["tasks"][0]["exitCode"] == 3
    assert job.events["createTime"] <= job.events["startTime"] <= job.events["endTime"]
    assert (job.stdout(), job.stderr()) == ("out\n", "err\n")
    assert job.stdout(offset=2) == "t\n"
    assert repr(job) == f"<Job {job.id} 'life' completed>"


def test_a_job_is_created_once(run: Callable[..., Job]) -> None:
    job = run("true")
    with pytest.raises(InvalidRequestError, match=f"created already.*{job.id}"):
        job.create()


def test_waiting_ends_without_a_word_when_the_time_is_over(run: Callable[..., Job]) -> None:
    job = run("sleep 60")
    began = time.monotonic()
    job.wait(timeout=0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert not job.done()
    job.delete()


def test_waiting_ends_for_every_way_to_end(run: Callable[..., Job]) -> None:
    failed = run("true", output_files=["missing"])
    deleted = run("sleep 60")
    deleted.delete()
    for job, status in ((failed, "failed"), (deleted, "deleted")):
        job.wait(30)
        assert job.status == status
        assert job.status_reason
    with pytest.raises(NotFoundError):
        deleted.delete()


def test_an_ended_job_is_not_asked_about_again(run: Callable[..., Job], client: ProminenceClient) -> None:
    job = run("true")
    job.wait()
    before = client.requests_sent
    for _ in range(3):
        assert job.status == "completed"
        assert job.done()
    assert client.requests_sent == before


def test_polling_is_often_at_first_and_seldom_later() -> None:
    assert poll_interval(0) <= 0.2
    assert 0.8 <= poll_interval(10) <= 1
    assert 24 <= poll_interval(10_000) <= 30
    with pytest.raises(ValueError, match="timeout"):
        Job(1).wait(-1)


def test_only_what_is_known_to_have_ended_has_ended() -> None:
    assert set(ENDED) == {"completed", "failed", "killed", "deleted"}


def test_an_existing_job_can_be_asked_by_its_id(run: Callable[..., Job], client: ProminenceClient) -> None:
    first = run("echo hi", name="existing")
    job = Job(id=first.id, client=client)
    job.wait()
    assert job.stdout() == "hi\n"
    assert job.name == "existing"
    with pytest.raises(NotFoundError):
        Job(id=999_999, client=client).refresh()


def test_a_job_that_stays_in_the_queue_can_be_removed(run: Callable[..., Job], client: ProminenceClient) -> None:
    job = run("true", labels={"left": "x"}, policies=JobPolicies(leave_in_queue=True))
    job.wait()
    assert [item["id"] for item in client.list_jobs(constraint=("left", "x"))] == [job.id]
    job.remove()
    assert client.list_jobs(constraint=("left", "x")) == []


@pytest.mark.usefixtures("environment")
def test_jobs_share_the_client_that_the_environment_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = default_client()
    assert default_client() is shared
    with monkeypatch.context() as environment:
        environment.setenv("PROMINENCE_TOKEN", "another")
        assert default_client() is not shared


@pytest.mark.usefixtures("environment")
def test_jobs_get_a_new_default_client_when_somebody_has_closed_it() -> None:
    default_client().close()
    job = Job(tasks=[Task(IMAGE, "true")], resources=SMALL)
    job.create()
    job.wait(60)
    assert job.status == "completed"


def test_a_job_cannot_be_pickled(client: ProminenceClient) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Job(client=client))


# -- its files ---------------------------------------------------------------------------------------------------------

AWKWARD = bytes(range(256)) * 100 + b"\r\n\x00"


def test_bytes_come_back_as_they_went(run: Callable[..., Job], tmp_path: Path) -> None:
    job = run(
        "sh -c 'cp i.bin o.bin; : > empty; mkdir -p s; echo b > s/b.txt'",
        input_files=[InputFile("i.bin", AWKWARD), InputFile("none", b""), InputFile("text", "é€")],
        output_files=["o.bin", "empty", "s/b.txt"],
    )
    job.wait()
    assert job.get_output_file("o.bin") == AWKWARD
    assert job.get_output_file("empty") == b""
    assert job.get_output_file("s/b.txt") == b"b\n"
    assert job.get_output_file("o.bin", save_as=tmp_path / "saved") is None
    assert (tmp_path / "saved").read_bytes() == AWKWARD
    assert os.listdir(tmp_path) == ["saved"]
    assert job.get_input_file("i.bin") == AWKWARD
    assert job.get_input_file("none") == b""
    assert job.get_input_file("text") == "é€".encode()
    with pytest.raises(NotFoundError, match="other"):
        job.get_input_file("other")


def test_output_directories_come_as_archives(run: Callable[..., Job], tmp_path: Path) -> None:
    job = run("sh -c 'mkdir -p a/d; echo x > a/d/x'", output_directories=["a/d"])
    job.wait()
    content = job.get_output_directory("a/d")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert any(name.endswith("d/x") for name in names)
    job.get_output_directory("a/d", save_as=tmp_path / "d.tgz")
    assert (tmp_path / "d.tgz").read_bytes() == content


def test_an_output_that_is_not_there_is_an_error(run: Callable[..., Job], tmp_path: Path) -> None:
    job = run("touch there", output_files=["there", "missing"], output_directories=["nodir"])
    job.wait()
    assert job.status == "failed"
    assert job.get_output_file("there") == b""
    for ask in (
        lambda: job.get_output_file("missing"),
        lambda: job.get_output_file("missing", save_as=tmp_path / "x"),
        lambda: job.get_output_file("undeclared"),
        lambda: job.get_output_directory("nodir"),
        lambda: job.get_output_directory("there"),
    ):
        with pytest.raises(OutputNotFoundError, match=str(job.id)):
            ask()
    assert os.listdir(tmp_path) == []


def test_outputs_of_a_running_job_are_not_there_yet(run: Callable[..., Job]) -> None:
    job = run("sleep 60", output_files=["o"])
    with pytest.raises(OutputNotFoundError, match="has not uploaded"):
        job.get_output_file("o")
    job.delete()


def test_stdout_of_a_running_job_and_bytes_that_are_no_text(
    run: Callable[..., Job], until: Callable[..., None]
) -> None:
    job = run("""python3 -c "import os,time; os.write(1, bytes([255, 65])); time.sleep(60)" """)
    until(lambda: job.stdout() == "\ufffdA")
    assert job.stdout(offset=1) == "A"
    job.delete()


def test_uploaded_objects_reach_a_job_as_artifacts(
    run: Callable[..., Job], client: ProminenceClient, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(AWKWARD)
    client.upload("with-checksum.bin", tmp_path / "source", checksum=True)
    client.upload("without.bin", AWKWARD)
    assert {"with-checksum.bin", "without.bin"} <= {item["name"] for item in client.list_data()}
    job = run(
        "sh -c 'cat with-checksum.bin without.bin > o'",
        artifacts=[Artifact("with-checksum.bin"), Artifact("without.bin")],
        output_files=["o"],
    )
    job.wait()
    assert job.get_output_file("o") == AWKWARD * 2
    for name in ("with-checksum.bin", "without.bin"):
        client.delete_data(name)
    assert not {"with-checksum.bin", "without.bin"} & {item["name"] for item in client.list_data()}


def test_a_running_job_can_be_looked_into(run: Callable[..., Job], until: Callable[..., None], tmp_path: Path) -> None:
    job = run("sh -c 'echo now > live.txt; sleep 60'")
    until(lambda: job.status == "running" and b"live.txt" in job.execute(["ls"]))
    with tarfile.open(fileobj=io.BytesIO(job.get_snapshot("live.txt"))) as archive:
        (member,) = (item for item in archive.getmembers() if item.isfile())
        extracted = archive.extractfile(member)
        assert extracted is not None
        assert extracted.read() == b"now\n"
    job.get_snapshot("live.txt", save_as=tmp_path / "s.tgz")
    assert tarfile.is_tarfile(tmp_path / "s.tgz")
    job.delete()
    with pytest.raises(InvalidRequestError):
        job.execute(["ls"])


def test_commands_see_the_job_and_say_when_they_fail(run: Callable[..., Job], until: Callable[..., None]) -> None:
    job = run("sleep 60", input_files=[InputFile("i.bin", AWKWARD)])
    until(lambda: job.status == "running")
    assert job.execute(["cat", "i.bin"]) == AWKWARD
    assert job.execute(["sh", "-c", "echo $PROMINENCE_JOB_ID; echo err >&2"]) == f"{job.id}\nerr\n".encode()
    for command in (["false"], ["no-such-program"]):
        with pytest.raises(InvalidRequestError, match="Unable to execute"):
            job.execute(command)
    with pytest.raises(ValueError, match="commas"):
        job.execute(["echo", "a,b"])
    job.delete()


def test_a_snapshot_may_be_a_directory_and_is_always_the_newest(
    run: Callable[..., Job], until: Callable[..., None]
) -> None:
    job = run("sh -c 'mkdir -p a/d; echo 1 > a/d/x; sleep 60'")
    until(lambda: job.status == "running" and b"x" in job.execute(["ls", "-R"]))
    for text in (b"1\n", b"2\n"):
        with tarfile.open(fileobj=io.BytesIO(job.get_snapshot("a/d"))) as archive:
            member = archive.extractfile("d/x")
            assert member is not None
            assert member.read() == text
        job.execute(["sh", "-c", "echo 2 > a/d/x"])
    for path in ("missing", "../..", "/etc"):
        with pytest.raises(InvalidRequestError):
            job.get_snapshot(path)
    job.delete()


def test_a_pattern_brings_back_its_first_match_under_its_own_text(run: Callable[..., Job]) -> None:
    job = run("sh -c 'echo 1 > a1.txt; echo 2 > a2.txt'", output_files=["a*.txt", "a2.*"])
    job.wait()
    assert job.status == "completed"
    assert (job.get_output_file("a*.txt"), job.get_output_file("a2.*")) == (b"1\n", b"2\n")
    unmatched = run("true", output_files=["b*.txt"])
    unmatched.wait()
    assert unmatched.status == "failed"
    with pytest.raises(OutputNotFoundError):
        unmatched.get_output_file("b*.txt")


def test_input_files_and_artifacts_may_be_programs(run: Callable[..., Job], client: ProminenceClient) -> None:
    program = b"#!/bin/sh\necho run\n"
    client.upload("uploaded.sh", program)
    both = run(
        "sh -c './uploaded.sh && ./inline.sh'",
        artifacts=[Artifact("uploaded.sh", executable=True)],
        input_files=[InputFile("inline.sh", program, executable=True)],
    )
    neither = run(
        "sh -c './uploaded.sh; ./inline.sh'",
        artifacts=[Artifact("uploaded.sh")],
        input_files=[InputFile("inline.sh", program)],
    )
    for job in (both, neither):
        job.wait()
    assert (both.stdout(), both.stderr()) == ("run\nrun\n", "")
    assert (neither.stdout(), neither.stderr().lower().count("permission denied")) == ("", 2)
    client.delete_data("uploaded.sh")


def packed(suffix: str, name: str, content: bytes) -> bytes:
    """One file in an archive of the kind that the suffix says."""
    target = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(target, "w") as zipped:
            zipped.writestr(name, content)
    elif suffix in (".gz", ".bz2"):
        return gzip.compress(content) if suffix == ".gz" else bz2.compress(content)
    else:
        mode = {".tar": "w", ".tar.bz2": "w:bz2"}.get(suffix, "w:gz")
        with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_archives_are_unpacked_and_removed(run: Callable[..., Job], client: ProminenceClient) -> None:
    suffixes = [".tar", ".tgz", ".tar.gz", ".gz", ".bz2", ".tar.bz2", ".zip"]
    names = [f"p{number}" for number in range(len(suffixes))]
    for name, suffix in zip(names, suffixes, strict=True):
        client.upload(name + suffix, packed(suffix, name, name.encode() + AWKWARD))
    artifacts = [Artifact(name + suffix) for name, suffix in zip(names, suffixes, strict=True)]
    job = run("ls", artifacts=artifacts, output_files=names)
    job.wait()
    assert job.stdout().split() == names
    assert [job.get_output_file(name) for name in names] == [name.encode() + AWKWARD for name in names]
    for artifact in artifacts:
        client.delete_data(artifact.url)


def test_artifacts_come_by_url_and_are_mounted_where_the_task_wants_them(
    run: Callable[..., Job], client: ProminenceClient
) -> None:
    client.upload("tree.tgz", packed(".tgz", "tree/leaf", AWKWARD))
    source = run("cp -r tree/leaf o", artifacts=[Artifact("tree.tgz")], output_files=["o"])
    source.wait()
    url = client.describe_job(source.id)["outputFiles"][0]["url"]  # type: ignore[arg-type]
    job = run(
        "cp in/leaf a.bin",
        artifacts=[Artifact("tree.tgz", "tree", "/home/user/in"), Artifact(url)],
        output_files=["a.bin", "o"],
    )
    job.wait()
    assert job.get_output_file("a.bin") == job.get_output_file("o") == AWKWARD
    client.delete_data("tree.tgz")


def test_a_task_has_a_directory_and_variables_of_its_own(client: ProminenceClient) -> None:
    task = Task(IMAGE, "sh -c 'pwd; echo $WORD $NUMBER'", env={"WORD": "w", "NUMBER": 3}, workdir="/tmp")
    job = Job(tasks=[task, Task(IMAGE, "sh -c 'pwd; echo $WORD'")], resources=SMALL, client=client)
    job.create()
    job.wait()
    first, said, second, nothing = job.stdout().splitlines()
    assert (said, nothing) == ("w 3", "")
    assert first.endswith("/tmp")
    assert second.endswith("/home/user")
