"""Workflows: their JSON, pinned to what the service accepted, and their life on the real embedded service."""

from __future__ import annotations

import base64
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paths import WIRE

from prominence_executor.client.client import ProminenceClient
from prominence_executor.client.job import Job
from prominence_executor.client.model import Artifact, InputFile, Resources, Task
from prominence_executor.client.validation import BODY_LIMIT
from prominence_executor.client.workflow import Dependency, ParameterSweep, Repeat, Workflow, WorkflowPolicies, Zip
from prominence_executor.errors import InvalidRequestError, NotFoundError
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import prominence

IMAGE = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"


def a_job(name: str = "fjob", command: str = "echo ${x}", **description: Any) -> Job:
    resources = Resources(disk=1, walltime=10)
    return Job(name=name, tasks=[Task("py313.sif", command, runtime="singularity")], resources=resources, **description)


# -- the JSON ----------------------------------------------------------------------------------------------------------


def test_a_whole_workflow() -> None:
    one, two = a_job("one"), a_job("two")
    workflow = Workflow(
        name="wf",
        jobs=[one, two],
        factories=[Zip(jobs=[one], parameters={"x": [0, 1]}, name="f")],
        dependencies=[Dependency(one, [two])],
        labels={"run": "w1"},
        policies=WorkflowPolicies(maximum_retries=2, leave_in_queue=True),
    )
    assert (
        workflow.json()
        == workflow.to_dict()
        == {
            "name": "wf",
            "jobs": [one.json(), two.json()],
            "factories": [
                {"name": "f", "type": "zip", "jobs": ["one"], "parameters": [{"name": "x", "values": [0, 1]}]}
            ],
            "dependencies": {"one": ["two"]},
            "labels": {"run": "w1"},
            "policies": {"maximumRetries": 2, "leaveInQueue": True},
        }
    )


ZIP_COMMAND = 'sh -c "cat p${i}.txt > o.txt"'
SWEEP_2D = {"x": (1, 2, 1), "y": (0, 0.3, 0.1)}


@pytest.mark.parametrize(
    ("recording", "workflow"),
    [
        (
            "dag",
            Workflow(
                name="wf-dag",
                jobs=[a_job("A", "echo a"), a_job("B", "echo b")],
                dependencies=[Dependency("A", ["B"])],
            ),
        ),
        (
            "dag-fail",
            Workflow(
                name="wf-dagfail",
                labels={"run": "w1"},
                jobs=[a_job("A", "false"), a_job("B", "echo b")],
                dependencies=[Dependency("A", ["B"])],
            ),
        ),
        (
            "zip1-artifact-param",
            Workflow(
                name="wfz",
                jobs=[a_job("zjob", ZIP_COMMAND, output_files=["o.txt"], artifacts=[Artifact("p${i}.txt")])],
                factories=[Zip(["zjob"], {"i": [0, 1, 2]}, name="f")],
            ),
        ),
        (
            "zip2-output-by-last-param",
            Workflow(
                name="wfz",
                jobs=[a_job("zjob", 'sh -c "echo ${i} > out-${s}.txt"', output_files=["out-${s}.txt"])],
                factories=[Zip(["zjob"], {"i": [0, 1], "s": ["a", "b"]}, name="f")],
            ),
        ),
        (
            "sweep-step",
            Workflow(
                name="wf",
                jobs=[a_job("fjob", 'sh -c "echo ${x} > out-${x}.txt"', output_files=["out-${x}.txt"])],
                factories=[ParameterSweep(["fjob"], {"x": (0, 1, 0.5)}, name="f")],
            ),
        ),
        (
            "sweep-2d",
            Workflow(
                name="wf",
                jobs=[a_job("fjob", 'sh -c "echo ${x} ${y} > out.txt"', output_files=["out.txt"])],
                factories=[ParameterSweep(["fjob"], SWEEP_2D, name="f")],
            ),
        ),
    ],
)
def test_a_workflow_is_what_the_service_accepted(recording: str, workflow: Workflow) -> None:
    path = WIRE / f"workflow-{recording}-create.json"
    if not path.exists():
        pytest.skip("no recordings beside the repository")
    exchange = json.loads(path.read_text())
    assert exchange["response"]["status"] == 201
    assert workflow.json() == exchange["request"]["json"]


