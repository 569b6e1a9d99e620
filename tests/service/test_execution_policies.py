"""What the policies of a job change, each seen in what the job leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from people import Person

from prominence_executor.service import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]

# Fails until it was run for the third time in the same directory.
STUBBORN = "import sys; open('runs', 'a').write('x'); print('run'); sys.exit(len(open('runs').read()) < 3)"


@pytest.mark.parametrize(("retries", "code"), [(1, 1), (2, 0), (5, 0)])
def test_a_failing_task_is_run_again_in_the_same_directory(person: Person, retries: int, code: int) -> None:
    job = person.create("python3 p.py", files={"p.py": STUBBORN}, policies={"maximumTaskRetries": retries})
    ended = person.ended(job)
    (entry,) = ended["execution"]["tasks"]
    assert (entry["exitCode"], entry["retries"]) == (code, min(retries, 2))
    assert person.stdout(job) == "run\n" * (min(retries, 2) + 1)
    assert "retries" not in ended["execution"]  # those are the job's
    assert ended["policies"] == {"maximumTaskRetries": retries}


@pytest.mark.parametrize(
    ("policies", "said", "codes"),
    [
        ({}, "", [3]),
        ({"reportJobSuccessOnTaskFailure": True}, "", [3]),
        ({"ignoreTaskFailures": True}, "second\n", [3, 0]),
    ],
)
def test_only_a_job_that_ignores_failures_goes_on_behind_a_failed_task(
    person: Person, policies: dict[str, bool], said: str, codes: list[int]
) -> None:
    first, second = (
        {"image": "any", "runtime": "singularity", "cmd": command} for command in ("sh -c 'exit 3'", "echo second")
    )
    body = person.described("", policies=policies) | {"tasks": [first, second]}
    job = person("POST", "/jobs", json=body).json()["id"]
    ended = person.ended(job)
    assert (ended["status"], person.stdout(job)) == ("completed", said)
    assert [entry["exitCode"] for entry in ended["execution"]["tasks"]] == codes


@pytest.mark.parametrize("policy", ["ignoreTaskFailures", "reportJobSuccessOnTaskFailure"])
def test_a_forgiven_failure_neither_repeats_the_job_nor_fails_its_workflow(person: Person, policy: str) -> None:
    task = {"image": "any", "runtime": "singularity", "cmd": "false"}
    resources = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1}
    ends = {}
    for forgiven in (False, True):
        job = {"name": "pxcall", "tasks": [task], "resources": resources, "policies": {"maximumRetries": 1}}
        if forgiven:
            job["policies"][policy] = True  # type: ignore[index]
        answer = person("POST", "/workflows", json={"name": f"forgiving-{policy}", "jobs": [job]})
        workflow = answer.json()["id"]
        ended = person.ended(f"/workflows/{workflow}")
        (listed,) = person("GET", f"/jobs?workflow=true&id={workflow}&all=true&detail=1").json()
        ends[forgiven] = (ended["status"], ended["progress"]["failed"], listed["execution"].get("retries", 0))
    assert ends == {False: ("failed", 1, 1), True: ("completed", 0, 0)}


def test_nodes_that_the_machine_does_not_have_are_emulated_and_one_too_large_is_not() -> None:
    with LocalService(cpus=2, memory=2) as service:
        person = Person(service.url, service.token)
        many = person.create("true", resources={"cpus": 2, "nodes": 5})
        large = person.create("true", resources={"cpus": 3})
        ended = person.ended(many)
        assert ended["status"] == "completed"
        assert ended["execution"]["provisionedResources"] == {"cpus": 2, "disk": 1, "memory": 1, "nodes": 5}
        assert person.job(large)["status"] == "idle"


def test_a_job_of_several_nodes_takes_the_slots_of_all(until: Until) -> None:
    with LocalService(cpus=4, memory=8) as service:
        person = Person(service.url, service.token)
        job = person.create("sleep 60", resources={"nodes": 3, "memory": 2})
        until(lambda: person.job(job)["status"] == "running")
        (site,) = person("GET", "/resources").json()["existing"]
        assert (site["capacity"], site["free"]) == ({"cpus": 4, "memory": 8}, {"cpus": 1, "memory": 2})
        person("DELETE", f"/jobs/{job}")
        until(lambda: person("GET", "/resources").json()["existing"][0]["free"] == site["capacity"])


def test_a_job_deleted_while_it_runs_on_all_nodes_ends_on_all(person: Person, until: Until) -> None:
    policies = {"runSerialTasksOnAllNodes": True}
    job = person.create("sh -c 'echo up; sleep 1000'", resources={"nodes": 3}, policies=policies)
    until(lambda: all(person("GET", f"/jobs/{job}/stdout?node={node}").content == b"up\n" for node in range(3)))
    assert person("DELETE", f"/jobs/{job}").json() == {}
    until(lambda: person("POST", f"/jobs/{job}/exec?command=ls").json() == {"error": "Job is not running"})
    assert person.ended(job)["status"] == "deleted"
