"""The values that describe a job: pure, offline, and pinned from three sides.

Key names and shapes are compared with literals written here, with what the real service accepted (recordings beside
the repository, where there are any), and with what upstream's own client sends. Upstream's known mistakes, which its
own tests assert or miss, are not copied:

- ``ignoreTaskTailures`` for ``ignoreTaskFailures``: the service refuses the job;
- ``num`` for ``number`` in a Repeat factory: the service refuses the workflow;
- text for bytes: an InputFile takes text only, and empty content reads a file of that name instead;
- ``cpus`` beside ``cpusRange`` and ``cpusOptions``, ``nodes`` beside ``totalCpusRange``: the service refuses both;
- ``walltime`` is left out by default, where its documentation says 43200.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import WIRE

from prominence_executor.client.job import Job
from prominence_executor.client.model import (
    Artifact,
    InputFile,
    JobPolicies,
    Notification,
    Resources,
    Task,
)
from prominence_executor.client.validation import BODY_LIMIT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import prominence


def recorded(name: str) -> dict[str, Any]:
    """The body of a recorded request and the status it was answered with."""
    path = WIRE / f"{name}.json"
    if not path.exists():
        pytest.skip("no recordings beside the repository")
    exchange = json.loads(path.read_text())
    return {"body": exchange["request"]["json"], "status": exchange["response"]["status"]}


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_a_task_in_full() -> None:
    task = Task(
        image="centos:7",
        command="mpirun hello",
        runtime="udocker",
        type="openmpi",
        workdir="/data",
        env={"A": "b", "N": 1, "X": 0.5, "T": True},
        procs_per_node=2,
    )
    assert task.json() == {
        "image": "centos:7",
        "cmd": "mpirun hello",
        "runtime": "udocker",
        "type": "openmpi",
        "workdir": "/data",
        "env": {"A": "b", "N": "1", "X": "0.5", "T": "True"},
        "procsPerNode": 2,
    }
    assert task.to_dict() == task.json()


def test_a_task_written_as_the_documentation_writes_it() -> None:
    task = Task()
    task.image = "centos:7"
    task.runtime = "singularity"
    task.command = "hostname"
    assert task.json() == {"image": "centos:7", "cmd": "hostname", "runtime": "singularity"}


@pytest.mark.parametrize(
    ("image", "runtime"),
    [
        ("centos:7", "singularity"),
        ("py313.sif", "singularity"),
        ("py313.tar", "udocker"),
        ("py313.tgz", "udocker"),
        ("https://host/py313.tar?signature=x", "udocker"),
        ("tar:latest", "singularity"),
    ],
)
def test_the_runtime_follows_from_the_image(image: str, runtime: str) -> None:
    assert Task(image).json()["runtime"] == runtime


def test_the_environment_is_quoted_for_udocker_which_splits_it() -> None:
    texts = {"A": "plain", "B": "x y", "C": 'x"y"z', "D": "a\\b", "E": "it's", "F": ""}
    quoted = {"A": "plain", "B": "'x y'", "C": "'x\"y\"z'", "D": "'a\\b'", "E": "'it'\"'\"'s'", "F": "''"}
    assert Task("i.tar", env=texts).json()["env"] == quoted
    assert Task("i.sif", env=texts).json()["env"] == texts


def test_a_misspelt_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Task().comand = "hostname"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Task(), ["Task.image", "None"]),
        (Task(""), ["Task.image", "''"]),
        (Task("i", command='echo "a'), ["Task.command", "quot"]),
        (Task("i", command="echo " + "x" * 131_072), ["Task.command", "131071"]),
        (Task("i", command="a\0b"), ["Task.command", "NUL"]),
        (Task("i", command=["ls"]), ["Task.command", "['ls']"]),  # type: ignore[arg-type]
        (Task("i", runtime="docker"), ["Task.runtime", "docker"]),
        (Task("i", type="mpi"), ["Task.type", "mpi"]),
        (Task("i", type="openmpi"), ["Task.command", "openmpi"]),
        (Task("i", env={"A": None}), ["Task.env['A']", "None"]),  # type: ignore[dict-item]
        (Task("i", env={"A": [1]}), ["Task.env['A']", "[1]"]),  # type: ignore[dict-item]
        (Task("i", env={"A=B": "c"}), ["Task.env", "A=B"]),
        (Task("i", env=["A=1"]), ["Task.env", "A=1"]),  # type: ignore[arg-type]
        (Task("i.tar", env={"FOO BAR": "baz"}), ["Task.env", "FOO BAR", "udocker"]),
        (Task("i", procs_per_node=0), ["Task.procs_per_node", "0"]),
    ],
)
def test_a_wrong_task_is_refused_by_field_and_value(task: Task, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        task.json()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_longest_word_that_linux_takes_is_taken() -> None:
    command = "echo " + "x" * 131_071
    assert Task("i", command=command).json()["cmd"] == command


# -- resources ---------------------------------------------------------------------------------------------------------


def test_default_resources() -> None:
    resources = Resources()
    assert (resources.cpus, resources.memory, resources.disk, resources.nodes) == (1, 1, 10, 1)
    assert resources.json() == {"cpus": 1, "memory": 1, "disk": 10, "nodes": 1, "walltime": 43200}
    assert Resources(4, 8, 20, 2, 60).json() == {"cpus": 4, "memory": 8, "disk": 20, "nodes": 2, "walltime": 60}


def test_a_default_gives_way_to_the_field_that_excludes_it() -> None:
    assert Resources(cpus=4, memory_per_cpu=2).json() == {
        "cpus": 4,
        "memoryPerCpu": 2,
        "disk": 10,
        "nodes": 1,
        "walltime": 43200,
    }
    assert Resources(cpus_range=(2, 4)).json() == {
        "cpusRange": [2, 4],
        "memory": 1,
        "disk": 10,
        "nodes": 1,
        "walltime": 43200,
    }
    assert Resources(cpus_options=(4, 8), total_cpus_range=(16, 32), memory_per_cpu=1).json() == {
        "cpusOptions": [4, 8],
        "totalCpusRange": [16, 32],
        "memoryPerCpu": 1,
        "disk": 10,
        "walltime": 43200,
    }
    resources = Resources()
    resources.memory_per_cpu = 2
    assert "memory" not in resources.json()


def test_a_default_stays_one_through_copies_and_pickles() -> None:
    resources = Resources(memory_per_cpu=2)
    for again in (copy.deepcopy(resources), pickle.loads(pickle.dumps(resources)), dataclasses.replace(resources)):
        assert again.json() == resources.json()


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources(memory=1, memory_per_cpu=2), ["memory=1", "memory_per_cpu=2"]),
        (Resources(cpus=1, cpus_range=(1, 2)), ["cpus=1", "cpus_range"]),
        (Resources(cpus_options=(1, 2), cpus_range=(1, 2)), ["cpus_options", "cpus_range"]),
        (Resources(nodes=1, total_cpus_range=(1, 2)), ["nodes=1", "total_cpus_range"]),
        (Resources(nodes=0), ["Resources.nodes", "0"]),
        (Resources(cpus=0), ["Resources.cpus", "0"]),
        (Resources(cpus=True), ["Resources.cpus", "True"]),
        (Resources(cpus=None), ["Resources.cpus", "None"]),
        (Resources(memory=0), ["Resources.memory", "0"]),
        (Resources(memory=1.5), ["Resources.memory", "1.5", "GB"]),  # type: ignore[arg-type]
        (Resources(memory="2"), ["Resources.memory", "'2'"]),  # type: ignore[arg-type]
        (Resources(memory=None), ["Resources.memory", "None"]),
        (Resources(disk=0), ["Resources.disk", "0"]),
        (Resources(walltime=0), ["Resources.walltime", "0", "minutes"]),
        (Resources(walltime=-1), ["Resources.walltime", "-1"]),
        (Resources(walltime=10**9), ["Resources.walltime", "minutes", "at most 5256000", "1000000000"]),
        (Resources(cpus=10**9), ["Resources.cpus", "at most 1000000"]),
        (Resources(memory=10**9), ["Resources.memory", "at most 1000000"]),
        (Resources(disk=10**9), ["Resources.disk", "at most 1000000"]),
        (Resources(nodes=10**9), ["Resources.nodes", "at most 1000000"]),
        (Resources(memory_per_cpu=10**9), ["Resources.memory_per_cpu", "at most 1000000"]),
        (Resources(cpus_range=(1, 10**9)), ["Resources.cpus_range", "at most 1000000"]),
        (Resources(memory_per_cpu=0), ["Resources.memory_per_cpu", "0"]),
        (Resources(cpus_range=(4, 2)), ["Resources.cpus_range", "(4, 2)"]),
        (Resources(cpus_range=(4,)), ["Resources.cpus_range", "(4,)"]),  # type: ignore[arg-type]
        (Resources(total_cpus_range=8), ["Resources.total_cpus_range", "8"]),  # type: ignore[arg-type]
    ],
)
def test_wrong_resources_are_refused_by_field_and_value(resources: Resources, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        resources.json()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@given(st.tuples(*[st.integers(1, 10**6)] * 5))
def test_whole_positive_numbers_travel_as_they_are(numbers: tuple[int, int, int, int, int]) -> None:
    sent = json.loads(json.dumps(Resources(*numbers).json()))
    assert sent == dict(zip(("cpus", "memory", "disk", "nodes", "walltime"), numbers, strict=True))


# -- input files and artifacts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["text", "é€", "", b"", b"\xff\x00\r\n", bytearray(b"ab")])
def test_an_input_file_travels_in_base64(content: Any) -> None:
    raw = content.encode() if isinstance(content, str) else bytes(content)
    wire = InputFile("some/where/x.txt", content).json()
    assert wire == {"filename": "x.txt", "content": base64.b64encode(raw).decode()}


@given(st.binary())
def test_any_bytes_come_back_from_base64(content: bytes) -> None:
    assert base64.b64decode(InputFile("x", content).json()["content"], validate=True) == content


def test_an_input_file_without_content_is_read_when_json_is_made(tmp_path: Path) -> None:
    file = InputFile(tmp_path / "data.bin")
    with pytest.raises(FileNotFoundError):
        file.json()
    (tmp_path / "data.bin").write_bytes(b"\x00\xff")
    assert file.json() == {"filename": "data.bin", "content": "AP8="}


def test_an_executable_input_file() -> None:
    assert InputFile("run.sh", "true", executable=True).json() == {
        "filename": "run.sh",
        "content": "dHJ1ZQ==",
        "executable": True,
    }


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", ".", "..", "a,b.txt", "logs", "json", "promlet.py", ".job.json", "x/logs", "a\0b", "a\nb", " a"],
)
def test_names_that_the_worker_breaks_on_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"InputFile\.filename"):
        InputFile(name, "x").json()


def test_an_input_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    InputFile("x", bytes(700_000)).json()
    with pytest.raises(ValueError, match=r"'x' has 800000 bytes"):
        InputFile("x", bytes(800_000)).json()
    (tmp_path / "big").write_bytes(bytes(800_000))
    with pytest.raises(ValueError, match=r"'big' has 800000 bytes"):
        InputFile(tmp_path / "big").json()


def test_input_content_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"InputFile\.content"):
        InputFile("x", 5).json()  # type: ignore[arg-type]


def test_the_content_of_an_input_file_is_not_in_its_repr() -> None:
    assert "secret" not in repr(InputFile("x", "secret"))


def test_artifacts() -> None:
    assert Artifact("data.bin").json() == {"url": "data.bin"}
    assert Artifact("p0.txt", "p0.txt", "/mnt/p0.txt", executable=True).json() == {
        "url": "p0.txt",
        "mountpoint": "p0.txt:/mnt/p0.txt",
        "executable": True,
    }


@pytest.mark.parametrize(
    ("artifact", "field"),
    [
        (Artifact(""), "url"),
        (Artifact("a", mount_point="/mnt"), "directory_name"),
        (Artifact("a", "b"), "mount_point"),
        (Artifact("a", "b/c", "/mnt"), "directory_name"),
        (Artifact("a", "b", "mnt"), "mount_point"),
    ],
)
def test_a_wrong_artifact_is_refused(artifact: Artifact, field: str) -> None:
    with pytest.raises(ValueError, match=rf"Artifact\.{field}"):
        artifact.json()


# -- policies, notifications -------------------------------------------------------------------------------------------


def test_policies_in_full_and_none() -> None:
    policies = JobPolicies(
        maximum_task_retries=1,
        maximum_retries=2,
        maximum_time_in_queue=10,
        priority=5,
        leave_in_queue=True,
        ignore_task_failures=True,
        run_serial_tasks_on_all_nodes=False,
        report_job_success_on_task_failure=True,
    )
    assert policies.json() == {
        "maximumTaskRetries": 1,
        "maximumRetries": 2,
        "maximumTimeInQueue": 10,
        "priority": 5,
        "leaveInQueue": True,
        "ignoreTaskFailures": True,
        "runSerialTasksOnAllNodes": False,
        "reportJobSuccessOnTaskFailure": True,
    }
    assert JobPolicies().json() == {}


@pytest.mark.parametrize(
    ("policies", "field"),
    [
        (JobPolicies(maximum_retries=0), "maximum_retries"),
        (JobPolicies(maximum_retries=7), "maximum_retries"),
        (JobPolicies(maximum_task_retries=7), "maximum_task_retries"),
        (JobPolicies(maximum_time_in_queue=-1), "maximum_time_in_queue"),
        (JobPolicies(maximum_time_in_queue=44_641), "maximum_time_in_queue"),
        (JobPolicies(priority=-1), "priority"),
        (JobPolicies(priority=2**31), "priority"),
        (JobPolicies(leave_in_queue="x"), "leave_in_queue"),  # type: ignore[arg-type]
        (JobPolicies(ignore_task_failures=1), "ignore_task_failures"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_policy_is_refused(policies: JobPolicies, field: str) -> None:
    with pytest.raises(ValueError, match=rf"JobPolicies\.{field} must be"):
        policies.json()


def test_notifications() -> None:
    assert Notification().json() == {"event": "jobFinished", "type": "email"}
    with pytest.raises(ValueError, match=r"Notification\.event .* 'x'"):
        Notification(event="x").json()
    with pytest.raises(ValueError, match=r"Notification\.type .* 'sms'"):
        Notification(type="sms").json()


# -- whole jobs --------------------------------------------------------------------------------------------------------


def whole_job() -> Job:
    return Job(
        name="wire",
        tasks=[Task("py313.sif", "true")],
        resources=Resources(1, 1, 1, 1, 10),
        input_files=[InputFile("a.txt", "A")],
        artifacts=[Artifact("p0.txt")],
        output_files=["o.txt", "s/b.txt"],
        output_directories=["d"],
        labels={"run": "a1"},
        policies=JobPolicies(priority=1),
        notifications=[Notification()],
    )


def test_a_whole_job() -> None:
    assert (
        whole_job().json()
        == whole_job().to_dict()
        == {
            "name": "wire",
            "tasks": [{"image": "py313.sif", "cmd": "true", "runtime": "singularity"}],
            "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
            "inputs": [{"filename": "a.txt", "content": "QQ=="}],
            "artifacts": [{"url": "p0.txt"}],
            "outputFiles": ["o.txt", "s/b.txt"],
            "outputDirs": ["d"],
            "labels": {"run": "a1"},
            "policies": {"priority": 1},
            "notifications": [{"event": "jobFinished", "type": "email"}],
        }
    )


def test_a_job_says_nothing_of_what_was_not_set() -> None:
    assert set(Job(tasks=[Task("i")]).json()) == {"tasks", "resources"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": []}, ["Job.tasks"]),
        ({"tasks": "x"}, ["Job.tasks", "'x'"]),
        ({"tasks": [{"image": "i"}]}, ["Job.tasks", "Task"]),
        ({"tasks": [Task("i", type="sidecar")]}, ["Job.tasks", "sidecar"]),
        ({"tasks": [Task("i", procs_per_node=2)]}, ["Task.procs_per_node", "2"]),
        ({"resources": None}, ["Job.resources", "None"]),
        ({"input_files": ["x"]}, ["Job.input_files", "'x'"]),
        ({"input_files": [InputFile("a/x", "A"), InputFile("b/x", "B")]}, ["Job.input_files", "'x'"]),
        ({"input_files": [InputFile("x", "A")], "artifacts": [Artifact("https://h/x?s=1")]}, ["artifacts", "'x'"]),
        ({"output_files": ["a/o", "b/o"]}, ["Job.output_files", "'o'"]),
        ({"output_files": ["o", "o"]}, ["Job.output_files", "'o'"]),
        ({"output_files": ["d.tgz"], "output_directories": ["d"]}, ["Job.output_files", "'d.tgz'"]),
        ({"output_files": ["/tmp/o"]}, ["Job.output_files", "'/tmp/o'"]),
        ({"output_files": "o"}, ["Job.output_files", "'o'"]),
        ({"output_files": [1]}, ["Job.output_files", "1"]),
        ({"output_directories": ["d/"]}, ["Job.output_directories", "'d/'"]),
        ({"labels": {"a-b": "c"}}, ["Job.labels", "'a-b'"]),
        ({"labels": ["a"]}, ["Job.labels", "['a']"]),
        ({"name": "a:b"}, ["Job.name", "'a:b'"]),
        ({"policies": {}}, ["Job.policies", "{}"]),
        ({"notifications": [Notification("x")]}, ["Notification.event", "'x'"]),
    ],
)
def test_a_wrong_job_is_refused_by_field_and_value(change: dict[str, Any], words: list[str]) -> None:
    job = whole_job()
    for field, value in {"artifacts": [], **change}.items():
        setattr(job, field, value)
    with pytest.raises(ValueError) as caught:
        job.json()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_inputs_that_are_too_large_only_together_are_refused() -> None:
    job = Job(tasks=[Task("i")], input_files=[InputFile("a", bytes(500_000))])
    job.json()
    job.input_files.append(InputFile("b", bytes(500_000)))
    with pytest.raises(ValueError, match=str(BODY_LIMIT)):
        job.json()


# -- against the recordings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "job"),
    [
        (
            "create-ok",
            Job(
                name="ok",
                tasks=[Task("py313.sif", "true")],
                resources=Resources(disk=1, walltime=10),
                labels={"run": "a1", "step": "0"},
            ),
        ),
        ("create-ok-no-name", Job(tasks=[Task("py313.sif", "true")], resources=Resources(disk=1, walltime=10))),
        (
            "create-ok-extra-types",
            Job(
                name="wire",
                tasks=[Task("py313.sif", "true")],
                resources=Resources(disk=1, walltime=1),
                labels={"a": "x.y/z-1_2"},
                policies=JobPolicies(priority=5, maximum_time_in_queue=10, maximum_task_retries=1, leave_in_queue=True),
            ),
        ),
        (
            "odd-sidecar-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", "sleep 1000", type="sidecar"), Task("py313.sif", "echo main")],
                resources=Resources(disk=1, walltime=10),
            ),
        ),
        (
            "odd-workdir-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", "pwd", workdir="w")],
                resources=Resources(disk=1, walltime=10),
                input_files=[InputFile("x", "1")],
            ),
        ),
        (
            "odd-input-empty-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", "ls -la")],
                resources=Resources(disk=1, walltime=10),
                input_files=[InputFile("e.txt", "")],
            ),
        ),
        (
            "odd-artifact-exe-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", 'sh -c "ls -la; cat p0.txt"')],
                resources=Resources(disk=1, walltime=10),
                artifacts=[Artifact("p0.txt", executable=True)],
            ),
        ),
        (
            "odd-artifact-mount-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", 'sh -c "ls -la /mnt/p0.txt"')],
                resources=Resources(disk=1, walltime=10),
                artifacts=[Artifact("p0.txt", "p0.txt", "/mnt/p0.txt")],
            ),
        ),
        (
            "odd-output-awkward-names-create",
            Job(
                name="wire",
                tasks=[Task("py313.sif", 'touch "a b.txt" é.txt a+b.txt a%b.txt a#b.txt a[1].txt')],
                resources=Resources(disk=1, walltime=10),
                output_files=["a b.txt", "é.txt", "a+b.txt", "a%b.txt", "a#b.txt", "a[1].txt"],
            ),
        ),
        (
            "odd-env-quote-create",
            Job(
                name="wire",
                tasks=[
                    Task("py313.sif", 'python3 -c "import os;print(repr(os.environ))"', env={"Q": "a\"b'c\nd$HOME"})
                ],
                resources=Resources(disk=1, walltime=10),
            ),
        ),
    ],
)
def test_a_job_is_what_the_service_accepted(name: str, job: Job) -> None:
    exchange = recorded(name)
    assert exchange["status"] == 201
    assert job.json() == exchange["body"]


@pytest.mark.parametrize(
    ("name", "policies"),
    [
        ("exit3-ignored", JobPolicies(ignore_task_failures=True)),
        ("exit3-report-success", JobPolicies(report_job_success_on_task_failure=True)),
        ("exit3-taskretries", JobPolicies(maximum_task_retries=2)),
        ("exit3-jobretries", JobPolicies(maximum_retries=2)),
        ("leaveinqueue", JobPolicies(leave_in_queue=True)),
    ],
)
def test_policies_are_spelt_as_the_service_repeats_them(name: str, policies: JobPolicies) -> None:
    path = WIRE / f"state-{name}-describe.json"
    if not path.exists():
        pytest.skip("no recordings beside the repository")
    assert json.loads(path.read_text())["response"]["json"][0]["policies"] == policies.json()


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("cpus-zero", Job(resources=Resources(cpus=0))),
        ("disk-zero", Job(resources=Resources(disk=0))),
        ("nodes-zero", Job(resources=Resources(nodes=0))),
        ("walltime-zero", Job(resources=Resources(walltime=0))),
        ("walltime-negative", Job(resources=Resources(walltime=-1))),
        ("memory-float", Job(resources=Resources(memory=1.5))),  # type: ignore[arg-type]
        ("memory-string", Job(resources=Resources(memory="lots"))),  # type: ignore[arg-type]
        ("memory-digit-string", Job(resources=Resources(memory="2"))),  # type: ignore[arg-type]
        ("memory-and-percpu", Job(resources=Resources(memory=1, memory_per_cpu=1))),
        ("label-key-bad", Job(labels={"a-b": "c"})),
        ("label-value-bad", Job(labels={"a": "c d"})),
        ("label-value-empty", Job(labels={"a": ""})),
        ("label-value-int", Job(labels={"a": 1})),  # type: ignore[dict-item]
        ("name-bad", Job(name="a:b")),
        ("name-too-long", Job(name="a" * 600)),
        ("policies-retries-0", Job(policies=JobPolicies(maximum_retries=0))),
        ("policies-retries-7", Job(policies=JobPolicies(maximum_retries=7))),
        ("policies-leaveinqueue-str", Job(policies=JobPolicies(leave_in_queue="x"))),  # type: ignore[arg-type]
        ("notification-bad", Job(notifications=[Notification("x")])),
        ("outputfiles-not-str", Job(output_files=[1])),  # type: ignore[list-item]
        ("over-1MiB", Job(input_files=[InputFile("a", bytes(800_000))])),
    ],
)
def test_what_the_service_refused_is_refused_before_it_is_sent(name: str, job: Job) -> None:
    path = WIRE / f"create-bad-{name}.json"
    if path.exists():
        assert json.loads(path.read_text())["response"]["status"] >= 400
    job.tasks.append(Task("py313.sif", "true"))
    with pytest.raises(ValueError):
        job.json()


# -- against upstream's client -----------------------------------------------------------------------------------------


def test_a_task_as_upstream_sends_it() -> None:
    theirs, ours = prominence.Task(), Task()
    for task in (theirs, ours):
        task.image, task.command, task.workdir = "py.tar", "mpirun x", "/w"
        task.type, task.env, task.procs_per_node = "openmpi", {"A": "b"}, 2
    assert ours.json() == theirs.to_dict()
    theirs.image = ours.image = "centos:7"
    theirs.runtime = ours.runtime = "udocker"
    assert ours.json() == theirs.to_dict()


def test_resources_as_upstream_sends_them() -> None:
    theirs, ours = prominence.Resources(2, 3, 4, 5, 6), Resources(2, 3, 4, 5, 6)
    assert ours.json() == theirs.to_dict()
    assert Resources(walltime=43200).json() == prominence.Resources(walltime=43200).to_dict()
    theirs.memory_per_cpu = 7
    assert Resources(2, disk=4, nodes=5, walltime=6, memory_per_cpu=7).json() == theirs.to_dict()


@pytest.mark.parametrize(
    ("field", "key"),
    [("cpus_range", "cpusRange"), ("cpus_options", "cpusOptions"), ("total_cpus_range", "totalCpusRange")],
)
def test_ranges_of_cpus_as_upstream_sends_them_but_without_what_they_exclude(field: str, key: str) -> None:
    theirs = prominence.Resources(walltime=5)
    getattr(theirs, field).min, getattr(theirs, field).max = 2, 4
    expected = theirs.to_dict()
    del expected["nodes" if field == "total_cpus_range" else "cpus"]
    assert Resources(walltime=5, **{field: (2, 4)}).json() == expected  # type: ignore[arg-type]
    assert expected[key] == [2, 4]


def test_policies_as_upstream_sends_them_but_for_its_misspelling() -> None:
    values = {
        "maximum_task_retries": 1,
        "maximum_retries": 2,
        "maximum_time_in_queue": 3,
        "priority": 4,
        "leave_in_queue": True,
        "ignore_task_failures": True,
        "run_serial_tasks_on_all_nodes": True,
        "report_job_success_on_task_failure": True,
    }
    theirs, ours = prominence.JobPolicies(), JobPolicies()
    for field, value in values.items():
        setattr(theirs, field, value)
        setattr(ours, field, value)
    expected = theirs.to_dict()
    expected["ignoreTaskFailures"] = expected.pop("ignoreTaskTailures")
    assert ours.json() == expected


def test_the_rest_of_a_job_as_upstream_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    token = base64.urlsafe_b64encode(b'{"exp": 99999999999}').rstrip(b"=").decode()
    monkeypatch.setenv("PROMINENCE_TOKEN", f"eyJhbGciOiJIUzI1NiJ9.{token}.eA")  # upstream wants one even offline
    theirs, ours = prominence.Job(), Job()
    for job, module in ((theirs, prominence), (ours, None)):
        task = module.Task() if module else Task()
        task.image, task.command = "centos:7", "hostname"
        job.tasks.append(task)
        job.name, job.labels = "wire", {"a": "b"}
        job.output_files, job.output_directories = ["o"], ["d"]
    theirs.resources, ours.resources = prominence.Resources(walltime=5), Resources(walltime=5)
    theirs.input_files, ours.input_files = [prominence.InputFile("i", "x")], [InputFile("i", "x")]
    theirs.artifacts, ours.artifacts = [prominence.Artifact("u", "d", "/m")], [Artifact("u", "d", "/m")]
    theirs.notifications = [prominence.Notification("jobFinished", "email")]
    ours.notifications = [Notification("jobFinished", "email")]
    assert ours.json() == theirs.to_dict()
