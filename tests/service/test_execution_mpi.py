"""Jobs of several CPUs, nodes and processes on the embedded service, and what their ranges and policies choose."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prominence_executor import InvalidRequestError, Job, JobPolicies, ProminenceClient, Resources, Task
from prominence_executor.service import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def ended(client: ProminenceClient, task: Task, resources: Resources, policies: JobPolicies | None = None) -> Job:
    job = Job(client=client, resources=resources, policies=policies or JobPolicies())
    job.tasks.append(task)
    job.create()
    job.wait(60)
    return job


def python(code: str, **options: object) -> Task:
    return Task(image="any", command=f'python3 -c "{code}"', **options)  # type: ignore[arg-type]


RANK = "import os; e = os.environ; print(e['OMPI_COMM_WORLD_RANK'], e['OMPI_COMM_WORLD_SIZE'], e['COLOUR'])"


@mpirun
@pytest.mark.parametrize(("each", "count"), [(None, 4), (1, 2)])
def test_a_parallel_task_has_a_rank_for_each_cpu_of_each_node_or_as_many_as_it_says(
    client: ProminenceClient, each: int | None, count: int
) -> None:
    task = python(RANK, type="openmpi", procs_per_node=each, env={"COLOUR": "red"})
    job = ended(client, task, Resources(cpus=2, nodes=2, walltime=5))
    assert sorted(job.stdout().splitlines()) == [f"{rank} {count} red" for rank in range(count)]
    assert job.status == "completed"


@mpirun
def test_a_rank_that_fails_ends_the_task_with_its_exit_code(client: ProminenceClient) -> None:
    code = "import os, sys, time; time.sleep(30) if os.environ['OMPI_COMM_WORLD_RANK'] != '1' else sys.exit(3)"
    job = ended(client, python(code, type="openmpi"), Resources(cpus=2, walltime=5))
    assert client.describe_job(job.id)["execution"]["tasks"][0]["exitCode"] == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["intelmpi", "mpich"])
@mpirun
def test_the_other_kinds_of_parallel_tasks_are_started_by_the_images_own_mpirun(
    client: ProminenceClient, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Here it is Open MPI's, which runs no more ranks than there are cores, and none for root, unless told otherwise.
    allowed = {f"OMPI_ALLOW_RUN_AS_ROOT{more}": "1" for more in ("", "_CONFIRM")}
    oversubscribed = {"OMPI_MCA_rmaps_base_oversubscribe": "1"}
    task = python("print('rank')", type=kind, env={**allowed, **oversubscribed})
    assert ended(client, task, Resources(cpus=2, walltime=5)).stdout() == "rank\n" * 2


@pytest.mark.parametrize("kind", ["openmpi", "intelmpi", "mpich"])
def test_without_mpirun_a_parallel_task_ends_as_one_whose_command_is_not_found(
    client: ProminenceClient, kind: str
) -> None:
    there = ended(client, Task(image="any", command="no-such-program"), Resources(walltime=5))
    job = ended(client, python("print('rank')", type=kind, env={"PATH": "/nowhere"}), Resources(walltime=5))
    assert job.stderr() == there.stderr().replace("no-such-program", "mpirun")
    codes = [client.describe_job(each.id)["execution"]["tasks"][0]["exitCode"] for each in (job, there)]  # type: ignore[arg-type]
    assert codes == [255, 255]


@mpirun
def test_a_deleted_parallel_job_leaves_no_rank_behind(client: ProminenceClient, until: Until) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    job = Job(client=client, resources=Resources(cpus=2, nodes=2, walltime=5), tasks=[python(code, type="openmpi")])
    job.create()
    until(lambda: len(job.stdout().splitlines()) == 4)
    ranks = [int(line) for line in job.stdout().splitlines()]
    job.delete()
    until(lambda: not any(alive(rank) for rank in ranks))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@mpirun
def test_ranks_find_each_other_with_mpi4py(client: ProminenceClient) -> None:
    pytest.importorskip("mpi4py")
    code = "from mpi4py import MPI; w = MPI.COMM_WORLD; print(w.allreduce(w.rank), w.size)"
    job = ended(client, python(code, type="openmpi"), Resources(cpus=2, nodes=2, walltime=5))
    assert job.stdout() == "6 4\n" * 4, job.stderr()


WHERE = "import os; print(os.environ['PROMINENCE_NODE_NUM'], os.environ['PROMINENCE_NODES'])"


def test_a_serial_task_runs_on_the_first_node_or_on_all(client: ProminenceClient) -> None:
    resources = Resources(nodes=3, walltime=5)
    first = ended(client, python(WHERE), resources)
    assert [first.stdout(node=node) for node in range(3)] == ["0 3\n", "", ""]
    every = ended(client, python(WHERE), resources, JobPolicies(run_serial_tasks_on_all_nodes=True))
    assert [every.stdout(node=node) for node in range(3)] == ["0 3\n", "1 3\n", "2 3\n"]


def test_a_serial_task_fails_when_it_fails_on_one_node(client: ProminenceClient) -> None:
    code = "import os, sys; sys.exit(int(os.environ['PROMINENCE_NODE_NUM']) * 7)"
    job = ended(client, python(code), Resources(nodes=2, walltime=5), JobPolicies(run_serial_tasks_on_all_nodes=True))
    assert client.describe_job(job.id)["execution"]["tasks"][0]["exitCode"] == 7  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "got"),
    [  # of a service with 8 CPUs
        (Resources(cpus_range=(2, 4)), (4, 1, 1)),
        (Resources(cpus_range=(4, 100)), (8, 1, 1)),
        (Resources(cpus_options=(2, 16)), (2, 1, 1)),
        (Resources(cpus_options=(2, 4)), (4, 1, 1)),
        (Resources(cpus=2, total_cpus_range=(2, 6)), (2, 1, 3)),
        (Resources(cpus=4, memory_per_cpu=2), (4, 8, 1)),
    ],
)
def test_a_job_gets_the_most_that_it_asks_for_and_the_machine_has(
    client: ProminenceClient, asked: Resources, got: tuple[int, int, int]
) -> None:
    asked.walltime = 5
    names = ("CPUS", "MEMORY", "NODES")
    code = f"import os; print(*(os.environ['PROMINENCE_' + name] for name in {names}))"
    job = ended(client, python(code), asked)
    assert job.stdout().split() == [str(number) for number in got]
    provisioned = client.describe_job(job.id)["execution"]["provisionedResources"]  # type: ignore[arg-type]
    assert (provisioned["cpus"], provisioned["memory"], provisioned["nodes"]) == got


def test_a_sidecar_runs_beside_the_other_tasks_and_ends_with_them(client: ProminenceClient) -> None:
    beside = "import time; open('up', 'w').close(); time.sleep(600)"
    main = "import os, time; print([time.sleep(0.02) for n in range(500) if not os.path.exists('up')] is not None)"
    job = Job(client=client, resources=Resources(walltime=5), output_files=["up"])
    job.tasks += [python(beside, type="sidecar"), python(main)]
    job.create()
    job.wait(30)
    assert (job.status, job.stdout()) == ("completed", "True\n")
    assert len(client.describe_job(job.id)["execution"]["tasks"]) == 1  # type: ignore[arg-type]  # as recorded


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cpus": 1, "cpusRange": [1, 2]}, "only one of"),
        ({"cpusRange": [2, 1]}, "must not be above"),
        ({"cpusOptions": [1]}, "array of two integers"),
        ({"cpus": 1, "nodes": 1, "totalCpusRange": [1, 2]}, "cannot both be defined"),
        ({"cpus": 1, "nodes": 1000}, "nodes must be at most 128"),
    ],
)
def test_resources_that_exclude_each_other_are_refused(
    client: ProminenceClient, change: dict[str, object], sentence: str
) -> None:
    task = {"image": "any", "runtime": "singularity", "cmd": "true"}
    with pytest.raises(InvalidRequestError, match=sentence):
        client.create_job({"tasks": [task], "resources": {"memory": 1, "disk": 1, **change}})
