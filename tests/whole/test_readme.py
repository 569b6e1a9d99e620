"""Every Python example of the README runs, on the embedded service. Those of docs/ do, too: test_docs.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from snippets import environment_of, packages_of, run, snippets

from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

EXAMPLES = [snippet for snippet in snippets(ROOT / "README.md") if snippet.language == "python"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return packages_of(tmp_path_factory.mktemp("packages"))


def test_the_readme_is_short_and_says_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 250
    assert len(EXAMPLES) >= 10
    for mark in ("<!-- main-job -->\n```console\n$ ", "<!-- tests -->\n```console\n$ "):
        assert text.count(mark) == 1


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(
    number: int, service: LocalService, tmp_path: Path, packages: dict[str, str]
) -> None:
    assert not EXAMPLES[number].not_run
    run(EXAMPLES[number], environment_of(service, packages), tmp_path)


def test_the_seeds_example_runs_verbatim(service: LocalService, tmp_path: Path) -> None:
    example = """
# Define a task
task = Task()
task.image = 'centos:7'
task.runtime = 'singularity'
task.command = 'hostname'

# Define a job
job = Job()
job.tasks.append(task)
job.create()

# Wait for job to complete
job.wait()

# Print standard output
print(job.stdout())
"""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PROMINENCE_URL": service.url, "PROMINENCE_TOKEN": service.token,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from prominence_executor import *\n" + example],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.uname().nodename


@pytest.mark.parametrize("options", [[], ["--url", "local", "--image", "any:1", "--workers", "2", "--warm"]])
def test_the_main_job_of_the_readme_finds_the_known_answer(options: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PROMINENCE_URL": "http://127.0.0.1:9/" if options else "local",
    }
    done = subprocess.run(
        [sys.executable, "-m", "prominence_executor.examples.morse", "--levels", "1", *options],
        env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 levels" in done.stdout
    assert "within the tolerance" in done.stdout
