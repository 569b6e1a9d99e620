"""What the embedded service decides without a clock, a thread or a database: the queue, deadlines, and how jobs end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.service.engines.queue import Deadlines, JobQueue, QueuedJob
from prominence_executor.service.node.mpi import with_mpirun
from prominence_executor.service.node.outcome import Outcome, forgiven, runs_again, succeeded

CPUS, MEMORY = 4, 8

small = st.builds(
    QueuedJob, job=st.just(0), priority=st.integers(-2, 2), cpus=st.integers(1, CPUS), memory=st.integers(1, MEMORY)
)
any_size = st.builds(
    QueuedJob, job=st.just(0), priority=st.integers(-2, 2), cpus=st.integers(1, CPUS + 2), memory=st.integers(1, MEMORY)
)


def queued(jobs: list[QueuedJob]) -> tuple[JobQueue, list[QueuedJob]]:
    """The queue of these jobs, numbered in order."""
    queue = JobQueue(CPUS, MEMORY)
    numbered = [QueuedJob(number, job.priority, job.cpus, job.memory) for number, job in enumerate(jobs)]
    for job in numbered:
        queue.add(job)
    return queue, numbered


@given(st.lists(small), st.integers(0, CPUS), st.integers(0, MEMORY))
def test_what_starts_is_the_longest_beginning_of_the_queue_that_fits(
    jobs: list[QueuedJob], cpus: int, memory: int
) -> None:
    queue, numbered = queued(jobs)
    order = sorted(numbered, key=lambda job: (-job.priority, job.job))
    taken = queue.take_fitting(cpus, memory)
    assert taken == order[: len(taken)]  # nothing overtakes
    assert sum(job.cpus for job in taken) <= cpus
    assert sum(job.memory for job in taken) <= memory
    for head in order[len(taken) : len(taken) + 1]:  # and whoever is next did not fit
        assert sum(job.cpus for job in [*taken, head]) > cpus or sum(job.memory for job in [*taken, head]) > memory


@given(st.lists(any_size, max_size=20), st.data())
def test_every_job_that_fits_the_machine_starts_once_and_one_too_large_holds_up_nobody(
    jobs: list[QueuedJob], data: st.DataObject
) -> None:
    queue, numbered = queued(jobs)
    removed = set(data.draw(st.lists(st.sampled_from(numbered)))) if numbered else set()
    for job in removed:
        assert queue.remove(job.job)
        assert not queue.remove(job.job)
    started: list[QueuedJob] = []
    running: list[QueuedJob] = []
    while True:
        free = CPUS - sum(job.cpus for job in running), MEMORY - sum(job.memory for job in running)
        taken = queue.take_fitting(*free)
        started, running = started + taken, running + taken
        if not running:
            break
        running.remove(data.draw(st.sampled_from(running)))
    expected = [job for job in numbered if job not in removed and job.cpus <= CPUS]
    assert sorted(started, key=lambda job: job.job) == expected
    assert {job.job for job in numbered if job.job in queue} == {
        job.job for job in numbered if job not in removed and job.cpus > CPUS
    }


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5), st.text(max_size=2))), st.floats(0, 100))
def test_what_is_due_comes_once_and_in_order(entries: list[tuple[float, int, str]], now: float) -> None:
    deadlines = Deadlines()
    for when, job, mark in entries:
        deadlines.add(when, job, mark)
    assert deadlines.first() == min((when for when, *_ in entries), default=None)
    in_order = sorted(entries, key=lambda entry: entry[0])  # stable: of one time, the first noted leads
    assert deadlines.due(now) == [(job, mark) for when, job, mark in in_order if when <= now]
    assert deadlines.due(now) == []
    assert deadlines.first() == min((when for when, *_ in entries if when > now), default=None)


IGNORED, REPORTED = {"ignoreTaskFailures": True}, {"reportJobSuccessOnTaskFailure": True}


@pytest.mark.parametrize(
    ("outcome", "policies", "ok", "again"),
    [
        (Outcome("completed"), {}, True, False),
        (Outcome("completed"), {"maximumRetries": 2}, True, False),
        (Outcome("completed", task_failed=True), {}, False, False),
        (Outcome("completed", task_failed=True), {"maximumRetries": 2}, False, True),
        (Outcome("completed", task_failed=True), {"maximumRetries": 2, **IGNORED}, True, False),
        (Outcome("completed", task_failed=True), {"maximumRetries": 2, **REPORTED}, True, False),
        (Outcome("failed", task_failed=True), {"maximumRetries": 2}, False, False),  # an output was missing
        (Outcome("failed", task_failed=True), IGNORED, False, False),
        (Outcome("killed"), {"maximumRetries": 2}, False, False),
        (Outcome("deleted"), {"maximumRetries": 2}, False, False),
    ],
)
def test_what_follows_from_a_run(outcome: Outcome, policies: dict[str, object], ok: bool, again: bool) -> None:
    assert succeeded(outcome, policies) is ok
    assert runs_again(outcome, policies, retries=1) is again
    assert not runs_again(outcome, policies, retries=2)
    assert forgiven(policies) is bool({*IGNORED, *REPORTED} & policies.keys())


@pytest.mark.parametrize(
    ("kind", "apart", "where"),
    [
        ("openmpi", True, ["--map-by", "ppr:3:node"]),
        ("openmpi", False, []),
        ("mpich", True, ["-ppn", "3"]),
        ("intelmpi", False, []),
    ],
)
def test_ranks_are_spread_over_nodes_that_are_machines(kind: str, apart: bool, where: list[str]) -> None:
    words = with_mpirun(
        ["a", "b"], {"type": kind, "procsPerNode": 3}, {"PROMINENCE_NODES": "2", "PROMINENCE_CPUS": "4"}, apart=apart
    )
    assert words[:3] == ["mpirun", "-np", "6"]
    assert words[-2:] == ["a", "b"]
    assert words[3 : 3 + len(where)] == where
    assert ("--map-by" in words or "-ppn" in words) == apart
