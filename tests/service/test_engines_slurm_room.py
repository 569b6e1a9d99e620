"""A Slurm that takes only so many jobs: all of them run in the end, and nobody waits for those who must."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import one_node_slurm
import pytest
from one_node_slurm import OneNodeSlurm
from people import Person

from prominence_executor.service import LocalService

pytestmark = [pytest.mark.once, pytest.mark.slow]


class SmallSlurm(OneNodeSlurm):
    """It knows no more than eight jobs, those included that ended in the last two seconds."""

    def _configuration(self) -> str:
        return super()._configuration().replace("MinJobAge=60", "MinJobAge=2") + "MaxJobCount=8\n"


@pytest.fixture(scope="module")
def small(nothing_is_left: None) -> Iterator[OneNodeSlurm]:
    if reason := one_node_slurm.missing():
        pytest.skip(reason)
    running = SmallSlurm()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.variables.items():
            patch.setenv(name, value)
        try:
            running.start()
            yield running
        finally:
            running.stop()


def test_more_jobs_than_there_is_room_for_all_run_and_each_once(small: OneNodeSlurm, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    program = f"import os; open({str(marks)!r} + '/' + os.environ['PROMINENCE_JOB_ID'], 'a').write('.')"
    options = {"poll_seconds": "0.5"}
    with LocalService(tmp_path / "state", engine="slurm", engine_options=options) as service:
        user = Person(service.url, service.token)
        jobs = [user.create("python3 p.py", files={"p.py": program}) for _ in range(30)]
        assert {user.ended(job, 120)["status"] for job in jobs} == {"completed"}
    assert {int(path.name): path.read_text() for path in marks.iterdir()} == dict.fromkeys(jobs, ".")
    assert os.listdir(tmp_path / "state" / "engine" / "batches") == []
