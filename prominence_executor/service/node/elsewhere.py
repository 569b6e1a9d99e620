"""What the node's program does: takes a ticket, runs its job, and says what became of it. One job a process."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from ..containers.base import DEVICES, Containers, PlainProcesses
from ..sandbox.held import held
from ..sandbox.sandbox import Sandbox, kept_directory
from ..state.directory import own_directory
from ..state.objects import ObjectStore
from ..state.shortage import AGAIN, shortage
from . import oom
from .job_run import JobRun, take_snapshot
from .machine import loopback
from .outcome import OVER_MEMORY, OVER_WALLTIME, WAITS, Outcome
from .ticket import BEGAN, ENDED, SIGNALLED, Places, Ticket, read
from .ticket import got as read_file

_FAILED = 1
_INSIST_SECONDS = 600.0  # for which a claim, or an outcome, is tried to be left
Result = TypeVar("Result")


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; 0 when it could be tried."""
    verb, directory, name, what = arguments
    places = Places(Path(directory))
    if verb == "run":
        batch = read_file(places.batches / f"{name}.json")
        name = dict(enumerate(batch["tickets"] if batch else ())).get(int(what), name)
    document = read_file(places.ticket(name))
    if document is None:  # it was cancelled
        return 0
    ticket = read(document)
    return _run(places, ticket) if verb == "run" else _inside(places, ticket, verb, what)


def _run(places: Places, ticket: Ticket) -> int:
    if not insist(lambda: places.claim(ticket.name)):
        return 0
    with ExitStack() as stack:
        try:
            outcome = _ran(places, ticket, stack)
        except Exception as error:  # noqa: BLE001 (whatever it is, the service waits for a word)
            outcome = Outcome("failed", f"Internal error: {type(error).__name__}: {error}")
        _say(places, ticket, outcome)
    return 0


def _ran(places: Places, ticket: Ticket, stack: ExitStack) -> Outcome:
    """Run a job in a sandbox that goes with the stack; return what became of it."""
    objects = ObjectStore(places.directory / "objects", owner=False)
    try:
        sandbox = stack.enter_context(held(_parent(places, ticket), places.directory / "bin", _kept(ticket)))
        places.say(ticket.name, BEGAN, _began(ticket, sandbox))
    except OSError as error:
        if shortage(error) is None:
            raise
        return Outcome(WAITS, shortage(error))
    run = JobRun(_spec(ticket), sandbox, objects, _containers(places, ticket, objects))
    before = oom.killed()
    with _Ends(run, ticket.seconds) as ends:
        return memory_considered(ends.considered(run()), oom.killed() - before)


def _began(ticket: Ticket, sandbox: Sandbox) -> dict[str, Any]:
    """Return what is said of a run that has begun: where, and by which numbers the engine knows it."""
    number = os.environ.get(ticket.id_variable, "")
    return {
        "node": os.uname().nodename, "id": number, "batch": os.environ.get(ticket.batch_variable, number),
        "mark": sandbox.mark, "parent": str(sandbox.root.parent), "time": time.time(),
    }  # fmt: skip


def memory_considered(outcome: Outcome, killed: int) -> Outcome:
    """Return what became of a run of which the kernel has killed so many processes for lack of memory. Pure."""
    if killed and outcome.status == "completed" and outcome.task_failed:
        return Outcome("killed", OVER_MEMORY, outcome.execution, outcome.uploaded)
    return outcome


def _say(places: Places, ticket: Ticket, outcome: Outcome) -> None:
    """Leave an outcome, as soon as there is room for it."""
    insist(lambda: places.say(ticket.name, ENDED, asdict(outcome)))


def insist(write: Callable[[], Result]) -> Result:
    """Write something as soon as there is room for it; return what that returns. Raises OSError after a while."""
    until = time.monotonic() + _INSIST_SECONDS
    while True:
        try:
            return write()
        except OSError as error:
            if shortage(error) is None or time.monotonic() > until:
                raise
        time.sleep(AGAIN)


