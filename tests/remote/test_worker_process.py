"""The process of a warm worker that runs the calls, without a worker and a service around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from variables import unmeasured

PROGRAM = """
import atexit, sys, threading, time
from pathlib import Path

import cloudpickle
from prominence_executor.remote.worker_child import Child
from prominence_executor.remote.worker_pipes import END

def call(folder):
    def late():
        time.sleep(0.3)
        Path(folder, "thread").touch()

    threading.Thread(target=late).start()
    atexit.register(lambda: Path(folder, "handler").touch())

content = cloudpickle.dumps(((sys.argv[1],), {}))
chunk = {"job": 0, "attempt": 0, "calls": [len(content)], "function": "f", "modules": None, "objects": []}
job = {"run": "r", "job": 0, "attempt": 0, "key": "00" * 32}
child = Child(job, [], {"f": cloudpickle.dumps((call, None, ()))})
child.prepare(chunk, {})
child.run([chunk], [content])
while child.receive(10.0)[0] != END:
    pass
child.finish(10.0)
print(sorted(path.name for path in Path(sys.argv[1]).iterdir()))
"""


def test_a_process_that_is_to_end_lets_threads_end_and_runs_exit_handlers(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=unmeasured())
    assert (done.stdout, done.stderr) == ("['handler', 'thread']\n", "")
