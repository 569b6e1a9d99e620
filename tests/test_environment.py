"""What is the program's own, or this machine's, and not ours: the state of its process, its proxies, its netrc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shared_state import drawing

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

# -- the state of a process ------------------------------------------------------------------------------------------


USES_EVERYTHING = """
import json, os, random, sys

import cloudpickle, numpy, requests  # what they do to the process when they are imported is theirs

from shared_state import state_of_process

opened = []

def noted(event, args):
    if event == "open" and "netrc" in str(args[0]):
        opened.append(str(args[0]))

sys.addaudithook(noted)

def state():
    common = {"random": str(random.getstate()), "numpy": str(numpy.random.get_state()), "folder": os.getcwd()}
    return {**state_of_process(), **common, "environment": str(sorted(os.environ.items())), "path": str(sys.path)}

random.seed(1)
numpy.random.seed(1)
before = state()

from prominence_executor import ProminenceExecutor
from prominence_executor.client import ProminenceClient
from prominence_executor.errors import ServiceUnavailableError

url, token = sys.argv[1:]
with ProminenceExecutor(url, token, poll_interval=(0.05, 0.5)) as executor:
    assert list(executor.map(abs, range(3))) == [0, 1, 2]
    assert executor.submit(len, bytes(2_000_000)).result(60) == 2_000_000
    assert executor.check_image().usable
with ProminenceExecutor(url, token, workers="warm", max_workers=1) as executor:
    assert list(executor.map(abs, range(3))) == [0, 1, 2]
with ProminenceClient("http://127.0.0.1:1", token, retry_for=0.5) as client:
    try:
        client.list_jobs()
    except ServiceUnavailableError:
        pass
after = state()
print(json.dumps({"changed": [name for name in before if before[name] != after[name]], "opened": opened}))
"""


def test_an_executor_leaves_the_state_of_the_process_alone(service: LocalService, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password wrong\n")
    netrc.chmod(0o600)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "NETRC": str(netrc)}
    program = [sys.executable, "-c", USES_EVERYTHING, service.url, service.token]
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, timeout=120, check=True)
    assert json.loads(done.stdout) == {"changed": [], "opened": []}


@pytest.mark.parametrize("workers", [None, "warm"])
def test_a_call_finds_the_process_as_python_starts_it(service: LocalService, workers: Any) -> None:
    fresh = "import json; from shared_state import state_of_process; print(json.dumps(state_of_process()))"
    program = [sys.executable, "-c", fresh]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    expected = json.loads(subprocess.run(program, env=environment, capture_output=True, check=True).stdout)
    with ProminenceExecutor(
        service.url, service.token, workers=workers, max_workers=1, poll_interval=(0.05, 0.5)
    ) as executor:
        found = list(executor.map(drawing, range(2)))
    for state, _ in found:
        assert {name: (state[name], expected[name]) for name in state if state[name] != expected[name]} == {}
    assert found[0][1] != found[1][1]
