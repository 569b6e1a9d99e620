"""Workflows: what is refused, what follows what, what ends them, and that a restart goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from people import Person

from prominence_executor.service import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]


def member(name: str, command: str, **parts: Any) -> dict[str, Any]:
    described = Person.described(command, name=name, **parts)
    del described["inputs"]
    return described


def factory(kind: str, *parameters: dict[str, Any], job: str = "pxcall", **parts: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "name": "f",
        "jobs": [job],
        **({"parameters": list(parameters)} if parameters else {}),
        **parts,
    }


def instances(person: Person, workflow: int) -> list[dict[str, Any]]:
    query = {"workflow": "true", "id": workflow, "all": "true", "detail": "1"}
    listed: list[dict[str, Any]] = person("GET", "/jobs", params=query).json()
    return sorted(listed, key=lambda job: job["name"])


def test_children_start_when_all_their_parents_are_done(person: Person) -> None:
    body = {
        "name": "diamond",
        "jobs": [member(name, 'python3 -c "import time; print(time.time())"') for name in ("A", "B", "C", "D")],
        "dependencies": {"A": ["B", "C"], "B": ["D"], "C": ["D"]},
    }
    workflow = person("POST", "/workflows", json=body).json()["id"]
    assert person.ended(f"/workflows/{workflow}")["status"] == "completed"
    times = {job["name"]: float(person.stdout(job["id"])) for job in instances(person, workflow)}
    a, b, c, d = (times[f"diamond/{name}"] for name in "ABCD")
    assert a < min(b, c) <= max(b, c) < d


def test_a_rerun_does_only_what_failed(person: Person) -> None:
    body = {
        "name": "again",
        "jobs": [member("pxcall", 'sh -c "exit ${x}"')],
        "factories": [factory("zip", {"name": "x", "values": [0, 1, 0]})],
    }
    workflow = person("POST", "/workflows", json=body).json()["id"]
    assert person.ended(f"/workflows/{workflow}")["progress"]["done"] == 2
    again = person("PUT", f"/workflows/{workflow}").json()["id"]
    ended = person.ended(f"/workflows/{again}")
    assert (ended["status"], ended["progress"]["done"], ended["progress"]["failed"]) == ("failed", 2, 1)
    assert [job["name"] for job in instances(person, again)] == ["again/pxcall/1"]
    clone = person("PUT", f"/workflows/{workflow}/clone").json()["id"]
    person.ended(f"/workflows/{clone}")
    assert len(instances(person, clone)) == 3
    unsuitable = person("PUT", "/workflows/999999")
    assert "not in a suitable state" in unsuitable.json()["error"]


def test_a_deleted_workflow_ends_its_jobs(person: Person) -> None:
    body = {
        "name": "gone",
        "jobs": [member("pxcall", "sleep 100", labels={"wf": "gone"})],
        "factories": [factory("repeat", number=5)],
        "labels": {"wf": "gone"},
    }
    workflow = person("POST", "/workflows", json=body).json()["id"]
    assert [item["id"] for item in person("GET", "/workflows?constraint=wf=gone").json()] == [workflow]
    assert person("DELETE", f"/workflows/{workflow}").json() == {}
    assert person.job(workflow + 1)["status"] == "deleted"
    assert person("GET", "/jobs?constraint=wf=gone").json() == []
    ended = person.ended(f"/workflows/{workflow}")
    assert (ended["status"], ended["statusReason"]) == ("deleted", "Workflow deleted by user")
    for job in instances(person, workflow):
        assert job["statusReason"] == "Job part of a workflow which was deleted by user"
    assert person("DELETE", f"/workflows/{workflow}").json() == {"error": "No such workflow(s)"}


def test_instances_of_repeat_have_outputs_of_their_own(person: Person) -> None:
    body = {
        "name": "own",
        "jobs": [member("pxcall", 'sh -c "echo $PROMINENCE_JOB_ID $PROMINENCE_WORKFLOW_ID > o"', outputFiles=["o"])],
        "factories": [factory("repeat", number=3)],
    }
    workflow = person("POST", "/workflows", json=body).json()["id"]
    assert person.ended(f"/workflows/{workflow}")["status"] == "completed"
    for job in instances(person, workflow):
        assert requests.get(job["outputFiles"][0]["url"], timeout=30).text == f"{job['id']} {workflow}\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"jobs": []}, "an array of jobs must be provided"),
        ({"name": "two words"}, "Workflow submission failed"),
        ({"dependencies": {"Z": ["pxcall"]}}, 'parent job "Z" is not actually defined'),
        ({"dependencies": {"pxcall": ["pxcall"]}}, "the dependencies of a workflow must not contain a cycle"),
        ({"factories": [factory("zip", {"name": "x", "values": []})]}, "a factory must give at least one job"),
        ({"factories": [factory("repeat", number=0)]}, "number of repeats must be at least 1"),
        (
            {"factories": [factory("parameterSweep", {"name": "x", "start": 0, "end": 1, "number": 3})]},
            "each parameter of a parameterSweep factory must contain end, start, step",
        ),
        ({"factories": [factory("repeat", number=1, job="no")]}, 'job "no" of a factory is not actually defined'),
    ],
)
def test_refused_workflows(change: dict[str, Any], sentence: str, person: Person) -> None:
    body = {"name": "wf", "jobs": [member("pxcall", "true")], **change}
    answer = person("POST", "/workflows", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": sentence})


@pytest.mark.parametrize("name", ["s", "crat", "scratch", "0", "a-b"])
def test_a_job_name_that_the_real_service_mangles_is_refused(name: str, person: Person) -> None:
    body = {"name": "wf", "jobs": [member(name, "true")], "factories": [factory("repeat", number=2, job=name)]}
    assert "choose another" in person("POST", "/workflows", json=body).json()["error"]


def test_an_artifact_missing_for_one_instance_refuses_the_workflow(person: Person) -> None:
    url = person("POST", "/data/upload", json={"filename": "wf0"}).json()["url"]
    requests.put(url, data=b"x", timeout=30).raise_for_status()
    body = {
        "name": "wf",
        "jobs": [member("pxcall", "true", artifacts=[{"url": "wf${i}"}])],
        "factories": [factory("zip", {"name": "i", "values": [0, 1]})],
    }
    answer = person("POST", "/workflows", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "Artifact wf1 does not exist"})


def test_output_of_instances_is_asked_for_by_job(person: Person, service: LocalService) -> None:
    body = {"name": "wf", "jobs": [member("A", "true")]}
    workflow = person("POST", "/workflows", json=body).json()["id"]
    assert "job's own id" in person("GET", f"/workflows/{workflow}/A/stdout").json()["error"]
    other = Person(service.url, service.token_for("other"))
    refused = other("GET", f"/workflows/{workflow}/A/1/stdout")
    assert (refused.status_code, refused.json()) == (403, {"error": "Not authorized to access this workflow"})


def test_a_restarted_service_goes_on_with_its_workflows(tmp_path: Path, until: Until) -> None:
    gate = {"env": {"GATE": str(tmp_path / "gate")}}
    body = {
        "name": "wf",
        "jobs": [member("A", "sh -c 'test -e \"$GATE\"'", task=gate), member("B", "true")],
        "dependencies": {"A": ["B"]},
    }
    with LocalService(tmp_path / "state", cpus=1, memory=4) as service:
        person = Person(service.url, service.token)
        blocking = person.create("sleep 1000")
        until(lambda: person.job(blocking)["status"] == "running")
        workflow = person("POST", "/workflows", json=body).json()["id"]
    (tmp_path / "gate").touch()
    with LocalService(tmp_path / "state", cpus=1, memory=4) as service:
        person = Person(service.url, service.token)
        assert person.ended(f"/workflows/{workflow}")["status"] == "completed"
        assert person.ended(blocking)["status"] == "failed"
