"""A directory, or an environment, that nodes do not see: a job that cannot run for that says so in one sentence."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from one_node_slurm import OneNodeSlurm
from paths import ROOT
from people import Person
from small_disk import SmallDisk, in_a_namespace, unavailable

pytestmark = [pytest.mark.once, pytest.mark.slow]


def test_a_directory_that_nodes_do_not_see(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    place = tmp_path / "small"
    disk = SmallDisk(place, "--engine", "slurm", "--engine-option", "poll_seconds=0.5")  # mounted for it alone
    try:
        user = disk.person()
        ended = user.ended(user.create("true"), 60)
    finally:
        disk.process.terminate()
        disk.process.communicate()
    assert ended["status"] == "failed"
    assert ended["statusReason"].startswith(f"The node does not see the service's directory {place}")
    assert ended["statusReason"].endswith(": it must lie on a file system that all nodes share")


def test_an_environment_that_nodes_do_not_see(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    seen_here = tmp_path / "environment"
    seen_here.mkdir()
    python = seen_here / "bin" / Path(sys.executable).name
    serve = [str(python), "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
             "--engine", "slurm", "--engine-option", "poll_seconds=0.5"]  # fmt: skip
    mounted = f"mount --bind {shlex.quote(sys.prefix)} {shlex.quote(str(seen_here))} && exec {shlex.join(serve)}"
    with subprocess.Popen(
        [*in_a_namespace(), "sh", "-c", mounted], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition("=")[2].strip()
            process.stdout.readline()
            user = Person(url, (tmp_path / "state" / "token").read_text())
            ended = user.ended(user.create("true"), 60)
        finally:
            process.terminate()
    assert ended["status"] == "failed"
    assert ended["statusReason"].startswith(f"The node does not see the service's Python {python}")
