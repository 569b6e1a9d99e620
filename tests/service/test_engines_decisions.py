"""What an engine decides without a batch system: Slurm's words, options, and which jobs are submitted together."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.service.containers.apptainer import devices
from prominence_executor.service.engines import ends
from prominence_executor.service.engines.base import Room
from prominence_executor.service.engines.batches import grouped
from prominence_executor.service.engines.listening import lag_of, may_run, pause_after
from prominence_executor.service.engines.slurm import words
from prominence_executor.service.engines.slurm.options import arguments, check_options
from prominence_executor.service.engines.slurm.sbatch import environment, script
from prominence_executor.service.engines.system import (
    Batch,
    Gone,
    Running,
    Shape,
    SystemAway,
    SystemFull,
    SystemRefuses,
    Waiting,
)
from prominence_executor.service.node import oom
from prominence_executor.service.node.elsewhere import insist, memory_considered, passed_on, safe
from prominence_executor.service.node.machine import loopback, loopback_of
from prominence_executor.service.node.outcome import Outcome
from prominence_executor.service.sandbox.sandbox import Sandbox

SMALL = Shape(1, 1, 1, 1, 600, 0)
LARGE = Shape(8, 16, 1, 1, 600, 0)


@given(st.lists(st.sampled_from([SMALL, LARGE])), st.integers(1, 5))
def test_jobs_of_one_shape_go_together_and_each_goes_once(shapes: list[Shape], largest: int) -> None:
    wanted = [(shape, f"t{number}", number) for number, shape in enumerate(shapes)]
    groups = grouped(wanted, largest)
    assert sorted(job for _, _, jobs in groups for job in jobs) == list(range(len(shapes)))
    for shape, tickets, jobs in groups:
        assert 1 <= len(jobs) <= largest
        assert tickets == [f"t{job}" for job in jobs]
        assert {shapes[job] for job in jobs} == {shape}
    assert len(groups) <= len(shapes) // largest + 2


def test_states_are_read_by_batch_and_number_and_of_two_the_living_one_counts() -> None:
    text = "px-a-1|0|RUNNING|None|n1|7\npx-a-1|1|PENDING|Resources||7\npx-a-2|N/A|TIMEOUT|TimeLimit|n2|8\n"
    text += "px-a-1|0|COMPLETED|None|n1|9\nother|0|RUNNING|None|n1|10\nnonsense\n"
    assert words.states(text, "px-a-") == {
        ("px-a-1", 0): Running("n1"), ("px-a-1", 1): Waiting("Resources"), ("px-a-2", 0): Gone(ends.WALLTIME, "n2"),
    }  # fmt: skip
    assert words.numbers(text, {"px-a-2"}) == {"px-a-2": "8"}


@pytest.mark.parametrize(
    ("reason", "in_vain"),
    [("Resources", False), ("Priority", False), ("AssocMaxJobsLimit", False), ("QOSMaxCpuPerUserLimit", False),
     ("QOSMaxWallDurationPerJobLimit", True), ("AssocMaxNodePerJobLimit", True), ("BadConstraints", True)],
)  # fmt: skip
def test_a_job_that_waits_for_what_does_not_come_by_itself_waits_in_vain(reason: str, in_vain: bool) -> None:
    assert words.state_of("PENDING", reason, "") == Waiting(reason, in_vain)
    assert words.state_of("RUNNING", reason, "n1") == Running("n1")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("infinite", None), ("30:00", 30), ("1:00:00", 60), ("1-00:00:00", 1440), ("2-12", 3600), ("n/a", None)],
)
def test_time_limits_are_read(text: str, minutes: float | None) -> None:
    assert words.minutes(text) == minutes


FAILED = "sbatch: error: Batch job submission failed: "
POLICY = FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("said", "size", "others", "meaning"),
    [
        (FAILED + "Unable to contact slurm controller (connect failure)", 1, False, SystemAway),
        (FAILED + "Socket timed out on send/recv operation", 5, True, SystemAway),
        ("", 1, False, SystemAway),
        (FAILED + "Requested node configuration is not available", 5, True, SystemRefuses),
        (FAILED + "Requested time limit is invalid (missing or exceeds some limit)", 5, True, SystemRefuses),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + POLICY, 1, False, SystemFull),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + POLICY, 500, True, SystemFull),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit\n" + POLICY, 500, True, SystemRefuses),
        ("sbatch: error: AssocMaxNodePerJobLimit\n" + POLICY, 1, True, SystemRefuses),
        (POLICY, 500, False, SystemFull),
        (POLICY, 1, True, SystemFull),
        (POLICY, 1, False, SystemRefuses),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", 1, False, SystemFull),
        (FAILED + "Resource temporarily unavailable", 5, False, SystemFull),
        (FAILED + "Slurm backup controller in standby mode", 5, True, SystemAway),
        (FAILED + "I/O error writing script/environment to file", 5, True, SystemAway),
        (FAILED + "Unexpected message received", 1, False, SystemAway),
        (FAILED + "Required partition not available (inactive or drain)", 1, False, SystemFull),
        (FAILED + "Requested partition configuration not available now", 5, True, SystemFull),
        (FAILED + "Invalid job array specification", 2000, False, SystemFull),
        (FAILED + "Invalid job array specification", 1, False, SystemRefuses),
    ],
)
def test_what_sbatch_says_is_for_now_for_this_many_or_for_ever(
    said: str, size: int, others: bool, meaning: type[Exception]
) -> None:
    why = words.why_not(said, size, others)
    assert type(why) is meaning
    assert "sbatch:" not in str(why)


@pytest.mark.parametrize(
    ("said", "away"),
    [("scancel: error: Kill job error on job id 7: Unable to contact slurm controller (connect failure)", True),
     ("scancel: error: Kill job error on job id 7: Socket timed out on send/recv operation", True),
     ("scancel: error: Kill job error on job id 7: Invalid job id specified", False), ("", False)],
)  # fmt: skip
def test_a_cancellation_that_slurm_has_not_heard_is_told_from_one_of_what_is_gone(said: str, away: bool) -> None:
    assert words.is_away(said) is away


def test_the_accounting_is_a_second_opinion() -> None:
    assert words.accounted_cause("TIMEOUT|0:0\n") == ends.WALLTIME
    assert words.accounted_cause("CANCELLED by 1000|0:15") == ends.CANCELLED
    assert words.accounted_cause("OUT_OF_MEMORY|0:125") == ends.MEMORY
    assert words.accounted_cause("FAILED|77:0") == ends.NO_DIRECTORY
    assert words.accounted_cause("COMPLETED|0:0") == words.accounted_cause("") == ""


@pytest.mark.parametrize(
    ("config", "size"),
    [("MaxArraySize            = 1001\n", 1001), ("", 1),
     ("MaxArraySize = 50000\nSchedulerParameters = bf_continue,max_array_tasks=1000,defer\n", 1000)],
)  # fmt: skip
def test_arrays_are_as_large_as_they_may_be(config: str, size: int) -> None:
    assert words.largest_array(config) == size


def test_a_task_that_the_kernel_killed_for_lack_of_memory_is_told_from_one_that_failed(tmp_path: Path) -> None:
    ran = Outcome("completed", None, {"tasks": [{"exitCode": -9}]}, {}, task_failed=True)
    assert memory_considered(ran, 0) is ran
    over = memory_considered(ran, 1)
    assert (over.status, over.reason, over.execution) == ("killed", "Job used too much memory", ran.execution)
    well = Outcome("completed")
    assert memory_considered(well, 1) is well  # one of its processes, which it did without


def test_kills_for_lack_of_memory_are_counted_by_either_version_of_control_groups(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for version, line, name in ((2, "0::/a/job", "a/job/memory.events"),
                                (1, "3:cpu:/\n4:memory:/a/job", "memory/a/job/memory.oom_control")):  # fmt: skip
        own.write_text(line + "\n")
        file = tmp_path / str(version) / name
        assert oom.killed(own, tmp_path / str(version)) == 0
        file.parent.mkdir(parents=True)
        file.write_text("low 0\noom 3\noom_kill 2\n")
        assert oom.killed(own, tmp_path / str(version)) == 2
    assert oom.killed(tmp_path / "none", tmp_path) == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 400))))
def test_jobs_of_one_array_are_cancelled_by_one_word_each_once(jobs: list[tuple[int, int]]) -> None:
    found = []
    for word in words.together([f"{batch}_{number}" for batch, number in jobs]):
        batch, _, numbers = word.partition("_")
        for part in numbers.strip("[]").split(","):
            first, _, last = part.partition("-")
            found += [(int(batch), number) for number in range(int(first), int(last or first) + 1)]
    assert sorted(found) == sorted(set(jobs))


def test_jobs_without_an_array_are_cancelled_by_their_numbers() -> None:
    assert words.together(["7", "8_0", "8_1", "8_2", "8_5"]) == ["7", "8_[0-2,5]"]


def test_a_cancelled_run_is_let_go_only_where_it_surely_does_not_run() -> None:
    assert not may_run(None, fresh=True, claimed=False)  # nobody has tried to submit it
    assert may_run(None, fresh=False, claimed=False)  # there was no answer, and it is not known whether it came through
    assert not may_run("", fresh=False, claimed=False)  # it is known: it did not
    assert may_run("", fresh=False, claimed=True)  # a node has it


def test_tasks_see_which_accelerators_are_theirs_and_of_the_rest_what_was_asked_for() -> None:
    node = {"CUDA_VISIBLE_DEVICES": "1", "SLURM_NNODES": "2", "SECRET": "x"}
    assert passed_on(node, ()) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert passed_on(node, ("SLURM_",)) == {"CUDA_VISIBLE_DEVICES": "1", "SLURM_NNODES": "2"}
    assert devices(node) == ["--nv"]
    assert devices({"ROCR_VISIBLE_DEVICES": "0"}) == ["--rocm"]
    assert devices({"CUDA_VISIBLE_DEVICES": ""}) == devices({}) == []


def test_a_python_of_an_environment_module_finds_its_libraries_on_the_node_and_in_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/modules/lib")
    sandbox = Sandbox(tmp_path, tmp_path / "bin")
    assert environment()["LD_LIBRARY_PATH"] == sandbox.environment({})["LD_LIBRARY_PATH"] == "/modules/lib"
    assert sandbox.environment({"LD_LIBRARY_PATH": "/own"})["LD_LIBRARY_PATH"] == "/own"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert "LD_LIBRARY_PATH" not in {**environment(), **sandbox.environment({})}


def test_tasks_on_other_machines_have_no_token_for_a_port_that_is_anybodys_there() -> None:
    env = {"PROMINENCE_TOKEN": "secret", "PROMINENCE_URL": "http://127.0.0.1:1/prominence/v1"}
    assert safe(env, "a", "a") == safe(env, "", "b") == env
    assert safe(env, "a", "b") == {**env, "PROMINENCE_TOKEN": ""}
    assert loopback_of(env["PROMINENCE_URL"]) == loopback()
    assert {loopback_of(url) for url in ("https://127.0.0.1:1", "http://10.0.0.1:1", "http://node:1")} == {""}


@pytest.mark.parametrize(
    ("text", "members"),
    [("3", [3]), ("N/A", [0]), ("", [0]), ("[4-7%2]", [4, 5, 6, 7]), ("0-3,8", [0, 1, 2, 3, 8]), ("0-8:4", [0, 4, 8])],
)
def test_a_line_may_be_about_several_jobs_of_an_array(text: str, members: list[int]) -> None:
    assert words.members(text) == members
    (line,) = [f"px-a-1|{text}|PENDING|Priority||7"]
    assert words.states(line, "px-a-") == {("px-a-1", number): Waiting("Priority") for number in members}


@pytest.mark.parametrize(
    ("printed", "number"),
    [("7\n", "7"), ("7;cluster\n", "7"), ("Welcome, 12 jobs wait\n7\nok\n", "7"), ("Welcome\n", None), ("", None)],
)
def test_the_number_of_a_batch_is_found_among_what_a_site_says(printed: str, number: str | None) -> None:
    assert words.submitted_as(printed) == number


def test_what_a_full_quota_does_not_let_be_written_is_written_when_there_is_room() -> None:
    errors = [OSError(errno.EDQUOT, "Disk quota exceeded")]

    def write() -> str:
        if errors:
            raise errors.pop()
        return "written"

    assert insist(write) == "written"
    with pytest.raises(FileNotFoundError):  # which no time heals
        insist(lambda: os.mkdir("/proc/new"))


def test_room_is_that_of_each_node_once_and_headings_are_no_nodes() -> None:
    node = "n1|2/6/0/8|64000|4096|\n"
    assert words.room(f"CLUSTER: a\n{node}{node}n2|0/4/4/8|n/a|0|\n") == Room(8, 62, 6, 58)


def test_a_job_that_runs_on_another_cluster_of_a_federation_is_not_gone() -> None:
    assert words.state_of("REVOKED", "None", "") == Running("")


def test_what_could_not_begin_waits_longer_each_time() -> None:
    assert [pause_after(count) for count in (1, 2, 3, 20, 10**9)] == [10, 20, 40, 300, 300]


def test_file_systems_that_cache_what_is_not_there_are_given_time() -> None:
    assert lag_of("nfs4") == lag_of("cifs") > 60  # seconds for which they keep it
    assert lag_of("ext4") == lag_of("lustre") == lag_of("") <= 10


@pytest.mark.parametrize(
    ("gone", "status", "reason"),
    [
        (Gone(ends.WALLTIME), "killed", "Walltime limit exceeded"),
        (Gone(ends.MEMORY), "killed", "Job used too much memory"),
        (Gone(ends.CANCELLED, "n1"), "deleted", "Job was cancelled on the cluster (n1)"),
        (Gone(ends.NODE, "n1"), "failed", "Job was evicted: its node failed (n1)"),
        (Gone(ends.PREEMPTED), "failed", "Job was evicted: it was preempted"),
        (Gone(), "failed", "Job ended on the cluster without an outcome: /dir/engine/log may say why"),
    ],
)
def test_what_ends_a_job_has_the_services_words(gone: Gone, status: str, reason: str) -> None:
    outcome = ends.outcome_of(gone, "/dir", "/python", "/program")
    assert (outcome.status, outcome.reason) == (status, reason)


def test_a_script_says_by_its_exit_status_what_its_node_does_not_see(tmp_path: Path) -> None:
    import subprocess

    def run(directory: Path, python: str, program: Path = Path(__file__)) -> int:
        batch = Batch("px", SMALL, 1, (python, "-c", "0"), (directory, Path(python), program))
        return subprocess.run(["/bin/sh"], input=script(batch).encode(), check=False).returncode

    assert run(tmp_path, "/bin/true") == 0
    assert words.exit_cause(f"JobState=FAILED ExitCode={run(tmp_path / 'none', '/bin/true')}:0") == ends.NO_DIRECTORY
    assert words.exit_cause(f"JobState=FAILED ExitCode={run(tmp_path, '/bin/none')}:0") == ends.NO_PYTHON
    no_program = run(tmp_path, "/bin/true", tmp_path / "none")
    assert words.exit_cause(f"JobState=FAILED ExitCode={no_program}:0") == ends.NO_PROGRAM
    for cause, path in ((ends.NO_DIRECTORY, "/dir"), (ends.NO_PYTHON, "/python"), (ends.NO_PROGRAM, "/program")):
        assert path in str(ends.outcome_of(Gone(cause), "/dir", "/python", "/program").reason)


@pytest.mark.parametrize(
    "options", [{"partition": "a b"}, {"partition": "-p"}, {"nodes": "2"}, {"extra": "rm -rf"}, {"extra": "--array=1"},
                {"extra": "--mail-user=$(id)"}, {"extra": "--arr=1-9"}, {"extra": "--part=x"},
                {"extra": "--mem-per-cpu=9G"}, {"extra": "--cl=other"}],
)  # fmt: skip
def test_options_that_could_say_something_else_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        check_options(options)


def test_options_become_words() -> None:
    options = {"partition": "long", "gres": "gpu:a100:2", "extra": "--exclusive --mail-type=END"}
    assert arguments(options) == ["--partition=long", "--gres=gpu:a100:2", "--exclusive", "--mail-type=END"]
