"""Records what this version of the package leaves behind: a service's directory, journals, pickles, saved results.

    unshare --user --map-root-user --uts sh -c 'hostname recorder && python tests/support/record_state.py FOLDER'

test_recordings.py reads every recording with the version at hand. A recording is never made anew; a version that stores
something else is recorded beside the others. So this uses the public interface only, and what an earlier recording
holds stays as it is here: samples and programs may be added, not changed.

Results are plain data, and what is to run again is pickled by name, so that every version of Python can read them.
(FOLDER is tests/data/ and the version. The host name stands in outcomes, hence the first line. The package must be
installed, not in editable mode: else its sources travel with the calls.)
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paths import SUPPORT

import prominence_executor as px
from prominence_executor.local import LocalService

GATE = "/tmp/px-recording"  # a call waits while this folder, or the one that it names in there, is there
WAITS = f"while [ -e {GATE} ]; do sleep 0.1; done; echo went on"
WAITS_BRIEFLY = f"while [ -e {GATE}/first ]; do sleep 0.1; done; echo went on"
LARGE = bytes(range(256)) * 8192  # 2 MB
PROTOCOLS = (2, 5)

COMMON = """
import operator, os, pickle, shutil, subprocess, sys, threading, time
from concurrent.futures import wait
from prominence_executor import *
from record_state import GATE, LARGE, WAITS, WAITS_BRIEFLY

url, token, folder = sys.argv[1:]
"""

# What a program has seen to its end.
ENDED = """
def heated(kelvin):
    print("heated to", kelvin)
    return {"kelvin": kelvin, "shots": [91234, 91235]}

def chained():
    try:
        {}["plasma"]
    except KeyError as error:
        raise LookupError("no plasma", 3) from error

def killed():
    raise WalltimeExceededError("too long", job_id=7, status="killed", reason="Walltime limit", stderr="slow\\n")

with ProminenceExecutor(url, token, run_id="ended", retries=1, lazy=True) as executor:
    executor.submit(heated, 300.0)
    executor.map(operator.mul, range(5), range(5), chunksize=2)
    executor.submit(int, "plasma")
    executor.submit(chained)
    executor.submit(killed)
    executor.submit(os._exit, 3)
    executor.submit(threading.Lock)
    executor.submit(pickle.PickleBuffer, LARGE).save(os.path.join(folder, "buffer.saved"))
    executor.submit(bytes, LARGE).save(os.path.join(folder, "bytes.saved"))
    scattered = executor.scatter(list(range(1000)))
    executor.submit(sum, scattered)
    executor.submit(len, scattered)
    with_files = executor.with_options(files={"shot/in.txt": b"91234"}, outputs=["*.txt"])
    with_files.submit(shutil.copyfile, "shot/in.txt", "out.txt")
    mpi = executor.with_options(task_type="openmpi", resources=Resources(cpus=2))
    mpi.submit(operator.add, 1, 2)
    terminated = executor.submit(subprocess.getoutput, WAITS)
    while not terminated.running():
        time.sleep(0.1)
    terminated.terminate()

with ProminenceExecutor(url, token, run_id="array") as executor:
    assert list(executor.map(operator.mul, range(24), range(24))) == [n * n for n in range(24)]
"""

# What was described by hand.
BY_HAND = """
client = ProminenceClient(url, token)
client.upload("shot.txt", b"91234", checksum=True)
client.kv_set("campaign", "heated")
job = Job(
    name="by hand", tasks=[Task(image="any", command="cp shot.txt out.txt"), Task(image="any", command="echo done")],
    artifacts=[Artifact("shot.txt")], output_files=["out.txt"], labels={"campaign": "heated"}, client=client,
)
job.create()
job.wait()
first, second = (Job(name=name, tasks=[Task(image="any", command="echo " + name)]) for name in ("first", "second"))
workflow = Workflow(
    name="by-hand", jobs=[first, second], dependencies=[Dependency(first, [second])], client=client,
    factories=[Zip([second], {"n": [1, 2]})],
)
workflow.create()
workflow.wait()
"""

# Warm workers whose program is killed: one outcome is not read, one worker is lost, some calls are not dealt out.
WARM = """
journal = os.path.join(folder, "warm.journal") if folder else None
run_id = "warm.journal" if folder else "warm"
with ProminenceExecutor(url, token, run_id=run_id, workers="warm", max_workers=2, journal=journal) as executor:
    assert list(executor.map(operator.mul, range(30), range(30))) == [n * n for n in range(30)]
    wait([executor.submit(int, "plasma"), executor.submit(bytes, 100_000)])
    waiting = [executor.submit(subprocess.getoutput, command) for command in (WAITS_BRIEFLY, WAITS)]
    while not all(future.running() for future in waiting):
        time.sleep(0.1)
    [executor.submit(operator.neg, n) for n in range(3)]
    print("ready", flush=True)
    time.sleep(60)
