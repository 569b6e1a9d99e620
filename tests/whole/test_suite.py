"""What the tests themselves rely on, wherever they are started."""

from __future__ import annotations

import signal
import subprocess
import sys

from paths import ROOT

IGNORING = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a shell starts what runs in the background


def test_a_program_that_a_test_starts_can_be_interrupted() -> None:
    program = "import time; print('begun', flush=True); time.sleep(20)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60)[1].endswith("KeyboardInterrupt\n")


def test_that_is_so_where_the_tests_are_started_by_one_that_ignores_sigint() -> None:
    test = f"{__file__}::{test_a_program_that_a_test_starts_can_be_interrupted.__name__}"
    done = subprocess.run(
        [*IGNORING, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
