"""A Slurm that takes only so many jobs, and preempts: what that means for jobs is told in the service's words."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import one_node_slurm
import pytest
from one_node_slurm import OneNodeSlurm
from people import Person

from prominence_executor.service import LocalService

Until = Callable[..., None]

pytestmark = [pytest.mark.once, pytest.mark.slow]

ROOM = 8  # jobs that Slurm knows at most, those included that ended in the last two seconds
SETTINGS = f"""\
MaxJobCount={ROOM}
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=narrow Nodes=ALL PriorityTier=1 MaxTime=30 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=INFINITE State=UP
"""


class StrictSlurm(OneNodeSlurm):
    def _configuration(self) -> str:
        usual = super()._configuration().replace("MinJobAge=60", "MinJobAge=2")
        return re.sub(r"MaxJobCount=\d+\n", "", usual) + SETTINGS


@pytest.fixture(scope="module")
def strict(nothing_is_left: None) -> Iterator[OneNodeSlurm]:
    if reason := one_node_slurm.missing():
        pytest.skip(reason)
    running = StrictSlurm()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.variables.items():
            patch.setenv(name, value)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture
def service(strict: OneNodeSlurm, tmp_path: Path) -> Iterator[LocalService]:
    with LocalService(tmp_path / "state", engine="slurm", engine_options={"poll_seconds": "0.5"}) as running:
        yield running


@pytest.fixture
def user(service: LocalService) -> Person:
    return Person(service.url, service.token)


def label(**options: str) -> dict[str, str]:
    return {"pxengine": base64.urlsafe_b64encode(json.dumps(options).encode()).decode().rstrip("=")}


def test_more_jobs_than_there_is_room_for_all_run_and_each_once(
    service: LocalService, user: Person, tmp_path: Path, until: Until
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    program = f"import os; open({str(marks)!r} + '/' + os.environ['PROMINENCE_JOB_ID'], 'a').write('.')"
    jobs = [user.create("python3 p.py", files={"p.py": program}) for _ in range(ROOM + 4)]
    assert {user.ended(job, 120)["status"] for job in jobs} == {"completed"}
    assert {int(path.name): path.read_text() for path in marks.iterdir()} == dict.fromkeys(jobs, ".")
    until(lambda: not os.listdir(service.dir / "engine" / "batches"))  # a moment after the last one has ended


def test_a_job_that_makes_way_for_another_was_evicted(user: Person, until: Until) -> None:
    job = user.create("sleep 600", resources={"cpus": 8})
    until(lambda: user.job(job)["status"] == "running", 60)
    urgent = user.create("true", resources={"cpus": 8}, labels=label(partition="urgent"))
    ended = user.ended(job, 60)
    assert ended["status"] == "failed"
    assert ended["statusReason"].startswith("Job was evicted: it was preempted (")
    assert user.ended(urgent, 60)["status"] == "completed"


def test_a_job_that_slurm_does_not_start_any_more_fails_and_is_gone_from_there(
    strict: OneNodeSlurm, user: Person, until: Until
) -> None:
    large = user.create("sleep 600", resources={"cpus": 8})
    until(lambda: user.job(large)["status"] == "running", 60)
    waits = user.create("true", labels=label(partition="narrow"))
    until(lambda: strict.asked("squeue", "-h", "-t", "PD", "-o", "%i"), 60)
    strict.asked("scontrol", "update", "partitionname=narrow", "maxtime=1")
    ended = user.ended(waits, 60)
    reason = "No matching resources: the cluster does not start it: PartitionTimeLimit"
    assert (ended["status"], ended["statusReason"]) == ("failed", reason)
    assert user("DELETE", f"/jobs/{large}").status_code == 200
    until(lambda: not strict.asked("squeue", "-h", "-o", "%i"), 30)
