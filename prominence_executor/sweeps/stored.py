"""`open_sweep`: a sweep's store as it is, anywhere, without service, token or the sweep's function."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, TimeoutError  # not the builtin one before Python 3.11
from typing import Any

from ..public import public
from .point import Point
from .points import Spec
from .reading import StoreReader
from .records import DONE, FAILED, PENDING, SENT, Identity, Outcome, PointRow
from .view import View


@public
def open_sweep(path: str | os.PathLike[str], *, trust: bool = False) -> StoredSweep:
    """Open the store of a sweep for reading; what a running program adds is seen at the next look.

    Args:
        trust: load pickles that another user has written. A pickle can run anything.

    Raises:
        StoreError: there is no store, or it is damaged, or of a newer version.
    """
    return StoredSweep(StoreReader.read(path, trust=trust))


@public
class StoredSweep(View):
    """The points of a store: tables and pictures as those of `Sweep`. It computes nothing and waits for nothing.

    Attributes:
        has_repeats: whether points are computed more than once.
    """

    def __init__(self, store: StoreReader) -> None:
        super().__init__(store.plan(), store)
        self._store = store
        self.has_repeats = self.plan.repeat > 1

    def failed_rows(self) -> list[PointRow]:
        """Return what is known of the calls that have failed, without unpickling anything."""
        return [row for row in self._store.rows(results=False) if row.status == FAILED]

    @property
    def points(self) -> list[Point]:
        """All points, in the order of the axes or cases."""
        return [Point(self, Spec(*row.identity, dict(row.params), row.seed)) for row in self._store.rows(results=False)]

    @property
    def failed(self) -> list[Point]:
        """The points that have failed."""
        return [point for point in self.points if point.status == FAILED]

    def __iter__(self) -> Iterator[Point]:
        """Yield the points that have ended."""
        return (point for point in self.points if point.status in (DONE, FAILED))

    def __len__(self) -> int:
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Return how many points are pending, sent, done and failed. Reads the store, as all of this does."""
        return {**dict.fromkeys((PENDING, SENT, DONE, FAILED), 0), **self._store.counts()}

    def status_of(self, identity: Identity) -> str:
        """Return where a call stands: a word of ``counts``."""
        return self._store.status_of(identity)

    def future_of(self, identity: Identity) -> Future[Any] | None:
        """Return None: nothing runs here."""
        return None

    def outcome_of(self, identity: Identity, timeout: float | None) -> Outcome:
        """Return what has become of a call; TimeoutError at once when it has not ended."""
        if self.status_of(identity) not in (DONE, FAILED):
            raise TimeoutError("the point has not ended, and nothing is computed here")
        return self._store.outcome(identity)

    def __repr__(self) -> str:
        counts = {word: number for word, number in self.counts().items() if number}
        return f"<StoredSweep {self._store.path} of {self.plan.function}, {len(self)} points: {counts}>"
