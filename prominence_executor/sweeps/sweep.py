"""`sweep`: one function at many points, computed once each, however often the program is started.

    points.py    axes -> calls, each with a key (identity.py) and a seed
    store.py     what is known of them, on disk; memory.py: in this process
    carriers.py  calls -> an executor's futures, and those of earlier runs
    Sweep        puts them together: what is done comes from the store, what is on its way is awaited, the rest is sent

Futures are settled by the executor's threads; what has come is written by a thread of the sweep's own, many at once,
and only then seen by who iterates. It may not know how an executor works: it uses what is public.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from .. import CodeChangedError, ProminenceExecutor, local_sources
from ..progress import ProgressBar
from ..public import public
from .carriers import Carrier, PlainCarrier, RunCarrier
from .code import difference, digest_of, parts_of
from .course import LOST, Course
from .identity import name_of
from .memory import Memory
from .point import Point
from .points import Axes, Design, Spec, points_of, spread
from .records import ENDED, FAILED, Identity, Outcome, Plan, Planned, Records, State
from .store import Store
from .view import View


@public
def sweep(
    function: Callable[..., Any],
    axes: Axes | None = None,
    /,
    *,
    executor: Executor,
    cases: Iterable[Mapping[str, Any]] | None = None,
    where: Callable[..., bool] | None = None,
    constants: Mapping[str, Any] | None = None,
    repeat: int = 1,
    seed: int | None = None,
    seed_param: str = "seed",
    labels: Mapping[str, Callable[[Any], str]] | None = None,
    store: str | os.PathLike[str] | None = None,
    on_change: Literal["error", "keep", "recompute"] = "error",
    order: Literal["axes", "spread"] = "axes",
    chunksize: int | Literal["auto"] = 1,
    trust: bool = False,
    progress: bool | None = None,
) -> Sweep:
    """Compute a function at many points; return at once with the sweep, whose points come as they are done.

    With a ``store``, start the same program again after whatever has ended it: finished points, failed ones too, come
    from the store, calls that are still at the service are found and awaited, and the rest is sent. With other axes
    only the points are computed that are new.

    Args:
        function: called with keyword arguments: each point's parameters, the constants, and its seed.
        axes: names and their values (lists, ranges, arrays), whose product is computed, the last axis running fastest.
            A tuple of names goes together: ``{("x", "y"): [(1, 2), (3, 4)]}``.
        executor: any ``concurrent.futures.Executor``. What a `ProminenceExecutor` has sent is found again, and on
            Ctrl-C a sweep with a store leaves its jobs at the service, unless ``on_interrupt`` was given to it.
        cases: the points themselves instead of axes: dicts, a DataFrame, or a generator.
        where: called with a point's parameters; where it says False there is no point.
        constants: arguments that are the same for all points; with others, all points are others.
        repeat: how often each point is computed.
        seed: the root of the seeds: each repeat of each point gets one below 2**63, as ``seed_param``, which no other
            point changes.
        labels: for parameters without a canonical form: how a value is named, by which its points are found again.
            (Numbers, texts, bytes, None, enums, dates, tuples, lists, dicts and arrays have one.)
        store: a directory, made if there is none; see `open_sweep`. Without it the sweep lives in memory.
        on_change: what to do when the function's code, or that of the modules that travel with it, is not the one that
            stored points were computed with: refuse, keep them, or compute them again.
        order: ``"spread"`` sends points so that the whole range shows early.
        chunksize: points in one job, as for `ProminenceExecutor.map`; other executors do not look at it.
        trust: load pickles in the store that another user has written. A pickle can run anything.
        progress: show a bar while the points are iterated over; by default where standard error is a terminal and tqdm
            is installed (the extra ``progress``).

    Raises:
        TypeError: the function does not take the parameters, or a value has no canonical form and no label.
        ValueError: an axis is empty, values that go together are not as many as their names, or another argument is
            senseless.
        CodeChangedError: see ``on_change``.
        StoreInUseError: another program writes the store.
        StoreError: it cannot be read or written.
        ServiceUnavailableError: an unfinished run cannot be looked for.
    """
    if on_change not in ("error", "keep", "recompute"):
        raise ValueError(f"on_change must be 'error', 'keep' or 'recompute', not {on_change!r}")
    if order not in ("axes", "spread"):
        raise ValueError(f"order must be 'axes' or 'spread', not {order!r}")
    design = Design(function, dict(constants or {}), repeat, seed, seed_param, dict(labels or {}), where)
    specs = design.specs(points_of(axes, cases))
    if not specs:
        raise ValueError("the sweep has no points: where= leaves none" if where else "the sweep has no points")
    carrier: Carrier
    if isinstance(executor, ProminenceExecutor):
        carrier = RunCarrier(executor, function, chunksize, keeps=store is not None)
    else:
        carrier = PlainCarrier(executor, function)
    parts = parts_of(function, _sources_of(function))
    axis_names = [list(axis) if isinstance(axis, tuple) else [axis] for axis in axes or ()]
    plan = Plan(name_of(function), design.shown(design.constants), axis_names, repeat, seed, digest_of(parts), parts)
    records: Records = Memory() if store is None else _open(store, trust)
    try:
        return Sweep(design, plan, carrier, records, specs, on_change, order, progress)
    except BaseException:
        records.close()
        raise


@public
class Sweep(View):
    """A function at many points; made by `sweep`. Iterating yields its points as they finish.

    Each loop over it begins with those that have finished, and ends when none is open. A point that failed does not
    stop the others.

    Attributes:
        has_repeats: whether points are computed more than once.
        from_store: how many points had ended when it began.
    """

    def __init__(
        self,
        design: Design,
        plan: Plan,
        carrier: Carrier,
        records: Records,
        specs: Sequence[Spec],
        on_change: str,
        order: str,
        progress: bool | None,
    ) -> None:
        super().__init__(plan, records)
        self._design = design
        self._records = records
        self._order = order
        self._progress = progress
        self._specs: dict[Identity, Spec] = {}
        self._course = Course(carrier, records, plan.code, self._arguments)
        self.has_repeats = design.repeat > 1
        if isinstance(records, Store):
            _running[records.path.resolve()] = self
        self._on_change = on_change
        self._stored = records.states()  # as they were: of points that are not its own nothing changes
        known = self._known(specs)
        self.from_store = sum(state.status in ENDED for state in known.values())
        self._begin(specs, known)

    def _known(self, specs: Sequence[Spec]) -> dict[Identity, State]:
        """Return where points stand that are stored; those of another code as that is wanted.

        Raises:
            CodeChangedError: they are not wanted.
        """
        known = {spec.identity: self._stored[spec.identity] for spec in specs if spec.identity in self._stored}
        other = {identity: state for identity, state in known.items() if state.code not in ("", self.plan.code)}
        if other and self._on_change == "error":
            changed = difference(self._records.parts(next(iter(other.values())).code), self.plan.parts)
            raise CodeChangedError(
                f"{len(other)} points of the sweep were computed with other code of {self.plan.function} ({changed}): "
                "on_change='keep' takes them as they are, on_change='recompute' computes them again"
            )
        if other and self._on_change == "recompute":
            self._records.forget(other)
            known = {identity: state for identity, state in known.items() if identity not in other}
        return known

    def _begin(self, specs: Sequence[Spec], known: Mapping[Identity, State]) -> None:
        first = len(self._specs)
        self._specs.update({spec.identity: spec for spec in specs})
        planned = [Planned(spec.identity, partial(self._design.shown, spec.params), spec.seed) for spec in specs]
        self._records.enter(self.plan, planned, first)
        ordered = [specs[n] for n in spread(len(specs))] if self._order == "spread" else specs
        self._course.begin({spec.identity: known.get(spec.identity, State()) for spec in ordered})

    def _arguments(self, identity: Identity) -> Mapping[str, Any]:
        return self._design.arguments(self._specs[identity])

    # -- points --------------------------------------------------------------------------------------------------------

    @property
    def points(self) -> list[Point]:
        """All points, in the order of the axes or cases."""
        return [Point(self, spec) for spec in self._specs.values()]

    @property
    def failed(self) -> list[Point]:
        """The points that have failed: ``exception()``, ``outcome.tail`` and ``outcome.job_id`` say how and where."""
        failed = set(self._course.with_status(FAILED))
        return [Point(self, spec) for identity, spec in self._specs.items() if identity in failed]

    def __iter__(self) -> Iterator[Point]:
        """Yield the points as they finish; blocks until the next one has.

        Raises:
            BrokenExecutor: the executor can do nothing any more.
            StoreError: what has come cannot be stored; it is still at the service.
        """
        try:
            with ProgressBar(self.plan.function, len(self), self.counts, (*ENDED, LOST), self._progress) as bar:
                for identity in self._course.arrivals(lambda: bar.look(total=len(self))):
                    yield Point(self, self._specs[identity])
        except KeyboardInterrupt:
            self._say_how_to_go_on()
            raise

    def __len__(self) -> int:
        return len(self._specs)

    def wait(self) -> None:
        """Block until no point is open. Raises what iterating raises."""
        for _ in self:
            pass

    def counts(self) -> dict[str, int]:
        """Return how many points are pending, sent, running, done, failed and lost. Asks nobody."""
        return self._course.counts()

    def add(self, axes: Axes | None = None, /, *, cases: Iterable[Mapping[str, Any]] | None = None) -> list[Point]:
        """Add points while the sweep runs, also from a loop over it; return those, the known ones too. Does not block.

        Raises:
            TypeError, ValueError, CodeChangedError, StoreError: as `sweep`.
            RuntimeError: the executor takes no more calls.
        """
        specs = self._design.specs(points_of(axes, cases))
        new = [spec for spec in specs if spec.identity not in self._specs]
        if new:
            self._begin(new, self._known(new))
        return [Point(self, self._specs[spec.identity]) for spec in specs]

    def retry(self) -> int:
        """Send again what has failed or was lost; return how many points that are. Does not block.

        Raises:
            RuntimeError: the executor takes no more calls.
        """
        identities = self._course.with_status(FAILED, LOST)
        if identities:
            self._course.again(identities)
        return len(identities)

    # -- for its points -----------------------------------------------------------------------------------------------

    def status_of(self, identity: Identity) -> str:
        """Return where a call stands: a word of ``counts``. Asks nobody."""
        return self._course.status_of(identity)

    def future_of(self, identity: Identity) -> Future[Any] | None:
        """Return the executor's future of a call, if this program has one: not for what comes from the store."""
        return self._course.future_of(identity)

    def outcome_of(self, identity: Identity, timeout: float | None) -> Outcome:
        """Wait for a call and return what has become of it; TimeoutError if it does not end in so many seconds."""
        return self._course.outcome_of(identity, timeout)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let another program write the store. The sweep can still be read; what comes now is not kept.

        Does not wait for points, and ends none. May be called twice.
        """
        self._records.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is on its way."""
        return self._course.is_idle

    def __enter__(self) -> Sweep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _say_how_to_go_on(self) -> None:
        if isinstance(self._records, Store):
            done = len(self._course.with_status(*ENDED))
            sys.stderr.write(
                f"sweep {self._records.path}: {done} of {len(self)} points have ended; "
                "start the same program again to go on\n"
            )

    def __repr__(self) -> str:
        counts = {word: number for word, number in self.counts().items() if number}
        return f"<Sweep of {self.plan.function}, {len(self)} points: {counts}>"


def _sources_of(function: Callable[..., Any]) -> dict[str, bytes]:
    """Return the user's own modules that a function needs; none of one that threads can run, but that cannot travel."""
    with suppress(Exception):  # __reduce__ is somebody else's code; who has to pickle it will say what is wrong
        return local_sources(function)
    return {}


_running: weakref.WeakValueDictionary[Path, Sweep] = weakref.WeakValueDictionary()


def _open(path: str | os.PathLike[str], trust: bool) -> Store:
    """Open a store for writing; one that an earlier sweep of this program has, and no longer needs, is taken over."""
    earlier = _running.get(Path(path).resolve())
    if earlier is not None and earlier.is_idle:
        earlier.close()  # a cell of a notebook that is run again
    return Store.write(path, trust=trust)