def test_a_repeat_factory_is_what_the_service_accepted_but_for_its_outputs() -> None:
    path = WIRE / "workflow-repeat-create.json"
    if not path.exists():
        pytest.skip("no recordings beside the repository")
    (accepted,) = json.loads(path.read_text())["request"]["json"]["factories"]
    assert Repeat(["fjob"], 3, name="f").json() == accepted


def test_factories_and_dependencies_as_upstream_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = base64.urlsafe_b64encode(b'{"exp": 99999999999}').rstrip(b"=").decode()
    monkeypatch.setenv("PROMINENCE_TOKEN", f"eyJhbGciOiJIUzI1NiJ9.{payload}.eA")  # upstream wants one even offline
    theirs = prominence.Job()
    theirs.name = "fjob"
    zipped, swept, repeated = prominence.Zip(), prominence.ParameterSweep(), prominence.Repeat(3)
    zipped.parameters = [prominence.ParameterSet("x", values=[1, 2])]
    swept.parameters = [prominence.ParameterSet("x", start=0, end=1, step=0.5)]
    for factory in (zipped, swept, repeated):
        factory.name, factory.jobs = "f", [theirs]
    ours = a_job()
    assert Zip([ours], {"x": [1, 2]}, name="f").json() == zipped.to_dict()
    assert ParameterSweep([ours], {"x": (0, 1, 0.5)}, name="f").json() == swept.to_dict()
    misnamed = repeated.to_dict()
    misnamed["number"] = misnamed.pop("num")  # what upstream writes is not what the service reads
    assert Repeat([ours], 3, name="f").json() == misnamed
    workflow = Workflow(name="wf", jobs=[ours, a_job("child")], dependencies=[Dependency(ours, [a_job("child")])])
    child = prominence.Job()
    child.name = "child"
    assert workflow.json()["dependencies"] == prominence.Dependency(theirs, [child]).to_dict()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, ["Workflow.name", "None"]),
        ({"name": "two words"}, ["Workflow.name", "'two words'"]),
        ({"name": ".."}, ["Workflow.name", "'..'"]),
        ({"jobs": []}, ["Workflow.jobs"]),
        ({"jobs": ["fjob"]}, ["Workflow.jobs", "'fjob'"]),
        ({"jobs": [a_job(), a_job()]}, ["Workflow.jobs", "'fjob'"]),
        ({"jobs": [a_job("a/b")]}, ["Job.name", "'a/b'"]),
        ({"jobs": [a_job("")]}, ["Job.name", "''"]),
        ({"factories": [Zip([], {"x": [1]})]}, ["Zip.jobs", "[]"]),
        ({"factories": [Zip(["other"], {"x": [1]})]}, ["Factory.jobs", "'other'"]),
        ({"factories": [Zip(["fjob"], {})]}, ["Zip.parameters", "{}"]),
        ({"factories": [Zip(["fjob"], {"x": []})]}, ["Zip.parameters", "[]"]),
        ({"factories": [Zip(["fjob"], {"x": [1], "y": [1, 2]})]}, ["Zip.parameters", "one length"]),
        ({"factories": [Zip(["fjob"], {"a-b": [1]})]}, ["Zip.parameters", "'a-b'"]),
        *(
            ({"factories": [Zip(["fjob"], {"x": [1, value]})]}, ["Zip.parameters['x']", repr(value)])  # type: ignore[list-item]
            for value in ("a b", "p=q", 'q"x', "it's", "a\\b", "", "$x", "a/b", "é", 1.5, True, None, [1])
        ),
        ({"factories": [ParameterSweep(["fjob"], {})]}, ["ParameterSweep.parameters"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, 1)})]}, ["ParameterSweep.parameters['x']"]),  # type: ignore[dict-item]
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, 1, 0)})]}, ["ParameterSweep.parameters['x']"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (1, 0, 1)})]}, ["ParameterSweep.parameters['x']"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, float("inf"), 1)})]}, ["ParameterSweep.parameters['x']"]),
        ({"factories": [Repeat(["fjob"], 0)]}, ["Repeat.number", "0"]),
        ({"factories": [Repeat(["fjob"], 10**9)]}, ["Repeat.number", "at most 100000"]),
        ({"factories": [Zip(["fjob"], {"x": [1] * 100_001})]}, ["Zip.parameters", "at most 100000"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, 10**9, 1)})]}, ["ParameterSweep", "at most 100000"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, 1, 5e-324)})]}, ["ParameterSweep", "adds something"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (1e17, 2e17, 1)})]}, ["ParameterSweep", "at most"]),
        ({"factories": [ParameterSweep(["fjob"], {"x": (0, 999, 1), "y": (0, 100, 1)})]}, ["ParameterSweep"]),
        ({"dependencies": [Dependency("fjob", ["other"])]}, ["Dependency", "'other'"]),
        ({"dependencies": [Dependency("other", ["fjob"])]}, ["Dependency", "'other'"]),
        ({"labels": {"a-b": "c"}}, ["Workflow.labels", "'a-b'"]),
        ({"policies": WorkflowPolicies(maximum_retries=0)}, ["WorkflowPolicies.maximum_retries", "0"]),
        ({"policies": WorkflowPolicies(leave_in_queue=1)}, ["WorkflowPolicies.leave_in_queue", "1"]),  # type: ignore[arg-type]
        (
            {
                "jobs": [
                    a_job(input_files=[InputFile("i", bytes(600_000))]),
                    a_job("b2", input_files=[InputFile("i", bytes(600_000))]),
                ]
            },
            ["Workflow.jobs", str(BODY_LIMIT)],
        ),
    ],
)
def test_a_wrong_workflow_is_refused_by_field_and_value(change: dict[str, Any], words: list[str]) -> None:
    workflow = Workflow(name="wf", jobs=[a_job()])
    for field, value in change.items():
        setattr(workflow, field, value)
    with pytest.raises(ValueError) as caught:
        workflow.json()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", ["a", "c", "s", "cat", "scratch", "rat", "deadbeef", "12", "0-1"])
