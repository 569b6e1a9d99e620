"""Every Python example of the README runs, on the embedded service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from wheels import only_these, wheel_of_installed

from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables with which uv and pip have what the examples require, without a network."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel_of_installed(folder, "packaging")
    return {**only_these(folder), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("caches"))}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(
    number: int, service: LocalService, tmp_path: Path, packages: dict[str, str]
) -> None:
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[number])
    environment = {
        **os.environ, **packages,
        "PYTHONPATH": str(ROOT), "PROMINENCE_URL": service.url, "PROMINENCE_TOKEN": service.token,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], env=environment, capture_output=True, text=True, timeout=120,
        check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


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
