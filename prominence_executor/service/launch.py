"""The embedded service as a child process for ``url="local"``: started, watched, and ended.

The child has a session of its own, so that Ctrl-C in the terminal does not reach it, and it ends by itself when its
standard input closes or its parent is gone, however the parent ended. When it ends though it should not, its parent
knows at once, and removes what it left. What it is and where it is are told through a pipe of their own: others may
print to the standard output.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from .sandbox import processes
from .sandbox.removal import remove_tree
from .service import MOST_SLOTS, machine_memory

_START = 60.0  # seconds that a loaded machine may need to start an interpreter and the service
_STOP = 15.0  # seconds that the service has to end its jobs and remove its folder
# This very package, from its own place; nothing is ever imported from the directory in which the program was started.
PROGRAM = """\
import sys
sys.path[:] = filter(None, sys.path)
from importlib.util import module_from_spec, spec_from_file_location
folder = sys.argv.pop(1)
spec = spec_from_file_location("prominence_executor", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules[spec.name] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from prominence_executor.service.__main__ import main
sys.exit(main())
"""


class Child:
    """A running embedded service, watched by a thread. Every method may be called from any thread.

    `_lock` guards whether it is being stopped, why it has died, and who is to be told.
    """

    def __init__(self, url: str, token: str, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.url, self.token, self.process = url, token, process
        self._directory = directory
        self._lock = threading.Lock()
        self._stopping = False
        self._died: str | None = None
        self._told: list[Callable[[str], None]] = []
        self._watcher = threading.Thread(target=self._watch, name=f"prominence-local-{process.pid}", daemon=True)
        self._watcher.start()

    @property
    def died(self) -> str | None:
        """Why the service has ended though nobody stopped it, as a sentence."""
        with self._lock:
            return self._died

    def on_death(self, told: Callable[[str], None]) -> None:
        """Have a function called, in a thread of this object's, if the service ends though nobody stops it."""
        with self._lock:
            if self._died is None:
                self._told.append(told)
                return
            died = self._died
        told(died)

    def stop(self) -> None:
        """End the service and its jobs; blocks until the process is gone. May be called twice."""
        with self._lock:
            self._stopping = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if threading.current_thread() is not self._watcher:
            self._watcher.join(_STOP)  # not for ever: what it tells of a death runs others' code

    def _watch(self) -> None:
        code = self.process.wait()
        if code:
            self._clear()
        with self._lock:
            if self._stopping:
                return
            signals = {number.value: number.name for number in signal.Signals}
            by = signals.get(-code, f"signal {-code}")
            ended = f"was ended by {by}" if code < 0 else f"has ended with exit code {code}"
            died = self._died = f"the embedded service (process {self.process.pid}) {ended}, and its jobs with it"
            told, self._told = self._told, []
        for each in told:
            each(died)

    def _clear(self) -> None:
        """End the tasks of a service that could not do so itself, and remove its directory."""
        try:
            left = {path.name: path for path in (self._directory / "sandboxes").iterdir()}
        except OSError:
            left = {}
        processes.kill_all(left)
        remove_tree(self._directory)

    def __repr__(self) -> str:
        return f"<embedded service at {self.url}, process {self.process.pid}>"


def launch(cpus: int = 0, memory: int = 0) -> Child:
    """Start the embedded service and wait until it answers.

    cpus, memory (GB): slots that it offers at least; no fewer than the machine has.

    Raises:
        ImportError: the extra ``local`` is not installed.
        RuntimeError: the service did not start; the message holds what it said.
    """
    missing = [name for name in ("aiohttp", "jwt") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the embedded service needs {', '.join(missing)}: pip install 'prominence-executor[local]'",
            name=missing[0],
        )
    slots = {"--cpus": max(os.cpu_count() or 1, cpus), "--memory": max(machine_memory(), memory)}
    answers, says = os.pipe()
    with open(answers, "rb") as answer:
        try:
            process = _start([f"{name}={min(number, MOST_SLOTS)}" for name, number in slots.items()], says)
        finally:
            os.close(says)
        overdue = threading.Timer(_START, process.kill)
        overdue.start()
        try:
            line = answer.readline()
        finally:
            overdue.cancel()
            overdue.join()
    if not line:
        if process.stdin is not None:
            process.stdin.close()
        code = process.wait()
        raise RuntimeError(f"the embedded service did not start (exit code {code}); its message is above")
    ready = json.loads(line)
    return Child(ready["url"], ready["token"], Path(ready["dir"]), process)


def _start(options: list[str], says: int) -> subprocess.Popen[bytes]:
    """Start the program; it says through a descriptor when it is ready, and where."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), "--child", f"--says={says}", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(says,),
        start_new_session=True,
    )
