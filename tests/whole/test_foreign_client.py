"""A client on a system that is not POSIX sends calls to a service elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import SUPPORT
from variables import unmeasured

from prominence_executor.local import LocalService

pytestmark = pytest.mark.once


def test_a_client_needs_nothing_that_posix_alone_has(service: LocalService, tmp_path: Path) -> None:
    program = [sys.executable, str(SUPPORT / "foreign_client.py"), service.url, service.token, str(tmp_path)]
    done = subprocess.run(program, env=unmeasured(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 2, 4] 2000000", "[10, 12]", "42"]
