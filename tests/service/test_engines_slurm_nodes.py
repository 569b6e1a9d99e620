"""Slurm with two nodes, each a slurmd of its own with a host's name of its own, on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import one_node_slurm
import pytest
from one_node_slurm import OneNodeSlurm
from people import Person
from rank_calls import where
from service_program import ServiceProgram

from prominence_executor import ProminenceExecutor, Resources

Until = Callable[..., None]

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def two_nodes(nothing_is_left: None) -> Iterator[OneNodeSlurm]:
    reason = one_node_slurm.missing_for_nodes()
    if reason:
        pytest.skip(reason)
    running = OneNodeSlurm(nodes=2)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def service(two_nodes: OneNodeSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProgram]:
    options = ("--engine", "slurm", "--engine-option", "poll_seconds=0.5")
    directory = tmp_path_factory.mktemp("two-nodes") / "state"
    with ServiceProgram(directory, *options, env=two_nodes.variables) as running:
        yield running


def meet(folder: str, name: int) -> str:
    """Wait until the other one is there, too."""
    Path(folder, str(name)).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("the other one did not come")
        time.sleep(0.05)
    return socket.gethostname()


def test_two_jobs_run_on_the_two_nodes_at_once(
    service: ServiceProgram, two_nodes: OneNodeSlurm, tmp_path: Path
) -> None:
    with ProminenceExecutor(service.url, service.token, resources=Resources(cpus=4)) as executor:
        assert sorted(executor.map(meet, [str(tmp_path)] * 2, range(2), timeout=90)) == two_nodes.nodes


@pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None, reason="no mpirun or no mpi4py here"
)
@pytest.mark.parametrize("each", [1, 2])
def test_ranks_are_spread_over_the_nodes(service: ServiceProgram, two_nodes: OneNodeSlurm, each: int) -> None:
    with ProminenceExecutor(service.url, service.token) as executor:
        mpi = executor.with_options(task_type="openmpi", resources=Resources(nodes=2, cpus=2), procs_per_node=each)
        size = 2 * each
        assert mpi.submit(where).result(90) == [
            (rank, size, sum(range(size)), two_nodes.nodes[rank // each]) for rank in range(size)
        ]


def test_a_job_whose_node_fails_says_so(service: ServiceProgram, two_nodes: OneNodeSlurm, until: Until) -> None:
    user = Person(service.url, service.token)
    job = user.create("sleep 600", resources={"cpus": 4})
    until(lambda: user.job(job)["status"] == "running", 60)
    node = two_nodes.asked("squeue", "-h", "-t", "running", "-o", "%N")
    two_nodes.asked("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        ended = user.ended(job, 60)
    finally:
        two_nodes.asked("scontrol", "update", f"nodename={node}", "state=resume")
    assert (ended["status"], ended["statusReason"]) == ("failed", f"Job was evicted: its node failed ({node})")


def test_of_nodes_of_several_sizes_the_largest_counts(service: ServiceProgram, two_nodes: OneNodeSlurm) -> None:
    user = Person(service.url, service.token)
    ended = user.ended(user.create("true", resources={"memory": 40}), 90)
    assert (ended["status"], ended["execution"]["node"]) == ("completed", two_nodes.nodes[0])


def test_a_serial_task_runs_on_all_nodes(service: ServiceProgram, two_nodes: OneNodeSlurm) -> None:
    user = Person(service.url, service.token)
    program = "import os, socket; print(socket.gethostname(), os.environ['PROMINENCE_NODE_NUM'], os.getcwd())"
    job = user.create(
        "python3 p.py",
        files={"p.py": program},
        resources={"nodes": 2, "cpus": 2},
        policies={"runSerialTasksOnAllNodes": True},
    )
    ended = user.ended(job, 90)
    assert ended["execution"]["tasks"][0]["exitCode"] == 0
    said = [user("GET", f"/jobs/{job}/stdout?node={node}").text.split() for node in range(2)]
    assert [words[:2] for words in said] == [[name, str(number)] for number, name in enumerate(two_nodes.nodes)]
    assert said[0][2] == said[1][2]  # in the directory that they have in common
    assert [user("GET", f"/jobs/{job}/stderr?node={node}").text for node in range(2)] == ["", ""]
    assert (ended["execution"]["site"], ended["execution"]["node"]) == ("tests", two_nodes.nodes[0])


def test_a_serial_task_that_fails_on_another_node_has_failed_and_ends_on_all_when_it_is_deleted(
    service: ServiceProgram, two_nodes: OneNodeSlurm, until: Until
) -> None:
    user = Person(service.url, service.token)
    everywhere = {"resources": {"nodes": 2}, "policies": {"runSerialTasksOnAllNodes": True}}
    ended = user.ended(user.create("sh -c 'exit $PROMINENCE_NODE_NUM$PROMINENCE_NODE_NUM'", **everywhere), 90)
    assert ended["execution"]["tasks"][0]["exitCode"] == 11
    job = user.create("sh -c 'echo up; exec sleep 987654'", **everywhere)
    until(lambda: all(user("GET", f"/jobs/{job}/stdout?node={node}").text == "up\n" for node in range(2)), 90)
    assert user("DELETE", f"/jobs/{job}").json() == {}
    until(lambda: not [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"987654" in read(entry)], 60)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
