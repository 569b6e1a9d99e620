"""LocalService: the life of one service, from its directory to its port.

Owns every thread, socket, file and process of the service and leaves none behind. The HTTP server is imported when a
service starts, so that importing this package costs nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .node.platform import Platform
from .serving import is_needed, keep_port, last_port, nobody_serves, who_serves, who_serves_elsewhere
from .state.authority import certified, hosts_of, own_name
from .state.clock import Clock
from .state.directory import lock_directory

if TYPE_CHECKING:
    import socket
    import ssl

    from .engines.base import Engine

DEFAULT_USER = "local"
ENGINES = ("local", "slurm")
MOST_SLOTS = 1_000_000
_TOKEN_SECONDS = 365 * 86400
_MISSING = "the embedded service needs aiohttp and PyJWT: pip install 'prominence-executor[local]'"


def machine_memory() -> int:
    """Return the machine's memory in whole GB, at least 1."""
    return max(1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30)


def check_numbers(port: int, cpus: int | None, memory: int | None, seconds_per_minute: float) -> None:
    """Raise ValueError, with a sentence, for what no service can have."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    for name, number in (("cpus", cpus), ("memory", memory)):
        if number is not None and not 1 <= number <= MOST_SLOTS:
            raise ValueError(f"{name} must be 1 to {MOST_SLOTS}, not {number}")
    if not 0 < seconds_per_minute <= 60 * 60:  # which nan is not either
        raise ValueError(f"seconds_per_minute must be above 0, and at most 3600, not {seconds_per_minute}")


class LocalService:
    """A PROMINENCE service on 127.0.0.1 whose jobs run on this machine.

    dir: where its state lives; without one, a temporary directory that goes with the service.
    port: 0 takes a free one. cpus, memory (GB): the slots that jobs share, by default the machine's.
    seconds_per_minute: shortens walltimes and queue times, for tests.
    containers: "process" runs tasks as plain processes and reads no image; "real" runs them in containers,
    by udocker or Apptainer as each task's runtime says.
    smtp: "HOST:PORT" of a mail server for notifications; without one they are written to `dir`/mail.
    certfile, keyfile: a certificate for 127.0.0.1 and its key (PEM), with which the service speaks HTTPS alone.
    cafile: the authority behind it, if no public one; tasks find it, or a copy, by PROMINENCE_SSL_VERIFY.
    platform: how it is to behave as the real platform does, slow and quirky; by default not at all.
    clock: what tells it the time, for tests.
    url_for_jobs: the address that jobs are told, where they are to reach the service by another one, as behind a proxy.

    engine: "local" runs jobs on this machine; "slurm" submits them to Slurm, and needs a `dir` that all nodes see.
    engine_options: what is said to Slurm for every job, by sbatch's names (partition, account, qos, constraint, gres,
    ...), `extra` (more words for sbatch), `poll_seconds` between two looks at the queue (2), `look_seconds`, at most,
    between two into the folder of what jobs say (1), and `limits_seconds` between two at partitions and limits (600).

    bind: the address (IPv4) at which it listens. At any but 127.0.0.1 others would read along, so without `certfile` it
    has a certificate of an authority of its own, which the program `openssl` makes; `cafile` is then that authority.
    public_url: its URL for clients, jobs and signed objects, where that is not the address, as behind a name.

    `url`, `token`, `dir` and `cafile` are there from `start` (or `with`) to `stop`. Raises ImportError when the `local`
    extra is not installed, RuntimeError when another service uses `dir` or others could have changed what lies there,
    and ValueError when a newer version has written it, or a number is none that a service can have.
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
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        cafile: str | os.PathLike[str] | None = None,
        platform: Platform | None = None,
        clock: Clock | None = None,
        url_for_jobs: str | None = None,
        engine: str = "local",
        engine_options: Mapping[str, str] | None = None,
        bind: str = "127.0.0.1",
        public_url: str | None = None,
    ) -> None:
        if certfile is None and (keyfile or cafile):
            raise ValueError("keyfile and cafile belong to a certificate: certfile is missing")
        if containers not in ("process", "real"):
            raise ValueError(f"containers must be 'process' or 'real', not {containers!r}")
        check_numbers(port, cpus, memory, seconds_per_minute)
        if engine not in ENGINES:
            raise ValueError(f"engine must be {' or '.join(map(repr, ENGINES))}, not {engine!r}")
        if engine != "local" and dir is None:
            raise ValueError(f"engine={engine!r} needs a directory that all nodes see: dir is missing")
        if public_url is not None and not public_url.startswith(("http://", "https://")):
            raise ValueError(f"public_url must begin with http:// or https://, not {public_url!r}")
        self._bind, self._public_url = bind, public_url
        self._engine, self._engine_options = engine, dict(engine_options or {})
        self._clock = clock or Clock()
        self._wanted_dir = None if dir is None else Path(dir)
        self._port = port
        self.cpus = cpus if cpus is not None else os.cpu_count() or 1
        self.memory = memory if memory is not None else machine_memory()
        self.seconds_per_minute = seconds_per_minute
        self._username = username
        self._containers, self._smtp = containers, smtp
        self._certfile, self._keyfile = certfile, keyfile
        self._cafile = None if cafile is None else Path(cafile).resolve()
        self._platform = platform or Platform()
        self._url_for_jobs = url_for_jobs
        self._stack = ExitStack()
        self.dir: Path
        self.url: str
        self.token: str
        self.cafile: Path | None = None

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
            RuntimeError: another service uses the directory, or others could have changed what lies there, or its
                database is damaged.
            OSError: the port is taken, or the directory cannot be written.
            ValueError: `smtp` is not "HOST:PORT", the certificate cannot be used, or a newer version has written the
                directory.
        """
        import sqlite3

        try:
            self._start()
        except sqlite3.Error as error:
            raise RuntimeError(f"the database {self.dir / 'state.sqlite'} cannot be used: {error}") from error

    def _start(self) -> None:
        try:
            from . import assembly
            from .containers.base import PlainProcesses
            from .containers.tasks import ContainerRuntimes
            from .execution.context import ServiceContext
            from .http import server
            from .state.objects import ObjectStore
            from .state.store import Store
            from .state.tokens import Signer, load_secret
            from .state.vital import VitalThreads
        except ImportError as error:
            if (error.name or "").partition(".")[0] in ("aiohttp", "jwt"):
                raise ImportError(_MISSING, name=error.name) from error
            raise
        with ExitStack() as stack:
            self.dir = self._take_directory(stack)
            self._signer = Signer(load_secret(self.dir / "secret"), self._clock)
            store = Store(self.dir / "state.sqlite", self._clock, alone=self._engine != "local")
            stack.callback(store.close)
            secured = self._secured(server.tls)
            listener = stack.enter_context(self._listener(server.bind))
            host = own_name() if self._bind == "0.0.0.0" else self._bind  # noqa: S104 (it is compared)
            address = f"http{'s' if secured else ''}://{host}:{listener.getsockname()[1]}/prominence/v1"
            self.url = address if self._public_url is None else self._public_url.rstrip("/")
            shared = self._engine != "local"  # with jobs on other machines
            objects = ObjectStore(self.dir / "objects", shared=shared)
            real = self._containers == "real"
            containers = ContainerRuntimes(self.dir, objects, shared=shared) if real else PlainProcesses()
            vital = VitalThreads()
            how = assembly.Place(
                self.dir, objects, containers, self._platform, self.seconds_per_minute, self._clock, vital
            )
            if self._engine == "slurm":
                engine: Engine = assembly.slurm(how, self._containers, self._engine_options)
            else:
                engine = assembly.local(how, self.cpus, self.memory)
            context = ServiceContext(
                self.dir,
                store,
                objects,
                self._signer,
                self.url,
                engine,
                containers,
                self.seconds_per_minute,
                self._platform,
                self._clock,
                self._url_for_jobs or self.url,
                vital,
                None if self._engine == "local" else self._username,
                self.cafile,
            )
            self._store, self._busy_at = store, self._clock.monotonic()
            self._asked_at = assembly.run(stack, context, listener, secured, self._smtp)
            self.token = self.token_for(self._username)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End all running jobs and threads; blocks until they have. Waiting jobs stay in `dir` for the next start.

        May be called twice.
        """
        self._stack.close()

    def token_for(self, username: str, expires_in: float = _TOKEN_SECONDS, groups: tuple[str, ...] = ()) -> str:
        """Make a bearer token for a user of this service; it expires in so many seconds."""
        return self._signer.token(username, expires_in, groups=groups)

    def idle_seconds(self) -> float:
        """Return for how long nobody has asked for anything; 0 while there are open jobs, or programs that need it."""
        if self._store.has_open_jobs() or is_needed(self.dir):
            self._busy_at = self._clock.monotonic()
        return self._clock.monotonic() - max(self._busy_at, self._asked_at())

    def _secured(self, tls: Callable[[Path, Path | None], ssl.SSLContext]) -> ssl.SSLContext | None:
        certfile, self.cafile = self._certfile, self._cafile
        if certfile is None:
            if self._bind.startswith("127."):
                return None
            public = None if self._public_url is None else urlsplit(self._public_url).hostname
            own = certified(self.dir / "tls", hosts_of(self._bind, public))
            certfile, self.cafile = own.certfile, own.cafile
        if self.cafile is not None and not self.cafile.is_file():
            raise ValueError(f"cafile is no file: {self.cafile}")
        try:
            return tls(Path(certfile), None if self._keyfile is None else Path(self._keyfile))
        except OSError as error:
            raise ValueError(f"the certificate {certfile} or its key cannot be used: {error}") from error

    def _listener(self, bind: Callable[[int, str], socket.socket]) -> socket.socket:
        """Listen at the wanted port; where jobs outlive the service, at the last one again, which they know."""
        if self._engine == "local" or self._port:
            return bind(self._port, self._bind)
        try:
            listener = bind(last_port(self.dir), self._bind)
        except OSError:
            listener = bind(0, self._bind)
        keep_port(self.dir, listener.getsockname()[1])
        return listener

    def _take_directory(self, stack: ExitStack) -> Path:
        if self._wanted_dir is None:
            directory = Path(tempfile.mkdtemp(prefix="prominence-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        else:
            directory = self._wanted_dir
        directory = directory.resolve()
        try:
            stack.callback(os.close, lock_directory(directory))
        except RuntimeError as error:
            serving = who_serves(directory)
            raise RuntimeError(f"{error}: {serving}" if serving else str(error)) from error
        serving = who_serves_elsewhere(directory)
        if serving is not None:
            raise RuntimeError(f"another service uses the directory {directory}: {serving}")
        nobody_serves(directory)
        return directory