def test_a_job_name_that_occurs_in_the_place_of_outputs_is_refused(name: str) -> None:
    workflow = Workflow(name="wf", jobs=[a_job(name)], factories=[Zip([name], {"x": [1]})])
    with pytest.raises(ValueError, match="scratch"):
        workflow.json()


@pytest.mark.parametrize("name", ["pxcall", "A", "fit", "simulate", "batch-job"])
def test_an_ordinary_job_name_is_not_refused(name: str) -> None:
    Workflow(name="wf", jobs=[a_job(name)], factories=[Zip([name], {"x": [1]})]).json()


def test_only_the_last_parameter_may_name_outputs() -> None:
    job = a_job(output_files=["out-${i}.txt"])
    for factory in (
        Zip([job], {"i": [0, 1], "s": ["a", "b"]}),
        ParameterSweep([job], {"i": (0, 1, 1), "s": (0, 1, 1)}),
    ):
        with pytest.raises(ValueError, match=r"Job\.output_files .* 'out-\$\{i\}\.txt'"):
            Workflow(name="wf", jobs=[job], factories=[factory]).json()
    Workflow(name="wf", jobs=[job], factories=[Zip([job], {"s": ["a", "b"], "i": [0, 1]})]).json()


def test_a_repeated_job_must_not_have_outputs() -> None:
    job = a_job(output_files=["out.txt"])
    with pytest.raises(ValueError, match=r"Repeat\.jobs"):
        Workflow(name="wf", jobs=[job], factories=[Repeat([job], 3)]).json()


# -- on the service ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


