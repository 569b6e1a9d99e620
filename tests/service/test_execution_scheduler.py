"""Many threads at the scheduler and at one run's processes: every job ends once, every slot comes back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from people import ENDED, Person

from prominence_executor.service import LocalService
from prominence_executor.service.containers.base import Command
from prominence_executor.service.node.job_processes import JobProcesses, RunStopped


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_jobs_created_and_deleted_from_many_threads_end_once_and_give_back_their_slots(
    hurried: None, until: Callable[..., None]
) -> None:
    with LocalService(cpus=3, memory=6) as service:
        person = Person(service.url, service.token)

        def work(number: int) -> list[int]:
            jobs = []
            for step in range(6):
                long = (number + step) % 2 == 0
                jobs.append(person.create("sleep 100" if long else "true", resources={"cpus": 1 + step % 2}))
                if long:
                    assert person("DELETE", f"/jobs/{jobs[-1]}").json() == {}
            return jobs

        with ThreadPoolExecutor(6) as threads:
            jobs = [job for found in threads.map(work, range(6)) for job in found]
        for job in jobs:
            person.ended(job, seconds=60)
        assert {person.job(job)["status"] for job in jobs} == {"completed", "deleted"} <= set(ENDED)
        (site,) = person("GET", "/resources").json()["existing"]
        until(lambda: person("GET", "/resources").json()["existing"][0]["free"] == site["capacity"])
        until(lambda: not list((service.dir / "sandboxes").iterdir()))


def test_no_process_of_a_run_starts_after_it_was_stopped(hurried: None, tmp_path: Path) -> None:
    command = Command(["sleep", "60"], tmp_path, dict(os.environ))
    for _ in range(5):
        started, stopping = JobProcesses(), threading.Event()

        def start(run: JobProcesses = started, stopping: threading.Event = stopping) -> int:
            """Start and reap until the run is stopped; how many were started."""
            count = 0
            with open(os.devnull, "wb") as nothing:
                while True:
                    try:
                        process = run.start(command, nothing.fileno(), nothing.fileno())
                    except RunStopped:
                        return count
                    count += 1
                    stopping.set()
                    code, _ = run.reap(process)  # at once, when it was killed by `stop`
                    assert code == -9

        with ThreadPoolExecutor(4) as threads:
            counts = [threads.submit(start) for _ in range(4)]
            stopping.wait(30)
            started.stop()
            assert sum(count.result(30) for count in counts) <= 4  # each started one at most, and none afterwards
