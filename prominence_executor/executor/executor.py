"""`ProminenceExecutor`: the ``concurrent.futures`` contract, kept by jobs of a PROMINENCE service.

    submit, map      the caller's thread: pickles, queues, returns at once (`MapFunctions` has map and its relatives)
    JobTransport     transports/jobs: calls as jobs, created, polled and fetched by its threads
    WarmPool         transports/warm: calls in batches to jobs that stay
    Run              joins them; outlives a forgotten executor until its futures are done

This module may not talk to the service itself. It is longer than others, since its docstrings are what users read.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast

from ..client.client import ProminenceClient
from ..client.model import JobPolicies, Resources
from ..client.profiles import find_profile
from ..environments.store import LIMIT
from ..payload.dependencies import Value
from ..payload.modules import DATA_LIMIT
from ..public import public
from ..reports.report import Report
from ..reports.running import facts_of_run, report_of_run
from ..run.future import ProminenceFuture, raised_by_call
from ..run.journal import Journal
from ..run.names import new_run_id
from ..run.objects import RefCache
from ..run.options import Options
from ..run.retry import Retry
from ..transports.warm.options import Warm
from ..transports.warm.state import WorkerInfo
from .adoption import RunSnapshot, plan_adoption
from .arguments import value_of
from .attach import check_new, find, find_again
from .auto_chunks import free_slots
from .function import PickledFunction, PickledFunctions
from .image_check import ImageReport, check_image
from .mapping import BeforeSending, MapFunctions
from .purge import purge
from .run import Run
from .settings import (
    SERVICE_TIMEOUT,
    Service,
    engine_labels,
    find_service,
    fitting,
    run_settings,
    usual_resources,
    warm_options,
)
from .submission import Call, PackedCalls, in_order, pack
from .warn import warn_of_short_calls
from .watching import watch

P = ParamSpec("P")
T = TypeVar("T")

_MANY = 1000  # what _max_workers says when nothing bounds the jobs: dask and others size their batches by it


@public
class ProminenceExecutor(MapFunctions):
    """Runs calls as batch jobs; a drop-in for ``ProcessPoolExecutor`` with futures that know their job.

    Without arguments it takes the service's URL from ``PROMINENCE_URL`` and the token from ``PROMINENCE_TOKEN`` or
    ``~/.prominence/token``. With the URL ``"local"`` it starts the embedded service on this machine for its lifetime
    (needs the extra ``local``); ``max_workers`` calls run there at once, however many cores the machine has. With
    ``"slurm"`` it finds the service in front of this machine's Slurm, or starts it; that one stays. Nothing is sent
    before the first `submit`.

    Args:
        url: the service's base URL, ``".../prominence/v1"``, or ``"local"``, or ``"slurm"``.
        token: the bearer token, or a callable that returns a fresh one.
        profile: the name of a profile of the file that the command ``config`` writes; what is not given as an argument
            (URL, token, image, runtime, resources) is as it says. It goes before the variables; without it they go
            before the profile that ``PROMINENCE_PROFILE`` names, or ``default``.
        image: the container image; it needs Python of this program's minor version. Default ``python:X.Y-slim``. A
            file of this machine (a path object, or a path with a slash) is uploaded once, by its content.
        runtime: ``"singularity"`` or ``"udocker"``; by default chosen by the image's name.
        resources: CPUs, memory (GB), disk (GB), walltime (minutes) of each job.
        policies: the service's job policies.
        labels: labels of each job in addition to the executor's own.
        env: environment variables of each call. ``OMP_NUM_THREADS`` and its like are set to the job's CPUs (of MPI:
            those of a rank) where neither this nor the image says anything.
        files: local files (a path, or bytes) by the names, relative paths, under which each call finds them in its
            working directory. They are read when the job is sent, and must not change until then; large ones are
            uploaded once, and kept under the digest of their content.
        outputs: patterns of the files that a call writes and that come back as ``future.files``: ``"field.*.vtk"``,
            ``"**/*.log"``, or a directory. Relative to the job's directory. A pattern may match nothing.
        outputs_dir: where they go, each call's to ``outputs_dir/<run_id>/<number of the call>``; by default a temporary
            directory, which is removed when the program ends.
        task_type: ``"openmpi"``, ``"mpich"`` or ``"intelmpi"``: each call runs on all ranks of an MPI job, and returns
            the list of their results by rank.
        procs_per_node: MPI ranks on each of ``resources.nodes`` nodes; by default one for each CPU.
        retries: how often the calls of a job that ended without an outcome are sent again, in another job. A call that
            raised is never repeated, unless a `Retry` names what it raised; that also has calls ask for more memory or
            walltime the next time, and wait before. ``future.history`` shows the attempts.
        time_limit: seconds that a call may take from when its arguments have been loaded until its function returns or
            raises. The time in the queue does not count, nor that of the initializer, of unpickling (with the imports
            that it makes), and of storing the result; ``resources.walltime`` bounds those. A call that takes longer is
            ended, with all processes that it has started, by SIGKILL; its future raises `TimeLimitExceededError`. The
            calls behind it go on in a new process, in which the initializer runs again. Not for MPI calls.
        package_data: megabytes of data files that may travel with the user's own packages. If those that calls need
            hold more, none of it is sent, and a warning names the largest.
        requirements: packages that travel with the calls, and are found before those of the image: a list such as
            ``["numpy>=2", "scipy"]``, or the path of a requirements.txt or pyproject.toml (its dependencies). Versions
            are chosen here, by uv or pip, which blocks for seconds, and kept for later runs (the command ``env``); each
            job unpacks one archive, which is stored once.
        requirements_platform: the machines that these are for: ``"x86_64"``, ``"aarch64"``,
            ``"x86_64-manylinux_2_34"`` for a newer glibc than 2.28, ``"x86_64-musl"``. Default: this machine's kind.
        requirements_limit: megabytes that the archive may have.
        initializer, initargs: called once in each job, before its calls. When it raises, they do not run, and their
            futures raise `InitializerError`. What it changes in the script's variables and classes stays for all calls.
        name: what the run is called, as other runs may be: the label ``pxname`` of its jobs, and, without ``run_id``,
            the beginning of its id, and so of the jobs' names.
        run_id: the whole id, by which `attach` finds the run again. One request is made here, to see that it is new.
        journal: a file that keeps each call until the service has accepted it, so that `attach` can submit what a
            killed program had not. It is removed when the run has ended and nothing is left in it.
        max_workers: at most so many jobs of this executor at the service at once; None leaves queueing to the service.
        poll_interval: seconds between two looks at the jobs: one number, or the (shortest, longest) of an interval that
            adapts to how often jobs end. Default (0.1, 30).
        service_timeout: seconds for which the service may be away, or hold a job, before open futures give up; those
            count in which this machine is awake. Default 900, but 10 for calls as jobs while nobody has ever answered
            at the URL, which may be wrong then.
        on_interrupt: what becomes of outstanding jobs when the program is interrupted (Ctrl-C, ``sys.exit``, but not
            a call's) inside the ``with`` block, or while it waits for its futures at its end: ``"delete"`` or
            ``"leave"``. By default they are deleted, unless a sweep with a store can find them again.
        cancel_running: ``future.cancel()`` ends a call that runs, too, and so does all that cancels futures: a task of
            asyncio that is cancelled while it awaits one, `map`'s iterator, ``shutdown(cancel_futures=True)``.
        lazy: leave results of more than 1 MB at the service until ``future.result()`` asks for them, also after the
            executor's end (but the service that ``"local"`` started ends with it), or ``future.save()``.

        workers: ``"warm"``: calls go to jobs that stay, and take one after the other, so that a call need not wait for
            a job; for many short calls. A call then runs in a process in which others ran before; one whose worker is
            lost goes to another one, and may so run more than once. What is large (128 kB) has a job of its own;
            what calls share is sent to each worker once, if it can be fetched there in 10 s.
            ``resources.walltime`` is that of a worker. ``Warm(...)`` in its place has their settings.
        min_workers, idle_timeout, max_attempts, max_requests_per_second: as in `Warm`, beside ``workers="warm"``;
            ``max_workers`` is their number at most, too (default 8).
        engine: what is said to Slurm for each job, by sbatch's names: ``partition``, ``account``, ``qos``,
            ``constraint``, ``gres``, ``reservation``, ``licenses``, and ``extra``, more words for sbatch. With
            ``url="slurm"`` also ``dir``, the directory of the service (default ``~/.prominence/slurm``), which all
            nodes must see, and for a service that is started here ``bind``, the address at which nodes reach it (by
            HTTPS), ``public_url``, ``containers`` (``"real"``), ``poll_seconds`` and ``look_seconds``.

    Raises:
        AuthenticationError: there is no token, or it has expired.
        ValueError: a value that the service would not take, or no URL.
        FileNotFoundError: the image is a file that is not there.
        RequirementsError: no versions meet the requirements, or the package index cannot be asked.
        RunExistsError: there is a run of this ``run_id``, or in this journal.
        ImportError: ``"local"`` without the extra ``local``.
        RuntimeError: the service of ``"slurm"`` did not start, or runs on another host; the sentence says why.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        image: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        resources: Resources | None = None,
        policies: JobPolicies | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | os.PathLike[str] | bytes] | None = None,
        outputs: Sequence[str] | None = None,
        outputs_dir: str | os.PathLike[str] | None = None,
        task_type: str | None = None,
        procs_per_node: int | None = None,
        retries: int | Retry = 0,
        time_limit: float | None = None,
        package_data: float = DATA_LIMIT,
        requirements: Sequence[str] | str | os.PathLike[str] | None = None,
        requirements_platform: str | None = None,
        requirements_limit: float = LIMIT,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        name: str | None = None,
        run_id: str | None = None,
        journal: str | os.PathLike[str] | None = None,
        max_workers: int | None = None,
        poll_interval: float | tuple[float, float] = (0.1, 30.0),
        service_timeout: float | None = None,
        on_interrupt: Literal["delete", "leave"] | None = None,
        cancel_running: bool = False,
        lazy: bool = False,
        workers: Literal["warm"] | Warm | None = None,
        min_workers: int | None = None,
        idle_timeout: float | None = None,
        max_attempts: int | None = None,
        max_requests_per_second: float | None = None,
        engine: Mapping[str, str] | None = None,
        profile: str | None = None,
    ) -> None:
        labels = engine_labels(labels, engine)
        usual = find_profile(profile)
        options = Options().changed(
            image=usual.get("image") if image is None else image,
            runtime=usual.get("runtime") if image is runtime is None else runtime,
            resources=usual_resources(usual) if resources is None else resources,
            policies=policies,
            labels=labels,
            env=env,
            files=files,
            outputs=outputs,
            outputs_dir=outputs_dir,
            task_type=task_type,
            procs_per_node=procs_per_node,
            retries=retries,
            time_limit=time_limit,
            package_data=package_data,
            requirements=requirements,
            requirements_platform=requirements_platform,
            requirements_limit=requirements_limit,
        )
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        for field, value in (("name", name), ("run_id", run_id)):
            if value is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value):
                raise ValueError(f"{field} must be 1 to 100 letters, digits, '_', '.' or '-', not {value!r}")
        warm = warm_options(
            workers,
            max_workers,
            min_workers=min_workers,
            idle_timeout=idle_timeout,
            max_attempts=max_attempts,
            max_requests_per_second=max_requests_per_second,
        )
        timeout = SERVICE_TIMEOUT if service_timeout is None else service_timeout
        settings = run_settings(max_workers, poll_interval, timeout, on_interrupt, lazy, warm, cancel_running)
        settings = replace(settings, name=name, patient=service_timeout is not None)
        service = find_service(url, token, timeout, max_workers, options.resources, engine, profile)
        key, new_id = secrets.token_bytes(32), run_id or new_run_id(name)
        try:
            settings = fitting(settings, service, workers, max_workers, options.resources)
            if run_id is not None:
                with service.connect() as client:
                    check_new(client, run_id)
            kept = None if journal is None else Journal.create(journal, new_id, key)
        except BaseException:
            service.stop()
            raise
        self._take(Run(service, new_id, key, settings, kept), options, initializer, initargs)

    @classmethod
    def attach(
        cls,
        run_id: str,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        takeover: bool = False,
        journal: str | os.PathLike[str] | None = None,
        max_workers: int | None = None,
        poll_interval: float | tuple[float, float] = (0.1, 30.0),
        service_timeout: float = SERVICE_TIMEOUT,
        on_interrupt: Literal["delete", "leave"] = "leave",
        cancel_running: bool = False,
        lazy: bool = False,
        outputs_dir: str | os.PathLike[str] | None = None,
        workers: Literal["warm"] | Warm | None = None,
        engine: Mapping[str, str] | None = None,
        profile: str | None = None,
    ) -> ProminenceExecutor:
        """Make an executor for a run that was begun elsewhere, live or ended; `futures` are its calls.

        Reads, and cancels; any number of programs may be attached to one run. It makes three requests here (two more,
        and two for each warm worker, if the run has had any), and blocks for them. What the service has of the run is
        all that it knows; below the highest call that it has, gaps are futures with `NotSubmittedError`. With the run's
        journal, what had not been submitted is submitted now.

        Args:
            run_id: the id that the executor had (it is printed when a program is interrupted).
            takeover: take new calls, too; only when the program that began the run has ended. Its functions and
                options are not known here; see `with_options`.
            journal: the file that the run was begun with, if this is the machine where it is.
            workers: ``"warm"`` or `Warm`: warm workers of its own, for new calls and those that only the journal has.
            url, token, profile, max_workers, poll_interval, service_timeout, on_interrupt, cancel_running, lazy,
                outputs_dir, engine: as for the executor itself.

        Raises:
            RunNotFoundError: there is no such run.
            ServiceUnavailableError: the service does not answer.
            RunExistsError: the journal is in use: the program that began the run is still there.
            ValueError: the journal is another run's; a newer version has begun the run, or written the journal.
        """
        warm = warm_options(workers, max_workers)
        settings = run_settings(max_workers, poll_interval, service_timeout, on_interrupt, lazy, warm, cancel_running)
        options = Options().changed(outputs_dir=outputs_dir, labels=engine_labels(None, engine))
        service = find_service(url, token, service_timeout, engine=engine, profile=profile)
        try:
            found, kept = find_again(service, run_id, journal, takeover)
        except BaseException:
            service.stop()
            raise
        run = Run(service, run_id, found.key, settings, kept, attached=True)
        return cls._attached(run, found, options, kept, takes_over=takeover, whole=journal is not None)

    def attach_beside(self, run_id: str, *, takeover: bool = False) -> ProminenceExecutor:
        """Make an executor for another run at the same service, with the same token: as `attach`, which reads.

        Args:
            takeover: the program that began the run has ended: warm workers that it has left end when its calls have,
                and no call waits for a worker that is lost. Nothing is taken over of an executor of this program.

        Raises:
            RunNotFoundError: there is no such run.
            ServiceUnavailableError: the service does not answer.
        """
        settings = replace(self._run.settings, on_interrupt="leave", warm=None, max_workers=None)
        service = Service(self._run.connect, lambda: None)
        with service.connect() as client:
            found = find(client, run_id, None)
        is_here = any(run.context.run_id == run_id and not run.has_ended for run in list(_runs))
        run = Run(service, run_id, found.key, settings, attached=True)
        return self._attached(run, found, Options(), None, owns=takeover and not is_here)

    @classmethod
    def _attached(
        cls,
        run: Run,
        found: RunSnapshot,
        options: Options,
        kept: Journal | None,
        *,
        takes_over: bool = False,
        whole: bool = False,
        owns: bool = False,
    ) -> ProminenceExecutor:
        """Make the executor of a run that another program has begun.

        ``whole``: all its calls are known. ``owns``: that program has ended.
        """
        plan = plan_adoption(found, kept.kept(run.context.objects) if kept else [], kept.next_call if kept else 0)
        run.context.log.log(*plan.report(complete=whole))
        executor = cls.__new__(cls)
        executor._take(run, options)
        executor._reads_only = not takes_over
        try:
            executor._found = run.dispatch.adopt(found, plan, options, owns=takes_over or whole or owns)
        except (KeyboardInterrupt, SystemExit):
            run.interrupt()  # nobody has the executor, and the program's end would wait for all calls
            raise
        return executor

    def leave_on_interrupt(self, how_to_go_on: str = "") -> None:
        """Leave outstanding jobs at the service when the program is interrupted, unless ``on_interrupt`` was given.

        For who can find them again, as a sweep with a store.

        Args:
            how_to_go_on: what the message about them ends with; default: that `attach` continues the run.
        """
        self._run.leave_on_interrupt(how_to_go_on)

    def _take(
        self,
        run: Run,
        options: Options,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        """Set what every new executor begins with."""
        self._run = run
        self._functions = PickledFunctions(run.context.objects, initializer, tuple(initargs))
        self._options = options
        self._max_workers = run.settings.max_workers or _MANY
        self._process = os.getpid()
        self._base: ProminenceExecutor | None = None  # of a view: the executor that it is a view of
        self._reads_only = False
        self._found: list[ProminenceFuture[Any]] = []  # the calls of another program
        _runs.add(run)
        weakref.finalize(self, run.shutdown, wait=False, cancel=False).atexit = False

    @property
    def run_id(self) -> str:
        """The name of the run to which all jobs of this executor belong (label ``pxrun``)."""
        return self._run.context.run_id

    @property
    def client(self) -> ProminenceClient:
        """The REST client, for what the executor itself has no method for."""
        return self._run.context.client

    def futures(self) -> list[ProminenceFuture[Any]]:
        """Return the run's calls in the order of their submission: those not done, and all that `attach` found."""
        calls = {future.index: future for future in (*self._run.registry.futures(), *self._found)}
        return [calls[index] for index in sorted(calls)]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ProminenceFuture[T]:
        """Run ``fn(*args, **kwargs)`` as a job; return its future at once, before anything is sent.

        What cannot be pickled is the future's exception, as in the standard library. The arguments are pickled now.
        Futures, of this executor or any other one, may stand anywhere in them: the call is sent when they are done, is
        given their results in their places, and fails with `DependencyError` when one of them has none.

        Raises:
            RuntimeError: after `shutdown`, or in a forked child.
            BrokenRunError: the run is broken, for example because the token is refused.
        """
        return cast("ProminenceFuture[T]", self._submit(self._function(fn), [(args, kwargs)])[0])

    def scatter(self, value: T) -> T:
        """Store an object at the service once, for many calls; return a reference to give to calls in its place.

        The reference may stand anywhere inside the arguments; the call finds the object itself there. The calls of one
        job share it, so they should not change it. It is pickled now, and uploaded when the first call is sent that
        needs it, unless the service has it from an earlier run; it stays there until `purge` removes it.

        A large argument (1 MB) of several calls is uploaded once without this, too, but has to be hashed for each call.

        Raises:
            RuntimeError: after `shutdown`, or in a forked child.
            Exception: what pickling the object raises, such as ``TypeError`` for a lock.
        """
        self._check_usable()
        return cast(T, self._run.context.objects.scatter(value))

    def scale(self, workers: int) -> None:
        """Have so many warm workers at least from now on; up to ``max_workers`` more are started for calls.

        Idle workers beyond that number end now. Returns at once. Nothing is started before the first `submit`.

        Raises:
            ValueError: ``workers`` is not 0 to ``max_workers``.
            RuntimeError: the executor has no warm workers.
        """
        self._run.scale(workers)

    def slots(self) -> int:
        """Tell how many calls can run at once: ``max_workers``, or for how many such jobs its sites have room.

        What others use now does not count. 1,000 where nobody says. Blocks for a request without
        ``max_workers``, for none with it, or with warm workers.

        Raises:
            ProminenceError: the service does not answer, or refuses.
        """
        most = self._run.settings.max_workers
        if most is not None:
            return most
        return free_slots(self.client.resources(), self._options.resources.json(), "capacity") or _MANY

    def workers(self) -> list[WorkerInfo]:
        """List the warm workers: job, state, calls done, and how many seconds ago each was last seen. Asks nobody."""
        return self._run.workers()

    def purge(self, older_than: float, *, images: bool = False) -> list[str]:
        """Delete what executors have stored at the service, of this user's runs, and no run needs any more.

        That is what is older than ``older_than`` seconds, and is used neither by an active job nor by this executor;
        and the mailboxes of warm workers that ended as long ago, of programs that could not remove them: `attach` finds
        less of such a run then. Container images are kept unless ``images`` is True. Returns the names of all that was
        deleted. Blocks for a few requests, and one or two for each name.

        Raises:
            ValueError: ``older_than`` is negative.
            ProminenceError: the service does not answer, or refuses.
        """
        if older_than < 0:
            raise ValueError(f"older_than must be 0 seconds or more, not {older_than!r}")
        return purge(self._run.context, older_than, images)

    def show_progress(self, progress: bool | None = True) -> None:
        """Show a bar of the calls that are open now, and block until they have ended; raises nothing of theirs.

        In a terminal or a notebook, by tqdm (the extra ``progress``). Ctrl-C ends the bar and raises KeyboardInterrupt.

        Args:
            progress: None: without tqdm, or where standard error is no terminal, wait without a bar.

        Raises:
            ImportError: tqdm is not installed.
        """
        watch(self.run_id, self.futures(), progress)

    def report(self) -> Report:
        """Report where the time of this run's jobs went, and how its calls might be better put together.

        By what this program has seen of them anyway: no request is made. Jobs whose calls have just ended are waited
        for, a second or two at most. For another program's run see `report_of`.
        """
        return report_of_run(self._run.context, self._run.registry)

    def check_image(self, timeout: float = 0) -> ImageReport:
        """Run one tiny job in the image, and compare Python, platform and packages there with this program's.

        Works with any Python 3 in the image, and without cloudpickle there. Blocks until the job has ended; a local
        image is uploaded first.

        Args:
            timeout: seconds to wait for the job; 0 for as long as it takes.

        Raises:
            TimeoutError: the job has not ended in time; it has been deleted.
            JobFailedError: there is no ``python3`` in the image; other kinds of `JobError` for other ends of the job.
            ProminenceError: the service does not answer, or refuses.
        """
        self._check_usable()
        return check_image(self._run.context, self._options, timeout)

    def with_options(
        self,
        *,
        image: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        resources: Resources | None = None,
        policies: JobPolicies | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | os.PathLike[str] | bytes] | None = None,
        outputs: Sequence[str] | None = None,
        outputs_dir: str | os.PathLike[str] | None = None,
        task_type: str | None = None,
        procs_per_node: int | None = None,
        retries: int | Retry | None = None,
        time_limit: float | None = None,
        package_data: float | None = None,
        requirements: Sequence[str] | str | os.PathLike[str] | None = None,
        requirements_platform: str | None = None,
        requirements_limit: float | None = None,
        engine: Mapping[str, str] | None = None,
    ) -> ProminenceExecutor:
        """Make a view of this executor whose calls run with other options; the rest stays as it is. Returns at once.

        The options are those of the executor itself; ``time_limit=math.inf`` takes a limit away.
        But for ``requirements`` whose versions have to be chosen, which takes seconds; an empty list means no packages.
        `shutdown` of a view, and leaving its ``with`` block, act on the executor.

        Raises:
            ValueError: a value that the service would not take.
            FileNotFoundError: the image, or one of the files, is not there.
            RequirementsError: no versions meet the requirements, or the package index cannot be asked.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        if labels is not None or engine is not None:
            labels = engine_labels(labels, engine, self._options.labels)
        view._options = self._options.changed(
            image=image,
            runtime=runtime,
            resources=resources,
            policies=policies,
            labels=labels,
            env=env,
            files=files,
            outputs=outputs,
            outputs_dir=outputs_dir,
            task_type=task_type,
            procs_per_node=procs_per_node,
            retries=retries,
            time_limit=time_limit,
            package_data=package_data,
            requirements=requirements,
            requirements_platform=requirements_platform,
            requirements_limit=requirements_limit,
        )
        view._base = self
        return view

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: block until all futures are done and the threads have ended; else that happens in the background.
            cancel_futures: cancel what is not running yet (with ``cancel_running``, all), and delete its jobs.
        """
        self._run.shutdown(wait=wait, cancel=cancel_futures)
        warn_of_short_calls(self._run.context.history)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all futures; but interrupted, delete the outstanding jobs (or leave them, see ``on_interrupt``).

        A call's own ``sys.exit`` or KeyboardInterrupt, which its future has raised, is not an interruption.
        """
        interrupted = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        if interrupted and not raised_by_call(value, self.run_id):
            self._run.interrupt()
        else:
            _shut_down(self._run)
            if kind is None:  # else a warning that is an error would hide it
                warn_of_short_calls(self._run.context.history)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} run {self.run_id} at {self._run.context.client.url}>"

    def _repr_html_(self) -> str:
        return facts_of_run(self._run.context, self._run.registry, self._run.workers())

    def __reduce__(self) -> Any:
        what = f"cannot pickle {type(self).__qualname__!r} object"
        raise TypeError(f"{what}: an executor has threads and connections; make one where it is needed")

    # -- the caller's thread ---------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("this executor belongs to the parent process; a forked child must make its own")
        if _exiting.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        self._run.registry.check_open()
        if self._reads_only:
            raise RuntimeError(
                f"this executor is attached to run {self.run_id}: it reads and cancels, and submits only with "
                "attach(..., takeover=True)"
            )

    def _function(self, fn: Callable[..., Any]) -> PickledFunction:
        return self._functions.get(fn)

    def _submit(self, function: PickledFunction, calls: Sequence[Call]) -> list[ProminenceFuture[Any]]:
        """Pickle and queue one chunk; calls that cannot be pickled come back as failed futures in their places."""
        self._check_usable()
        options = self._options.fresh()
        return self._send([self._pack(function, calls, options, 1)], options, None)

    def _pack(
        self,
        function: PickledFunction,
        calls: Sequence[Call],
        options: Options,
        together: int | None,
        known: RefCache | None = None,
    ) -> PackedCalls:
        return pack(function, calls, options.package_data, known, value_of=self._value_of, together=together or 1)

    def _value_of(self, future: Future[Any]) -> Value:
        context = self._run.context
        return value_of(context.objects, context.client.url, future)

    def _send(
        self,
        packed: Sequence[PackedCalls],
        options: Options,
        before: BeforeSending | None,
        patience: float | None = None,
    ) -> list[ProminenceFuture[Any]]:
        """Queue chunks that have been pickled; return the futures of all their calls in their order.

        With ``patience`` the calls are not a chunk: see `Dispatcher.submit_held`.
        """
        warn_of_short_calls(self._run.context.history)
        payloads = [payload for chunk in packed for payload in chunk.payloads]
        if patience is not None and any(payload.waits for payload in payloads):
            payloads, patience = [one for payload in payloads for one in payload.singly()], None

        def announce(sent: Sequence[ProminenceFuture[Any]]) -> None:
            if before is not None:
                before(in_order(packed, sent))

        if not payloads:
            sent: list[ProminenceFuture[Any]] = []
            announce(sent)
        elif patience is None:
            sent = self._run.dispatch.submit(payloads, options, announce)
        else:
            sent = self._run.dispatch.submit_held(payloads[0], options, patience, announce)
        return in_order(packed, sent)


_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_exiting = threading.Event()


def _at_exit() -> None:
    """Wait for the futures of a program that ends without shutdown, as the standard library's executors do."""
    _exiting.set()
    for run in list(_runs):
        _shut_down(run, at_exit=True)


def _shut_down(run: Run, at_exit: bool = False) -> None:
    """Wait for a run's futures; Ctrl-C, or a signal handler's ``sys.exit``, does what ``on_interrupt`` says."""
    try:
        run.shutdown(wait=True, cancel=False, at_exit=at_exit)
    except (KeyboardInterrupt, SystemExit):
        run.interrupt()
        raise


# The hook that concurrent.futures itself uses: it runs before the interpreter joins threads and stops new ones.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