"""

# A job that runs, and a job and an array that wait, when the service ends.
LEFT = """
with ProminenceExecutor(url, token, run_id="left") as executor:
    running = executor.with_options(resources=Resources(cpus=int(folder))).submit(subprocess.getoutput, WAITS)
    while not running.running():
        time.sleep(0.1)
    idle = [executor.submit(operator.add, 1, 2)]
    while idle[0].job_id is None:
        time.sleep(0.1)
    idle += [executor.submit(operator.neg, n) for n in range(24)]
    while any(future.status() == "unsent" for future in idle):
        time.sleep(0.1)
    print("ready", flush=True)
    time.sleep(60)
"""

# Calls that the service has never seen, each with something that a journal has to keep.
UNSENT = """
sys.path.insert(0, folder)
import reactor

executor = ProminenceExecutor(
    url, token, run_id="unsent", journal=os.path.join(folder, "unsent.journal"), max_workers=3,
    initializer=os.putenv, initargs=("PX_MARK", "set"),
)
assert executor.submit(operator.add, 1, 2).result() == 3
print("ready", flush=True)
sys.stdin.readline()
executor.submit(subprocess.getoutput, "echo $PX_MARK")
options = {
    "resources": Resources(cpus=2, memory=2, disk=3, walltime=30), "labels": {"shot": "91234"}, "env": {"FIELD": "3.2"},
    "policies": JobPolicies(maximum_time_in_queue=600, priority=3), "retries": 2,
}
executor.with_options(**options).submit(os.getenv, "FIELD")
with_files = executor.with_options(files={"shot/in.txt": b"91234"}, outputs=["*.txt"])
with_files.submit(shutil.copyfile, "shot/in.txt", "out.txt")
executor.submit(sum, executor.scatter(list(range(1000))))
executor.submit(len, LARGE)
executor.submit(reactor.cooled, 300.0)
executor.map(operator.neg, range(4), chunksize=2)
executor.submit(int, "plasma")
print("ready", flush=True)
time.sleep(60)
"""

REACTOR = """
def cooled(kelvin):
    return kelvin - 299.0
