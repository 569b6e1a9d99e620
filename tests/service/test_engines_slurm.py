"""Jobs and calls through a real Slurm of one node: what users see is what they see of this machine's engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from one_node_slurm import OneNodeSlurm
from people import Person

from prominence_executor import JobDeletedError, JobError, ProminenceExecutor, Resources
from prominence_executor.service import LocalService
from prominence_executor.service.serving import who_serves

Until = Callable[..., None]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.once


@pytest.fixture
def user(on_slurm: LocalService) -> Person:
    return Person(on_slurm.url, on_slurm.token)


def executor_on(service: LocalService) -> ProminenceExecutor:
    return ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5))


def square(number: int) -> int:
    return number * number


def test_calls_return_what_they_return_and_raise_what_they_raise(on_slurm: LocalService) -> None:
    with executor_on(on_slurm) as executor:
        right, wrong = executor.submit(square, 7), executor.submit(divmod, 1, 0)
        assert right.result(60) == 49
        with pytest.raises(ZeroDivisionError):
            wrong.result(60)


def test_many_calls_are_few_submissions(on_slurm: LocalService, slurm: OneNodeSlurm) -> None:
    with executor_on(on_slurm) as executor:
        before = set(slurm.asked("squeue", "-h", "-t", "all", "-r", "-o", "%F").split())
        assert list(executor.map(square, range(120), chunksize=10)) == [square(number) for number in range(120)]
        after = set(slurm.asked("squeue", "-h", "-t", "all", "-r", "-o", "%F").split())
    assert 1 <= len(after - before) <= 5  # twelve jobs


def test_warm_workers_run_on_slurm(on_slurm: LocalService) -> None:
    with ProminenceExecutor(on_slurm.url, on_slurm.token, workers="warm", max_workers=2) as executor:
        assert sum(executor.map(square, range(100))) == sum(map(square, range(100)))


def test_a_job_leaves_output_logs_and_facts_and_can_be_looked_into(user: Person, until: Until) -> None:
    program = "import time, os; print(os.getcwd(), flush=True); open('out', 'w').write('content'); time.sleep(100)"
    job = user.create("python3 p.py", files={"p.py": program}, outputFiles=["out"])
    until(lambda: user.stdout(job), 60)
    until(lambda: user.job(job)["status"] == "running", 60)  # a moment later the service has heard of it
    assert user("POST", f"/jobs/{job}/exec?command=cat,out").text == "content"
    assert user("PUT", f"/jobs/{job}/snapshot?path=out").json() == {}
    assert "url" in user("GET", f"/jobs/{job}/snapshot").json()
    assert user("DELETE", f"/jobs/{job}").json() == {}
    assert user.job(job)["status"] == "deleted"
    home = Path(user.stdout(job).strip())
    until(lambda: not home.exists(), 30)


def test_what_was_cancelled_is_gone_from_slurm(on_slurm: LocalService, slurm: OneNodeSlurm, until: Until) -> None:
    with executor_on(on_slurm) as executor:
        running = executor.submit(time.sleep, 600)
        until(running.running, 60)
        running.terminate()
        with pytest.raises((JobDeletedError, CancelledError)):
            running.result(30)
    until(lambda: not slurm.asked("squeue", "-h", "-o", "%i"), 30)


def test_a_job_that_waits_can_be_deleted_and_never_runs(user: Person, slurm: OneNodeSlurm, until: Until) -> None:
    large = [user.create("sleep 600", resources={"cpus": 8}) for _ in range(2)]
    until(lambda: "running" in [user.job(job)["status"] for job in large], 60)
    assert user("DELETE", "/jobs?id=" + ",".join(map(str, large))).json() == {}
    assert {user.job(job)["status"] for job in large} == {"deleted"}
    until(lambda: not slurm.asked("squeue", "-h", "-o", "%i"), 30)


def test_a_job_over_its_walltime_is_killed(user: Person) -> None:
    ended = user.ended(user.create("sleep 600", resources={"walltime": 1}), 60)
    assert (ended["status"], ended["statusReason"]) == ("killed", "Walltime limit exceeded")
    assert ended["execution"]["tasks"]


def test_a_job_that_an_operator_cancels_is_deleted(user: Person, slurm: OneNodeSlurm, until: Until) -> None:
    job = user.create("sleep 600")
    until(lambda: user.job(job)["status"] == "running", 60)
    slurm.asked("scancel", "--user=root")
    ended = user.ended(job, 60)
    assert ended["status"] == "deleted"
    assert ended["statusReason"].startswith("Job was cancelled on the cluster")


def test_a_job_that_fails_is_run_again_as_often_as_it_may(user: Person, tmp_path: Path) -> None:
    program = f"import sys; open({str(tmp_path / 'runs')!r}, 'a').write('.'); sys.exit(3)"
    job = user.create("python3 p.py", files={"p.py": program}, policies={"maximumRetries": 2})
    ended = user.ended(job, 90)
    assert (ended["status"], ended["execution"]["retries"]) == ("completed", 2)
    assert (tmp_path / "runs").read_text() == "..."


def test_a_run_is_attached_to(on_slurm: LocalService) -> None:
    with ProminenceExecutor(on_slurm.url, on_slurm.token, on_interrupt="leave") as first:
        future = first.submit(square, 12)
        with ProminenceExecutor.attach(first.run_id, on_slurm.url, on_slurm.token) as second:
            (again,) = second.futures()
            assert again.result(60) == 144
        assert future.result(60) == 144


def test_others_are_refused_where_jobs_run_under_one_account(on_slurm: LocalService) -> None:
    other = Person(on_slurm.url, on_slurm.token_for("somebody else"))
    assert other("GET", "/jobs").status_code == 401


def test_resources_are_those_of_the_cluster(user: Person) -> None:
    (site,) = user("GET", "/resources").json()["existing"]
    assert site["capacity"] == {"cpus": 8, "memory": 62}


def test_a_controller_that_is_away_is_waited_for(user: Person, slurm: OneNodeSlurm, until: Until) -> None:
    slurm.stop_controller()
    try:
        job = user.create("true")
        assert user.job(job)["status"] == "idle"
    finally:
        slurm.start_controller()
    assert user.ended(job, 90)["status"] == "completed"


def test_programs_start_the_service_or_find_it_and_start_it_again(stays: Path) -> None:
    engine = {"dir": str(stays)}
    with ProminenceExecutor(url="slurm", engine=engine, on_interrupt="leave") as first:
        serving = who_serves(stays)
        assert serving is not None
        waiting = first.submit(square, 9)
        with ProminenceExecutor(url="slurm", engine=engine) as second:
            assert second.submit(square, 3).result(60) == 9
        assert who_serves(stays) == serving
        os.kill(serving.pid, signal.SIGKILL)  # as a site's reaper does
        with ProminenceExecutor(url="slurm", engine=engine) as third:
            again = who_serves(stays)
            assert again is not None
            assert (again.url, again.pid != serving.pid) == (serving.url, True)
            assert third.submit(square, 4).result(60) == 16
        assert waiting.result(60) == 81


def test_a_second_service_of_a_directory_says_where_the_first_one_is(stays: Path) -> None:
    with ProminenceExecutor(url="slurm", engine={"dir": str(stays)}):
        said = _refused(stays)
    serving = who_serves(stays)
    assert serving is not None
    assert said.startswith(f"another service uses the directory {stays}: process {serving.pid} on ")


def test_a_service_that_is_idle_ends(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
               "--engine", "slurm", "--ends-when-idle", "0.5"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("=")[2].strip()
        process.stdout.readline()
        user = Person(url, (tmp_path / "state" / "token").read_text())
        job = user.create("sleep 3")  # longer than it may be idle
        assert process.wait(60) == 0
    with LocalService(tmp_path / "state", engine="slurm") as service:
        assert Person(service.url, service.token).job(job)["status"] == "completed"


def test_what_is_said_to_slurm_goes_with_each_job(on_slurm: LocalService, slurm: OneNodeSlurm, until: Until) -> None:
    with executor_on(on_slurm) as executor:
        running = executor.with_options(engine={"partition": "short"}, resources=Resources(walltime=20)).submit(
            time.sleep, 600
        )
        wrong = [
            executor.with_options(engine={name: value}).submit(square, 1)
            for name, value in (("chdir", "/"), ("partition", "short"), ("partition", "long"))
        ]
        until(running.running, 60)
        assert slurm.asked("squeue", "-h", "-o", "%P") == "short"
        running.terminate()
        for future in wrong:  # no option, a walltime above the limit, no partition
            with pytest.raises(JobError, match="no site can give the job the resources"):
                future.result(60)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["partition=long"], "Slurm has no partition 'long'; there are main, short, closed"),
        (["nodes=3"], "'nodes' is no option for Slurm"),
        (["extra=--array=1-9"], "--array is set by the service"),
    ],
)
def test_what_slurm_does_not_have_is_said_in_a_sentence(
    slurm: OneNodeSlurm, tmp_path: Path, options: list[str], sentence: str
) -> None:
    said = _refused(tmp_path / "state", *(word for option in options for word in ("--engine-option", option)))
    assert said.startswith(sentence)
    assert said.count("\n") == 1


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _refused(tmp_path / "state").startswith("there is no sbatch here")


def test_a_walltime_above_the_partitions_limit_is_said(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    with LocalService(tmp_path / "state", engine="slurm", engine_options={"partition": "short"}) as service:
        user = Person(service.url, service.token)
        ended = user.ended(user.create("true", resources={"walltime": 31}))
    reason = "No matching resources: a walltime of 31 minutes is above the partition's limit of 30"
    assert (ended["status"], ended["statusReason"]) == ("failed", reason)


def test_more_than_a_node_has_is_said(user: Person) -> None:
    ended = user.ended(user.create("true", resources={"cpus": 99}), 60)
    reason = "No matching resources: no node has 99 CPUs; the largest of the partition has 8"
    assert (ended["status"], ended["statusReason"]) == ("failed", reason)


def test_what_slurm_refuses_is_said_in_its_words(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    options = {"extra": "--reservation=none"}
    with LocalService(tmp_path / "state", engine="slurm", engine_options=options) as service:
        user = Person(service.url, service.token)
        ended = user.ended(user.create("true"))
    assert ended["status"] == "failed"
    assert ended["statusReason"].startswith("No matching resources: Batch job submission failed: ")


def _refused(directory: Path, *options: str) -> str:
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(directory)]
    done = subprocess.run(
        [*command, "--engine", "slurm", *options], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done
    return done.stderr
