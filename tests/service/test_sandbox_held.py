"""Sandboxes where nobody clears up later: the next one removes those of killed processes, and none that is held."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

from prominence_executor.service.sandbox.held import held

pytestmark = pytest.mark.once

HOLDS = """
import subprocess, sys
from pathlib import Path
from prominence_executor.service.sandbox.held import held
with held(Path(sys.argv[1]), Path(sys.argv[1])) as sandbox:
    child = subprocess.Popen(["sleep", "600"], cwd=sandbox.home, start_new_session=True, stdout=subprocess.DEVNULL)
    print(sandbox.root, child.pid, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_sandbox(tmp_path: Path, until: Callable[..., None]) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            root, child = process.stdout.readline().split()
            with held(tmp_path, tmp_path) as sandbox:
                assert sandbox.home.is_dir()
                assert Path(root).is_dir()  # it is held
        finally:
            process.kill()
    assert Path(root).is_dir()
    with held(tmp_path, tmp_path):
        assert not Path(root).exists()
    assert list(tmp_path.iterdir()) == []
    until(lambda: not Path("/proc", child, "cwd").exists())
