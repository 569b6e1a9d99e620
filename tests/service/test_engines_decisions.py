"""What an engine decides without a batch system: Slurm's words, options, and which jobs are submitted together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.service.engines import ends
from prominence_executor.service.engines.batches import grouped
from prominence_executor.service.engines.slurm import words
from prominence_executor.service.engines.slurm.options import arguments, check_options
from prominence_executor.service.engines.slurm.system import script
from prominence_executor.service.engines.system import Batch, Gone, Running, Shape, Waiting

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
    ("text", "minutes"),
    [("infinite", None), ("30:00", 30), ("1:00:00", 60), ("1-00:00:00", 1440), ("2-12", 3600), ("n/a", None)],
)
def test_time_limits_are_read(text: str, minutes: float | None) -> None:
    assert words.minutes(text) == minutes


def test_what_is_worth_another_try_is_no_refusal() -> None:
    away = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    assert words.refusal(away) is None
    never = "sbatch: error: Batch job submission failed: Requested node configuration is not available"
    assert words.refusal(never) == "Batch job submission failed: Requested node configuration is not available"


@pytest.mark.parametrize(
    ("gone", "status", "reason"),
    [
        (Gone(ends.WALLTIME), "killed", "Walltime limit exceeded"),
        (Gone(ends.MEMORY), "killed", "Job used too much memory"),
        (Gone(ends.CANCELLED, "n1"), "deleted", "Job was cancelled on the cluster (n1)"),
        (Gone(ends.NODE, "n1"), "failed", "Job was evicted: its node failed (n1)"),
        (Gone(ends.PREEMPTED), "failed", "Job was evicted: it was preempted"),
        (Gone(), "failed", "Job ended on the cluster without an outcome"),
    ],
)
def test_what_ends_a_job_has_the_services_words(gone: Gone, status: str, reason: str) -> None:
    outcome = ends.outcome_of(gone, "/dir", "/python")
    assert (outcome.status, outcome.reason) == (status, reason)


def test_a_script_says_by_its_exit_status_what_its_node_does_not_see(tmp_path: Path) -> None:
    import subprocess

    def run(directory: Path, program: str) -> int:
        batch = Batch("px", SMALL, 1, (program, "-c", "0"), (directory, Path(program)))
        return subprocess.run(["/bin/sh"], input=script(batch).encode(), check=False).returncode

    assert run(tmp_path, "/bin/true") == 0
    assert words.exit_cause(f"JobState=FAILED ExitCode={run(tmp_path / 'none', '/bin/true')}:0") == ends.NO_DIRECTORY
    assert words.exit_cause(f"JobState=FAILED ExitCode={run(tmp_path, '/bin/none')}:0") == ends.NO_PROGRAM
    assert "/dir" in str(ends.outcome_of(Gone(ends.NO_DIRECTORY), "/dir", "/python").reason)
    assert "/python" in str(ends.outcome_of(Gone(ends.NO_PROGRAM), "/dir", "/python").reason)


@pytest.mark.parametrize(
    "options", [{"partition": "a b"}, {"partition": "-p"}, {"nodes": "2"}, {"extra": "rm -rf"}, {"extra": "--array=1"},
                {"extra": "--mail-user=$(id)"}],
)  # fmt: skip
def test_options_that_could_say_something_else_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        check_options(options)


def test_options_become_words() -> None:
    options = {"partition": "long", "gres": "gpu:a100:2", "extra": "--exclusive --mail-type=END"}
    assert arguments(options) == ["--partition=long", "--gres=gpu:a100:2", "--exclusive", "--mail-type=END"]
