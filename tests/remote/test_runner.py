"""The runner as the remote side runs it: `python3 pxrun.py` in a directory, without a service around it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_directory import IDENTITY, KEY, JobDirectory

from prominence_executor import RemotePicklingError, RemoteTraceback, SignatureError
from prominence_executor.payload.calls import Identity
from prominence_executor.payload.instructions import PYTHON
from prominence_executor.payload.outcomes import read_outcomes
from prominence_executor.payload.results import unpack


@pytest.fixture
def remote(tmp_path: Path) -> JobDirectory:
    return JobDirectory(tmp_path)


def test_a_result_comes_back_and_the_runner_ends_with_zero(remote: JobDirectory) -> None:
    remote.prepare(lambda a, b: {"sum": a + b}, (2, 3))
    assert remote.run().returncode == 0
    assert remote.value() == {"sum": 5}


def test_calls_of_a_chunk_have_an_outcome_each(remote: JobDirectory) -> None:
    remote.prepare(lambda x: 10 // x, (1,), (0,), (5,))
    assert remote.run().returncode == 0
    assert remote.value(0) == 10
    assert isinstance(remote.value(1), ZeroDivisionError)
    assert remote.value(2) == 2


def test_an_exception_keeps_its_class_attributes_causes_and_traceback(remote: JobDirectory) -> None:
    class TwoArguments(Exception):
        def __init__(self, code: int, detail: str) -> None:
            super().__init__(f"{code}: {detail}")
            self.code = code

    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise TwoArguments(7, "outer") from error

    remote.prepare(fail, ())
    assert remote.run().returncode == 0
    error = remote.value()
    assert type(error) is TwoArguments
    assert error.code == 7
    assert str(error) == "7: outer"
    text = "".join(traceback.format_exception(error))
    assert "in fail" in text
    assert "runner" not in text.partition("KeyError")[0]
    assert isinstance(error.__cause__, RemoteTraceback)
    assert isinstance(error.__cause__.__cause__, KeyError)


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt("stop"), OSError(28, "No space", "/x")])
def test_any_exception_is_the_calls_outcome(remote: JobDirectory, error: BaseException) -> None:
    def fail() -> None:
        raise error

    remote.prepare(fail, ())
    assert remote.run().returncode == 0
    assert type(remote.value()) is type(error)
    assert remote.value().args == error.args


def test_an_unpicklable_result_names_its_type_and_costs_no_other_call(remote: JobDirectory) -> None:
    import threading

    remote.prepare(lambda x: threading.Lock() if x else "fine", (1,), (0,))
    assert remote.run().returncode == 0
    error = remote.value(0)
    assert isinstance(error, RemotePicklingError)
    assert "lock" in str(error)
    assert remote.value(1) == "fine"


def test_a_crash_keeps_the_outcomes_before_it_and_names_the_call_that_ran(remote: JobDirectory) -> None:
    def call(x: int) -> int:
        if x == 1:
            os._exit(3)
        return x

    remote.prepare(call, (0,), (1,), (2,))
    assert remote.run().returncode == 0
    outcomes = remote.outcomes()
    assert remote.value(0) == 0
    assert outcomes.running == 1
    assert outcomes.job is not None
    assert (outcomes.job.kind, outcomes.job.header["exit"]) == ("crashed", 3)


@pytest.mark.parametrize("number", [9, 11])
def test_a_signal_is_told_by_its_number(remote: JobDirectory, number: int) -> None:
    remote.prepare(lambda: os.kill(os.getpid(), number), ())
    assert remote.run().returncode == 0
    job = remote.outcomes().job
    assert job is not None
    assert job.header["exit"] == -number


def test_ending_well_without_coming_to_the_end_is_a_crash(remote: JobDirectory) -> None:
    remote.prepare(lambda: os._exit(0), ())
    remote.run()
    job = remote.outcomes().job
    assert job is not None
    assert job.kind == "crashed"


def test_a_call_that_kills_its_parent_leaves_what_was_written(remote: JobDirectory) -> None:
    def call(x: int) -> int:
        if x:
            os.kill(os.getppid(), 9)
            os.kill(os.getpid(), 9)
        return x

    remote.prepare(call, (0,), (1,))
    assert remote.run().returncode == -9
    assert remote.value(0) == 0
    assert remote.outcomes().running == 1
    assert remote.outcomes().job is None


def test_the_time_that_a_job_has_ends_the_call_in_time(remote: JobDirectory) -> None:
    def call(x: float) -> float:
        import time

        time.sleep(x)
        return x

    remote.prepare(call, (0.0,), (60.0,), seconds=1.5)
    assert remote.run().returncode == 0
    assert remote.value(0) == 0.0
    job = remote.outcomes().job
    assert job is not None
    assert job.kind == "walltime"


def test_a_jobs_time_runs_from_the_start_of_the_platforms_worker_program(remote: JobDirectory) -> None:
    remote.prepare(time.sleep, (60.0,), seconds=4.0)
    worker = remote.folder / "promlet.py"
    worker.write_text("import subprocess, sys, time; time.sleep(3); subprocess.run([sys.executable, 'pxrun.py'])")
    began = time.monotonic()
    subprocess.run([sys.executable, str(worker)], cwd=remote.folder, check=True, timeout=60)
    assert time.monotonic() - began < 6.0
    job = remote.outcomes().job
    assert job is not None
    assert job.kind == "walltime"


def test_processes_that_a_call_leaves_behind_end_with_the_job(remote: JobDirectory, until: Callable[..., None]) -> None:
    def call() -> int:
        return subprocess.Popen(["sleep", "60"]).pid

    remote.prepare(call, ())
    remote.run()
    pid = remote.value()

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(is_gone, 5.0)  # it has been killed, which takes the system a moment


def test_a_call_may_change_the_directory_and_close_its_streams(remote: JobDirectory) -> None:
    def call() -> str:
        os.chdir("/")
        sys.stdout.close()
        return "here"

    remote.prepare(call, ())
    assert remote.run().returncode == 0
    assert remote.value() == "here"


def test_what_does_not_fit_on_the_disk_is_said_in_few_bytes(remote: JobDirectory) -> None:
    def call(size: int) -> bytes:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        return bytes(size)

    remote.prepare(call, (10,), (1_000_000,), (20,))
    remote.run()
    assert remote.value(0) == bytes(10)
    assert "File too large" in str(remote.value(1))
    assert remote.value(2) == bytes(20)


def test_a_damaged_payload_is_not_unpickled(remote: JobDirectory) -> None:
    remote.prepare(lambda: 1, ())
    calls = remote.folder / "pxcalls"
    calls.write_bytes(calls.read_bytes()[:-1] + b"x")
    remote.run()
    job = remote.outcomes().job
    assert job is not None
    assert job.kind == "failure"
    assert "did not arrive as it was sent" in job.header["error"]


def test_a_missing_module_is_named(remote: JobDirectory) -> None:
    def call() -> None:
        import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401

    remote.prepare(call, ())
    remote.run()
    assert isinstance(remote.value(), ModuleNotFoundError)


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
def test_another_python_says_that_it_is_the_wrong_one(remote: JobDirectory, version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    remote.prepare(lambda: 1, ())
    assert remote.run(python).returncode == 0
    job = remote.outcomes().job
    assert job is not None
    if version == PYTHON:
        assert remote.value() == 1
    else:
        assert (job.kind, job.header["here"], job.header["wanted"]) == ("python", version, PYTHON)


def test_outcomes_of_another_key_job_or_attempt_are_refused(remote: JobDirectory) -> None:
    remote.prepare(lambda: 1, ())
    remote.run()
    with pytest.raises(SignatureError):
        remote.outcomes(key=bytes(32))
    with pytest.raises(SignatureError):
        remote.outcomes(identity=Identity("run-1", 8, 1))
    with pytest.raises(SignatureError):
        remote.outcomes(identity=Identity("run-1", 7, 2))


def test_a_tampered_outcome_is_never_unpickled(remote: JobDirectory) -> None:
    remote.prepare(lambda: "original", ())
    remote.run()
    whole = (remote.folder / "pxoutcome").read_bytes()
    assert whole.count(b"original") == 1
    file = io.BytesIO(whole.replace(b"original", b"tampered"))
    outcomes = read_outcomes(file, KEY, IDENTITY)
    with pytest.raises(SignatureError):
        unpack(file, outcomes.calls[0], "in job 1")


def test_any_cut_of_an_outcome_file_is_refused_or_ignored(remote: JobDirectory) -> None:
    remote.prepare(lambda x: x, ("a",), ("b",))
    remote.run()
    whole = (remote.folder / "pxoutcome").read_bytes()
    complete = len(remote.outcomes().calls)
    for end in range(0, len(whole), 7):
        file = io.BytesIO(whole[:end])
        try:
            outcomes = read_outcomes(file, KEY, IDENTITY)
        except SignatureError:
            continue
        assert len(outcomes.calls) <= complete
        for outcome in outcomes.calls.values():
            assert unpack(file, outcome, "in job 1")[0]


def test_a_call_finds_the_surroundings_that_the_first_one_found(remote: JobDirectory) -> None:
    def begin() -> None:
        os.environ["BEGUN"] = "once"

    def call(spoil: bool) -> Any:
        found = (
            os.getcwd(), Path("given").read_text(), dict(os.environ), signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGALRM), signal.pthread_sigmask(signal.SIG_BLOCK, []), os.umask(0o22),
            sys.stdout.fileno(), sys.stderr.encoding,
        )  # fmt: skip
        print("heard", spoil)
        print("warned", spoil, file=sys.stderr)
        if spoil:
            os.mkdir("elsewhere")
            os.chdir("elsewhere")
            os.environ.update(HOME="/nowhere", NEW="1")
            del os.environ["BEGUN"]
            os.umask(0o77)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, lambda number, frame: os.abort())
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            sys.stdout.close()
            os.close(2)
            sys.stderr = io.StringIO()
            sys.stdin.close()
        else:
            time.sleep(0.1)
        return found

    (remote.folder / "given").write_text("mesh")
    remote.prepare(call, (True,), (False,), (True,), initializer=begin)
    done = remote.run()
    assert done.returncode == 0
    first = remote.value(0)
    assert first[0] == str(remote.folder)
    assert first[2]["BEGUN"] == "once"
    assert remote.value(1) == first
    assert isinstance(remote.value(2), FileExistsError)
    assert done.stdout == "heard True\nheard False\nheard True\n"
    assert done.stderr == "warned True\nwarned False\nwarned True\n"


def test_threads_that_are_no_daemons_end_before_the_next_call_and_pools_and_handlers_with_the_job(
    remote: JobDirectory,
) -> None:
    def call(number: int) -> list[str]:
        import atexit
        import threading
        from concurrent.futures import ThreadPoolExecutor

        def later(name: str, seconds: float) -> None:
            time.sleep(seconds)
            Path(name).touch()

        found = sorted(path.name for path in Path().glob("*.done"))
        threading.Thread(target=later, args=(f"{number}.done", 0.3)).start()
        threading.Thread(target=later, args=("never", 60.0), daemon=True).start()
        pool = call.__dict__.setdefault("pool", ThreadPoolExecutor(1))  # it stays, as one in a module does
        pool.submit(later, f"pool-{number}", 0.4)
        atexit.register(lambda: Path(f"handler-{number}").write_text(str(Path(f"{number}.done").exists())))
        return found

    remote.prepare(call, (0,), (1,))
    began = time.monotonic()
    done = remote.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 10
    assert [remote.value(0), remote.value(1)] == [[], ["0.done"]]
    for name in ("1.done", "pool-0", "pool-1"):
        assert (remote.folder / name).exists()
    assert (remote.folder / "handler-1").read_text() == "True"
    assert not (remote.folder / "never").exists()


def test_a_thread_that_does_not_end_costs_no_outcome(remote: JobDirectory) -> None:
    def call() -> str:
        import threading

        threading.Thread(target=time.sleep, args=(60,)).start()
        return "here"

    remote.prepare(call, (), seconds=2.0)
    assert remote.run().returncode == 0
    assert remote.value() == "here"


def test_files_that_a_thread_still_writes_are_collected(remote: JobDirectory) -> None:
    def call() -> str:
        import threading

        def write() -> None:
            time.sleep(0.3)
            Path("late.out").write_text("late")

        threading.Thread(target=write).start()
        Path("soon.out").write_text("soon")
        return "here"

    remote.prepare(call, (), parts=("files",), outputs=["*.out"])
    assert remote.run().returncode == 0
    assert remote.value() == "here"
    assert remote.outcomes().calls[0].header["files"]["count"] == 2


@pytest.mark.parametrize("how", ["returns", "exits", "raises"])
def test_a_process_that_a_call_forks_does_not_go_on_with_the_calls(remote: JobDirectory, how: str) -> None:
    def call(number: int) -> tuple[int, int]:
        child = os.fork()
        if not child:
            if how == "exits":
                sys.exit(3)
            if how == "raises":
                raise KeyError("in the child")
        return number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else -1

    remote.prepare(call, (0,), (1,))
    done = remote.run()
    code = {"returns": 0, "exits": 3, "raises": 1}[how]
    assert [remote.value(0), remote.value(1)] == [(0, code), (1, code)]
    assert ("KeyError: 'in the child'" in done.stderr) == (how == "raises")