@pytest.fixture
def created(client: ProminenceClient) -> Callable[..., Workflow]:
    def create(**description: Any) -> Workflow:
        workflow = Workflow(client=client, **description)
        workflow.create()
        return workflow

    return create


def exists(name: str, command: str, **description: Any) -> Job:
    return Job(name=name, tasks=[Task(IMAGE, command)], resources=Resources(disk=1, walltime=10), **description)


def test_a_zip_runs_one_job_for_each_value(created: Callable[..., Workflow], client: ProminenceClient) -> None:
    job = exists("pxcall", "sh -c 'echo ${i} $PROMINENCE_PARAMETER_i > o'", output_files=["o"], labels={"zip": "z1"})
    workflow = created(name="wfz", jobs=[job], factories=[Zip([job], {"i": [5, 6, 7]})], labels={"own": "w"})
    workflow.wait(60)
    assert workflow.status == "completed"
    assert workflow.progress["total"] == 3
    instances = workflow.instances()
    assert sorted(str(instance.name) for instance in instances) == ["wfz/pxcall/0", "wfz/pxcall/1", "wfz/pxcall/2"]
    by_name = {str(instance.name): instance for instance in instances}
    for index, value in enumerate([5, 6, 7]):
        instance = by_name[f"wfz/pxcall/{index}"]
        assert instance.done()
        assert instance.get_output_file("o").split() == [str(value).encode()] * 2
    assert len(client.list_jobs(constraint=("zip", "z1"), all=True)) == 3
    assert [item["id"] for item in client.list_workflows(constraint=("own", "w"), all=True)] == [workflow.id]


def test_a_sweep_runs_one_job_for_each_combination(created: Callable[..., Workflow]) -> None:
    job = exists("point", "echo ${x} ${y}")
    workflow = created(name="sweep", jobs=[job], factories=[ParameterSweep([job], {"x": (1, 2, 1), "y": (0, 2, 1)})])
    workflow.wait(60)
    seen = {instance.stdout() for instance in workflow.instances()}
    assert len(seen) == 6


def test_a_repeat_runs_the_same_job_again(created: Callable[..., Workflow]) -> None:
    job = exists("again", "echo hi")
    workflow = created(name="repeat", jobs=[job], factories=[Repeat([job], 3)])
    workflow.wait(60)
    assert [instance.stdout() for instance in workflow.instances()] == ["hi\n"] * 3


def test_children_run_after_their_parents(created: Callable[..., Workflow]) -> None:
    parent, child = exists("parent", "true"), exists("child", "true")
    workflow = created(name="dag", jobs=[child, parent], dependencies=[Dependency(parent, [child])])
    workflow.wait(60)
    assert workflow.status == "completed"
    ended = {str(instance.name): instance.id or 0 for instance in workflow.instances()}
    assert ended["dag/parent"] < ended["dag/child"]


@pytest.mark.parametrize("ending", ["failed", "deleted"])
def test_waiting_ends_for_every_way_to_end(created: Callable[..., Workflow], ending: str) -> None:
    workflow = created(name="ends", jobs=[exists("only", "false" if ending == "failed" else "sleep 60")])
    if ending == "deleted":
        workflow.delete()
    workflow.wait(60)
    assert workflow.done()
    assert workflow.status == ending
    with pytest.raises(NotFoundError):
        workflow.delete()


def test_waiting_ends_without_a_word_when_the_time_is_over(created: Callable[..., Workflow]) -> None:
    workflow = created(name="long", jobs=[exists("only", "sleep 60")])
    workflow.wait(0.5)
    assert not workflow.done()
    workflow.delete()


def test_an_existing_workflow_can_be_asked_by_its_id(
    created: Callable[..., Workflow], client: ProminenceClient
) -> None:
    first = created(name="first", jobs=[exists("only", "true")])
    workflow = Workflow(id=first.id, client=client)
    workflow.wait(60)
    assert workflow.status == "completed"
    with pytest.raises(InvalidRequestError, match="created already"):
        workflow.create()
    with pytest.raises(InvalidRequestError, match="no id yet"):
        Workflow(client=client).wait()
