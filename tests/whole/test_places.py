"""Programs in the places where users start them: scripts, `python -c`, standard input, packages; and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

from prominence_executor import ProminenceClient
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]


class Place:
    """A folder with a user's files, and a Python started in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}

    def write(self, name: str, source: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def python(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder, env=self.environment, input=stdin, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, service: LocalService) -> Place:
    return Place(tmp_path, PROMINENCE_URL=service.url, PROMINENCE_TOKEN=service.token)


@pytest.fixture
def local_place(tmp_path: Path) -> Place:
    return Place(tmp_path, PROMINENCE_URL="local")


PROGRAM = """
from prominence_executor import ProminenceExecutor
def square(x): return x * x
with ProminenceExecutor() as executor:
    print(list(executor.map(square, range(4), chunksize=2)))
"""


def test_a_script_without_a_main_guard(place: Place) -> None:
    place.write("script.py", PROGRAM)
    assert place.python("script.py") == "[0, 1, 4, 9]\n"


def test_python_c(place: Place) -> None:
    assert place.python("-c", PROGRAM) == "[0, 1, 4, 9]\n"


def test_standard_input_as_a_notebook_has_no_file_either(place: Place) -> None:
    assert place.python("-", stdin=PROGRAM) == "[0, 1, 4, 9]\n"


def test_modules_beside_the_script_also_imported_lazily_and_relatively(place: Place) -> None:
    place.write("physics/__init__.py", "from .constants import g\nfrom . import motion")
    place.write("physics/constants.py", "g = 9.81\n")
    place.write(
        "physics/motion.py",
        "from .constants import g\ndef fall(t):\n    import helpers\n    return helpers.half(g * t * t)\n",
    )
    place.write("helpers.py", "import physics\ndef half(x): return x / 2\nclass Wrong(Exception): pass\n")
    place.write(
        "script.py",
        """
        from prominence_executor import ProminenceExecutor
        from physics.motion import fall
        import helpers

        def lazily(t):
            import physics.motion
            return physics.motion.fall(t)

        def wrong():
            raise helpers.Wrong("so")

        with ProminenceExecutor() as executor:
            print(executor.submit(fall, 2).result(), executor.submit(lazily, 2).result())
            try:
                executor.submit(wrong).result()
            except helpers.Wrong as error:
                print("caught", error)
        """,
    )
    assert place.python("script.py") == "19.62 19.62\ncaught so\n"


def test_python_m_of_a_package(place: Place) -> None:
    place.write("app/__init__.py", "")
    place.write("app/tools.py", "def twice(x): return 2 * x\n")
    place.write(
        "app/__main__.py",
        """
        from prominence_executor import ProminenceExecutor
        from .tools import twice
        def four_times(x):
            from . import tools
            return tools.twice(twice(x))
        with ProminenceExecutor() as executor:
            print(executor.submit(four_times, 5).result())
        """,
    )
    assert place.python("-m", "app") == "20\n"


def test_a_program_that_ends_without_shutdown_waits_for_its_futures(place: Place) -> None:
    place.write(
        "script.py",
        """
        from prominence_executor import ProminenceExecutor
        executor = ProminenceExecutor()
        executor.submit(pow, 2, 5).add_done_callback(lambda future: print("late", future.result()))
        """,
    )
    assert place.python("script.py") == "late 32\n"


def test_the_embedded_service_starts_with_the_executor_and_ends_with_it(local_place: Place, until: Until) -> None:
    local_place.write(
        "script.py",
        """
        import os
        from prominence_executor import ProminenceExecutor
        with ProminenceExecutor() as executor:
            print(executor.submit(pow, 2, 3).result(), executor.submit(os.getppid).result())
            print(executor.client.url)
        """,
    )
    result, pid, url = local_place.python("script.py").split()
    assert result == "8"
    assert url.startswith("http://127.0.0.1:")
    until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_embedded_service_ends_when_its_program_is_killed(
    local_place: Place, until: Until, number: signal.Signals
) -> None:
    local_place.write(
        "script.py",
        """
        import os, pathlib, time
        from prominence_executor import ProminenceExecutor
        def work(path):
            pathlib.Path(path).write_text(str(os.getpid()))
            time.sleep(100)
        if __name__ == "__main__":
            executor = ProminenceExecutor()
            executor.submit(work, os.path.abspath("pid"))
            time.sleep(100)
        """,
    )
    with local_place.start("script.py") as program:
        pid_file = local_place.folder / "pid"
        until(lambda: pid_file.exists() and pid_file.read_text())
        call = int(pid_file.read_text())
        program.send_signal(number)
        program.communicate()
    until(lambda: not _alive(call))


def test_the_embedded_service_does_not_hear_ctrl_c_of_the_terminal(local_place: Place) -> None:
    local_place.write(
        "script.py",
        """
        import os, signal
        from prominence_executor import ProminenceExecutor
        executor = ProminenceExecutor()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.killpg(0, signal.SIGINT)  # what a terminal does: to the whole foreground group
        print(executor.submit(pow, 3, 3).result())
        executor.shutdown()
        """,
    )
    with subprocess.Popen(
        [sys.executable, "script.py"], cwd=local_place.folder, env=local_place.environment,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as program:  # fmt: skip
        assert program.communicate(timeout=60)[0] == "27\n"


def test_without_the_extra_one_sentence_says_what_to_install(local_place: Place) -> None:
    program = "import sys; sys.modules['aiohttp'] = None\nfrom prominence_executor import ProminenceExecutor\n"
    said = local_place.python("-c", program + "ProminenceExecutor()", code=1)
    assert "pip install 'prominence-executor[local]'" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_hundred_megabytes_go_there_and_back_within_three_times_their_memory(place: Place) -> None:
    place.write(
        "script.py",
        """
        import numpy
        from prominence_executor import ProminenceExecutor

        def peak():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))

        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # what it has of the process that started it, which may have been large
        with ProminenceExecutor() as executor:
            executor.submit(pow, 2, 2).result()
            for data in (bytes(100_000_000), numpy.ones(12_500_000)):
                result, remote = executor.submit(lambda data: (data, peak()), data).result()
                assert len(result) == len(data) and type(result) is type(data) and result[-1] == data[-1]
                print(f"client {peak() / 1e8:.2f}, remote {remote / 1e8:.2f} times 100 MB")
                assert peak() < 3e8 + 1.2e8, "client"
                assert remote < 3e8, "remote"
                del data, result
        """,
    )
    print(place.python("script.py"))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_importing_costs_at_most_thirty_milliseconds_more_than_requests() -> None:
    """Processor time, in one interpreter each time, the best of several: the machine's noise only ever adds."""
    program = (
        "import time, sys; import requests; t = time.process_time(); import prominence_executor; "
        "print(time.process_time() - t); assert not {'aiohttp', 'numpy', 'asyncio'} & set(sys.modules)"
    )
    times = []
    for _ in range(7):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        times.append(float(done.stdout))
    assert min(times) < 0.030, times


@pytest.mark.parametrize("moment", ["in the block", "at the end of the program"])
def test_ctrl_c_deletes_the_jobs_and_says_so(place: Place, moment: str, service: LocalService, until: Until) -> None:
    place.write(
        "script.py",
        f"""
        import threading, time
        from prominence_executor import ProminenceExecutor
        from prominence_executor.executor import executor as module
        executor = ProminenceExecutor(name="ctrl-c")
        future = executor.submit(time.sleep, 100)
        while not future.running():
            time.sleep(0.02)
        if {moment == "in the block"}:
            with executor:
                print(future.job_id, flush=True)
                future.result()
        else:
            def tell():
                module._exiting.wait()
                print(future.job_id, flush=True)
            threading.Thread(target=tell, daemon=True).start()
        """,
    )
    with place.start("script.py") as program:
        assert program.stdout is not None
        job = int(program.stdout.readline())
        program.send_signal(signal.SIGINT)
        said = program.communicate(timeout=60)[1]
    assert "interrupted: its 1 outstanding calls were given up, and their jobs deleted" in said
    with ProminenceClient(service.url, service.token) as client:
        assert client.describe_job(job)["status"] == "deleted"


def test_a_full_disk_of_the_client_is_a_clear_error_and_leaves_no_partial_file(place: Place) -> None:
    place.write(
        "script.py",
        """
        import os, resource, tempfile
        from prominence_executor import ProminenceExecutor, TransferError
        with ProminenceExecutor() as executor:
            assert len(executor.submit(bytes, 10).result()) == 10
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # as good as a full disk
            future = executor.submit(bytes, 8_000_000)
            try:
                future.result()
            except TransferError as error:
                print(error)
            assert len(executor.submit(bytes, 20).result()) == 20
        print(os.listdir(tempfile.gettempdir()))
        """,
    )
    temporary = place.folder / "temporary"
    temporary.mkdir()
    place.environment["TMPDIR"] = str(temporary)
    said = place.python("script.py")
    assert "could not be stored" in said
    assert "still at the service" in said
    assert said.endswith("[]\n")
