"""What earlier versions have stored is read by this one: runs, journals, saved results, pickles (see data/)."""

from __future__ import annotations

import json
import pickle
import sys
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leftovers
import pytest
from paths import DATA
from record_state import LARGE, assert_equal, samples

from prominence_executor import (
    CallCrashedError,
    Job,
    JobDeletedError,
    JobError,
    ProminenceClient,
    ProminenceExecutor,
    PythonMismatchError,
    RemotePicklingError,
    RemoteTraceback,
    WalltimeExceededError,
    WorkerLostError,
    Workflow,
    load,
)
from prominence_executor.local import LocalService

RECORDINGS = sorted(DATA.glob("[0-9]*"))
PYTHON = "{}.{}".format(*sys.version_info[:2])


@dataclass
class Recorded:
    """A copy of a recording, and an embedded service on its directory."""

    service: LocalService
    files: Path

    def attach(self, run_id: str, **options: Any) -> ProminenceExecutor:
        service = self.service
        return ProminenceExecutor.attach(run_id, service.url, service.token, poll_interval=(0.05, 0.5), **options)

    def client(self) -> ProminenceClient:
        return ProminenceClient(self.service.url, self.service.token)


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda path: path.name)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(request.param / "state.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with LocalService(folder / "service", cpus=8, memory=64) as service:
        yield Recorded(service, folder / "files")
        leftovers.check(jobs=lambda: leftovers.jobs(service.dir), workflows=lambda: leftovers.workflows(service.dir))


def test_a_run_that_has_ended_has_its_results(recorded: Recorded) -> None:
    with recorded.attach("ended") as run:
        futures = run.futures()
        assert len(futures) == 18
        assert futures[0].result(30) == {"kelvin": 300.0, "shots": [91234, 91235]}
        assert futures[0].stdout() == "heated to 300.0\n"
        assert [future.result(30) for future in futures[1:6]] == [0, 1, 4, 9, 16]
        assert [future.job_id for future in futures[1:3]] == [futures[1].job_id] * 2
        assert futures[11].result(30) == LARGE
        assert futures[12].result(30) == LARGE
        assert [future.result(30) for future in futures[13:15]] == [499500, 1000]
        assert futures[16].result(30) == [3, 3]


def test_a_run_that_has_ended_has_its_exceptions(recorded: Recorded) -> None:
    with recorded.attach("ended") as run:
        futures = run.futures()
        errors = [future.exception(30) for future in futures]
    assert isinstance(errors[6], ValueError)
    assert "plasma" in str(errors[6])
    assert isinstance(errors[6].__cause__, RemoteTraceback)
    assert isinstance(errors[7], LookupError)
    assert errors[7].args == ("no plasma", 3)
    assert isinstance(errors[7].__cause__, RemoteTraceback)
    assert isinstance(errors[7].__cause__.__cause__, KeyError)
    assert type(errors[8]) is WalltimeExceededError
    assert (errors[8].message, errors[8].job_id, errors[8].status) == ("too long", 7, "killed")
    assert (errors[8].reason, errors[8].stderr) == ("Walltime limit", "slow\n")
    assert isinstance(errors[9], CallCrashedError)
    assert futures[9].attempts == 2
    assert isinstance(errors[10], RemotePicklingError)
    assert isinstance(errors[17], JobDeletedError)


def test_results_that_stayed_at_the_service_are_fetched_and_saved(recorded: Recorded, tmp_path: Path) -> None:
    with recorded.attach("ended", lazy=True) as run:
        futures = run.futures()
        for future in futures[11:13]:
            future.save(tmp_path / "saved")
            assert load(tmp_path / "saved") == LARGE
            assert future.result(30) == LARGE


def test_a_run_that_has_ended_has_its_files(recorded: Recorded, tmp_path: Path) -> None:
    with recorded.attach("ended", outputs_dir=tmp_path) as run:
        future = run.futures()[15]
        assert future.result(30) == "out.txt"
        assert {name: path.read_bytes() for name, path in future.files.items()} == {"out.txt": b"91234"}


def test_an_array_that_has_ended_has_its_results(recorded: Recorded) -> None:
    with recorded.attach("array") as run:
        assert [future.result(30) for future in run.futures()] == [n * n for n in range(24)]


def test_what_was_waiting_runs_when_the_service_starts_again(recorded: Recorded) -> None:
    with recorded.attach("left") as run:
        running, *waiting = run.futures()
        error = running.exception(30)
        assert isinstance(error, JobError)
        assert error.status == "failed"
        assert "restarted" in str(error)
        errors = [future.exception(60) for future in waiting]
        image = run.client.describe_job(waiting[0].job_id or 0)["tasks"][0]["image"]
        if image == f"python:{PYTHON}-slim":
            assert [future.result() for future in waiting] == [3, *(-n for n in range(24))]
        else:
            assert {type(error) for error in errors} == {PythonMismatchError}
            assert PYTHON in str(errors[0])


def test_of_warm_workers_what_nobody_had_read_is_found(recorded: Recorded) -> None:
    with recorded.attach("warm") as run:
        futures = run.futures()
        assert [future.result(30) for future in futures[:30]] == [n * n for n in range(30)]
        assert isinstance(futures[30].exception(30), ValueError)
        assert futures[31].result(30) == bytes(100_000)
        assert futures[32].result(30) == "went on"
        assert isinstance(futures[33].exception(30), WorkerLostError)
        assert len(futures) == 34  # of the others only a journal could know


def test_with_a_journal_what_warm_workers_had_is_sent_again(recorded: Recorded) -> None:
    journal = recorded.files / "warm.journal"
    with recorded.attach("warm.journal", journal=journal) as run:
        futures = run.futures()
        assert [future.result(30) for future in futures[:30]] == [n * n for n in range(30)]
        assert [future.result(60) for future in futures[32:]] == ["went on", "went on", 0, -1, -2]
    assert not journal.exists()


def test_what_only_a_journal_has_is_submitted(recorded: Recorded) -> None:
    journal = recorded.files / "unsent.journal"
    with recorded.attach("unsent", journal=journal) as run:
        futures = run.futures()
        assert isinstance(futures[11].exception(60), ValueError)
        results = [future.result(60) for future in futures[:11]]
        assert results == [3, "set", "3.2", "out.txt", 499500, len(LARGE), 1.0, 0, -1, -2, -3]
        assert {name: path.read_bytes() for name, path in futures[3].files.items()} == {"out.txt": b"91234"}
        (listed,) = run.client.list_jobs(constraint=("shot", "91234"), all=True)
        described = run.client.describe_job(listed["id"])
    assert not journal.exists()
    assert described["resources"] == {"cpus": 2, "memory": 2, "disk": 3, "nodes": 1, "walltime": 30}
    assert described["policies"] == {"maximumTimeInQueue": 600, "priority": 3}


def test_jobs_and_workflows_that_were_described_by_hand(recorded: Recorded) -> None:
    with recorded.client() as client:
        (listed,) = client.list_jobs(constraint=("campaign", "heated"), all=True, name="by hand")
        job = Job(listed["id"], client=client)
        assert job.status == "completed"
        assert job.stdout() == "done\n"
        assert job.get_output_file("out.txt") == b"91234"
        (listed,) = client.list_workflows(all=True, num=-1, name="by-hand")
        workflow = Workflow(listed["id"], client=client)
        assert workflow.status == "completed"
        assert [job.stdout() for job in workflow.instances()] == ["first\n", "second\n", "second\n"]
        assert client.kv_get("campaign") == "heated"
        assert {"shot.txt": 5}.items() <= {item["name"]: item["size"] for item in client.list_data()}.items()


def test_saved_results_are_loaded(recorded: Recorded) -> None:
    assert load(recorded.files / "bytes.saved") == LARGE
    assert load(recorded.files / "buffer.saved") == LARGE


def test_a_new_run_is_begun_in_an_old_directory(recorded: Recorded) -> None:
    with ProminenceExecutor(recorded.service.url, recorded.service.token, run_id="new") as executor:
        assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.name)
def test_pickles_load(recording: Path) -> None:
    now = samples()
    for name, by_protocol in json.loads((recording / "pickles.json").read_text()).items():
        for text in by_protocol.values():
            assert_equal(pickle.loads(b64decode(text)), now[name])