"""


def samples() -> dict[str, Any]:
    """One object of each public class that can be pickled, and of those that public methods return, by a name.

    None that a recording holds may be changed here: it is compared with what was recorded.
    """
    found: dict[str, Any] = {
        "Artifact": px.Artifact("data.bin", "data", "/data", executable=True),
        "Dependency": px.Dependency("first", ["second", "third"]),
        "InputFile": px.InputFile("shot.txt", b"91234", executable=True),
        "JobPolicies": px.JobPolicies(maximum_retries=2, priority=3, leave_in_queue=True),
        "Notification": px.Notification(),
        "ParameterSweep": px.ParameterSweep(["first"], {"t": (0.0, 1.0, 0.5)}),
        "RemoteTraceback": px.RemoteTraceback("Traceback ...", 3),
        "Repeat": px.Repeat(["first"], 4),
        "Resources": px.Resources(cpus=4, memory=8, walltime=60),
        "Resources, by default": px.Resources(),
        "Resources, of which a default gives way": px.Resources(cpus_range=(2, 4), memory_per_cpu=2),
        "Task": px.Task("centos:7", "hostname", env={"FIELD": "3.2"}, procs_per_node=2),
        "WorkflowPolicies": px.WorkflowPolicies(maximum_retries=5),
        "Zip": px.Zip(["first"], {"n": [1, 2]}),
        "load": px.load,
    }
    for name in px.errors.__all__:
        kind = getattr(px, name)
        found[f"class {name}"] = kind
        if issubclass(kind, px.JobError):
            found[name] = kind("it ended", job_id=7, status="failed", reason="evicted", stderr="the end\n")
        elif issubclass(kind, px.ServiceUnavailableError):
            found[name] = kind("it is away", 503, request_sent=False, retry_after=2.5)
        elif issubclass(kind, (px.ServiceError, px.InvalidRequestError)):
            found[name] = kind("it was refused", 400)
        else:
            found[name] = kind("it is so")
    packages = {"numpy": "2.0"}
    there = {"python": "3.11.7", "executable": "/usr/bin/python3", "platform": "Linux", "packages": {"numpy": "1.26"}}
    report = px.ImageReport("python:3.11", 7, "3.11.4", "/usr/bin/python3", "Linux", "x86_64", packages, there)
    found["ImageReport"], found["a row of an ImageReport"] = report, report.rows()[0]
    # Not to be had by a public name; this is the one that pickles of the first versions have.
    warm = importlib.import_module("prominence_executor.warm")
    found["WorkerInfo"] = warm.WorkerInfo(3, 7, "idle", 12, 0.5, 40)
    return found


def main(target: str) -> None:
    folder = Path(target)
    folder.mkdir(parents=True)
    pickles = {
        name: {str(protocol): b64encode(pickle.dumps(sample, protocol)).decode() for protocol in PROTOCOLS}
        for name, sample in samples().items()
    }
    (folder / "pickles.json").write_text(json.dumps(pickles, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        state = Path(temporary)
        (state / "files").mkdir()
        try:
            record(state / "service", state / "files")
        finally:
            shutil.rmtree(GATE, ignore_errors=True)
        for name in ("bin", "lock", "sandboxes"):  # made anew by each start of the service; the first names its Python
            path = state / "service" / name
            path.unlink() if path.is_file() else shutil.rmtree(path)
        with tarfile.open(folder / "state.tar.xz", "w:xz") as archive:
            for name in ("service", "files"):
                archive.add(state / name, name, filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def record(directory: Path, files: Path) -> None:
    """Let programs leave behind what a service's directory and a folder of files are to hold."""
    Path(GATE, "first").mkdir(parents=True)
    (files / "reactor.py").write_text(REACTOR)
    service = LocalService(directory, cpus=8, memory=16)
    with service:
        for program in (ENDED, BY_HAND):
            with started(service, program, files) as running:
                assert running.wait() == 0
        with started(service, UNSENT, files) as unsent:
            ready(unsent)
            with started(service, WARM, "") as warm, started(service, WARM, files) as with_journal:
                for stopped in (warm, with_journal):
                    ready(stopped)
                    stopped.send_signal(signal.SIGSTOP)
                Path(GATE, "first").rmdir()
                time.sleep(5)  # a worker says what has come of its call, and nobody reads it
            with started(service, LEFT, "4") as left:
                ready(left)
            service.stop()
            assert unsent.stdin is not None
            unsent.stdin.write("the service is away\n")
            unsent.stdin.flush()
            ready(unsent)
            time.sleep(2)  # some of the calls are about to be sent, again and again


@contextmanager
def started(service: LocalService, program: str, argument: object) -> Iterator[subprocess.Popen[str]]:
    """A program that is killed at the end, if it has not ended by then."""
    words = [sys.executable, "-c", COMMON + program, service.url, service.token, str(argument)]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    with running:
        try:
            yield running
        finally:
            running.kill()


def ready(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"


def assert_equal(loaded: Any, made: Any) -> None:
    """Fail unless a sample that was pickled is the one that this version makes."""
    assert type(loaded) is type(made)
    if isinstance(made, BaseException):
        assert (loaded.args, vars(loaded), str(loaded)) == (made.args, vars(made), str(made))
    else:
        assert loaded == made
        assert repr(loaded) == repr(made)
        assert not hasattr(made, "json") or loaded.json() == made.json()


if __name__ == "__main__":
    main(*sys.argv[1:])
