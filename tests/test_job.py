"""Job, from description to outputs, on the real embedded service."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OutputNotFoundError,
    ProminenceError,
)
from prominence_executor.job import ENDED, Job, default_client, poll_interval
from prominence_executor.local import LocalService
from prominence_executor.model import Artifact, InputFile, JobPolicies, Resources, Task

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
def environment(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", service.token)


@pytest.fixture(autouse=True)
def default_clients_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from prominence_executor import job

    made: dict[tuple[object, ...], ProminenceClient] = {}
    monkeypatch.setattr(job, "_clients", made)
    yield
    for client in made.values():
        client.close()


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
    monkeypatch.setenv("PROMINENCE_TOKEN", "another")
    assert default_client() is not shared


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