def _spec(ticket: Ticket) -> Any:
    """Return the spec of a job with the engine's variables, by which mpirun finds several nodes."""
    env = {**passed_on(os.environ, ticket.passed), **safe(ticket.spec.env, ticket.loopback, loopback())}
    on_node = [shutil.which(word) or word for word in ticket.on_node[:1]] + list(ticket.on_node[1:])
    return replace(ticket.spec, env=env, apart=bool(ticket.passed), on_node=tuple(on_node))


def passed_on(environment: Mapping[str, str], beginnings: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that tasks see of their node's: those that begin so, and which devices are theirs. Pure."""
    return {
        name: value for name, value in environment.items() if name.startswith(beginnings) or name in DEVICES
    }  # fmt: skip


def safe(env: dict[str, str], service: str, here: str) -> dict[str, str]:
    """Return a task's variables without the token, where the service's address means another machine. Pure.

    There anybody may listen at its port. service: which machine alone reaches it, "" where others do.
    """
    return {**env, "PROMINENCE_TOKEN": ""} if service not in ("", here) else env


def _parent(places: Places, ticket: Ticket) -> Path:
    """Return where sandboxes are made: on the node itself, or, where several share one, in the shared directory."""
    if ticket.spec.nodes > 1:
        return own_directory(places.directory / "sandboxes")
    return own_directory(Path(tempfile.gettempdir()) / f"prominence-{os.getuid()}")


def _kept(ticket: Ticket) -> Path | None:
    """Return the node's own directory for jobs of one user, where there is one node."""
    if ticket.spec.nodes > 1:
        return None
    with suppress(OSError, RuntimeError):  # somebody else's: jobs do without
        return kept_directory(Path(tempfile.gettempdir()) / f"prominence-{os.getuid()}-kept", ticket.spec.user)
    return None


def _containers(places: Places, ticket: Ticket, objects: ObjectStore) -> Containers:
    if ticket.containers == "process":
        return PlainProcesses()
    from ..containers.tasks import ContainerRuntimes

    return ContainerRuntimes(places.directory, objects, shared=True)


class _Ends:
    """Ends a run at its walltime, or when the engine asks for it by a signal. Those are heard in a thread.

    A handler runs in the thread of the job, between any two of its steps, locks held: it notes only that there was one.
    """

    def __init__(self, run: JobRun, seconds: float) -> None:
        self._run, self._signalled = run, False
        self._timer = threading.Timer(seconds, run.end_with, ("killed", OVER_WALLTIME))
        self._timer.daemon = True
        self._hears, self._tells = os.pipe()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Ends:
        os.set_blocking(self._tells, False)
        signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
            signal.signal(number, self._note)
        self._thread.start()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def considered(self, outcome: Outcome) -> Outcome:
        """Return what became of the run: tasks get the engine's signal as well, and may be the first that it ends."""
        if self._signalled and outcome.status != "killed":
            return replace(outcome, status=SIGNALLED, reason=None)
        return outcome

    def _note(self, *_: object) -> None:
        self._signalled = True

    def _listen(self) -> None:
        while numbers := os.read(self._hears, 1):
            if numbers[0] in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
                self._run.end_with(SIGNALLED, None)


def _inside(places: Places, ticket: Ticket, verb: str, what: str) -> int:
    """Do something next to the tasks of a job that runs here."""
    began = places.heard(ticket.name, BEGAN)
    if began is None:
        return _FAILED
    objects = ObjectStore(places.directory / "objects", owner=False)
    sandbox = Sandbox(Path(began["parent"]), places.directory / "bin", began["mark"])
    if not sandbox.home.is_dir():
        return _FAILED
    if verb == "snapshot":
        return 0 if take_snapshot(sandbox, objects, ticket.spec.place, what) else _FAILED
    spec = _spec(ticket)
    runner = _containers(places, ticket, objects).task_runner(sandbox, spec.user, spec.body["tasks"], lambda: False)
    if ticket.containers != "process":
        runner.pull(0, {})
    command = runner.beside(what.split(","), spec.env)
    if command is None:
        return _FAILED
    os.dup2(1, 2)
    os.chdir(command.cwd)
    return os.execvpe(command.argv[0], command.argv, command.env)  # noqa: S606 (the command of the job's user)
