"""LocalService: the life of one service, from its directory to its port.

Owns every thread, socket, file and process of the service and leaves none behind. Flask and waitress are imported
when a service starts, so that importing this package costs nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from .state.directory import lock_directory

DEFAULT_USER = "local"
_TOKEN_SECONDS = 365 * 86400
_MISSING = "the embedded service needs Flask, waitress and PyJWT: pip install 'prominence-executor[local]'"


def machine_memory() -> int:
    """Return the machine's memory in whole GB, at least 1."""
    return max(1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30)


class LocalService:
    """A PROMINENCE service on 127.0.0.1 whose jobs run on this machine.

    dir: where its state lives; without one, a temporary directory that goes with the service.
    port: 0 takes a free one. cpus, memory (GB): the slots that jobs share, by default the machine's.
    seconds_per_minute: shortens walltimes and queue times, for tests.
    containers: "process" runs tasks as plain processes and reads no image; "real" runs them in containers,
    by udocker or Apptainer as each task's runtime says.
    smtp: "HOST:PORT" of a mail server for notifications; without one they are written to `dir`/mail.
    url_for_jobs: the address that jobs are told, where they are to reach the service by another one, as behind a proxy.

    `url`, `token` and `dir` are there from `start` (or `with`) to `stop`. Raises ImportError when the `local` extra
    is not installed, and RuntimeError when another service uses `dir`, or others could have changed what lies there,
    and ValueError when a newer version has written it.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        cpus: int | None = None,
        memory: int | None = None,
        seconds_per_minute: float = 60,
        username: str = DEFAULT_USER,
        containers: str = "process",
        smtp: str | None = None,
        url_for_jobs: str | None = None,
    ) -> None:
        if containers not in ("process", "real"):
            raise ValueError(f"containers must be 'process' or 'real', not {containers!r}")
        self._wanted_dir = None if dir is None else Path(dir)
        self._port = port
        self.cpus = cpus if cpus is not None else os.cpu_count() or 1
        self.memory = memory if memory is not None else machine_memory()
        self.seconds_per_minute = seconds_per_minute
        self._username = username
        self._containers, self._smtp = containers, smtp
        self._url_for_jobs = url_for_jobs
        self._stack = ExitStack()
        self.dir: Path
        self.url: str
        self.token: str

    def __enter__(self) -> LocalService:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every thread and listen, or leave nothing behind; blocks until it can be asked.

        Raises:
            ImportError: the extra `local` is not installed.
            RuntimeError: another service uses the directory, or others could have changed what lies there.
            OSError: the port is taken, or the directory cannot be written.
            ValueError: `smtp` is not "HOST:PORT", or a newer version has written the directory.
        """
        try:
            from .containers.base import PlainProcesses
            from .containers.tasks import ContainerRuntimes
            from .engines.local import LocalEngine
            from .execution.context import ServiceContext
            from .execution.notifications import Mail
            from .execution.scheduler import Scheduler
            from .execution.workflows import Workflows
            from .http import server
            from .http.app import create_app
            from .state.objects import ObjectStore
            from .state.store import Store
            from .state.tokens import Signer, load_secret
        except ImportError as error:
            if (error.name or "").partition(".")[0] in ("flask", "waitress", "jwt", "werkzeug"):
                raise ImportError(_MISSING, name=error.name) from error
            raise
        with ExitStack() as stack:
            self.dir = self._take_directory(stack)
            self._signer = Signer(load_secret(self.dir / "secret"))
            store = Store(self.dir / "state.sqlite")
            stack.callback(store.close)
            listener = server.bind(self._port)
            stack.callback(listener.close)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/prominence/v1"
            objects = ObjectStore(self.dir / "objects")
            containers = ContainerRuntimes(self.dir, objects) if self._containers == "real" else PlainProcesses()
            engine = LocalEngine(self.dir, self.cpus, self.memory)
            context = ServiceContext(
                self.dir, store, objects, self._signer, self.url, engine, containers, self.seconds_per_minute,
                url_for_jobs=self._url_for_jobs or self.url,
            )  # fmt: skip
            scheduler = Scheduler(context)
            workflows = Workflows(store, scheduler, engine.cpus)
            mail = Mail(store, self.dir / "mail", self._smtp)
            scheduler.on_ended = (workflows.job_ended, mail.job_ended)
            application = create_app(context, scheduler, workflows)
            http = server.Server(application, listener)
            stack.callback(http.stop)
            mail.start()
            stack.callback(mail.stop)
            scheduler.start()
            stack.callback(scheduler.stop)
            workflows.recover()
            http.start()
            self.token = self.token_for(self._username)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End all running jobs and threads. Waiting jobs stay in `dir` for the next start. May be called twice."""
        self._stack.close()

    def token_for(self, username: str, expires_in: float = _TOKEN_SECONDS, groups: tuple[str, ...] = ()) -> str:
        """Make a bearer token for a user of this service; it expires in so many seconds."""
        return self._signer.token(username, expires_in, groups=groups)

    def _take_directory(self, stack: ExitStack) -> Path:
        if self._wanted_dir is None:
            directory = Path(tempfile.mkdtemp(prefix="prominence-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        else:
            directory = self._wanted_dir
        directory = directory.resolve()
        stack.callback(os.close, lock_directory(directory))
        return directory
