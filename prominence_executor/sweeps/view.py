"""What every sweep can show, one that runs and one that is only read: tables and a picture.

It brings rows to tables.py and pictures.py; where rows come from, its heirs know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..shown import facts, on_terminal
from .pictures import plot
from .records import FAILED, Plan, Rows
from .tables import to_csv, to_dataframe, to_xarray
from .values import written


class View:
    """Tables and pictures of the points as they are now: those that are not done are missing in them.

    Attributes:
        plan: what the sweep is: function, axes, constants, repeat, seed.
    """

    def __init__(self, plan: Plan, rows: Rows) -> None:
        self.plan = plan
        self._rows = rows

    def counts(self) -> dict[str, int]:
        """Return how many points there are of each status."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        counts = self.counts()
        axes = {", ".join(names): None for names in self.plan.axes}
        shown = {name: on_terminal(written(value), 80) for name, value in self.plan.constants.items()}
        return facts(
            f"{type(self).__name__} of {self.plan.function}, {sum(counts.values())} points",
            [
                ("axes", "; ".join(axes) or None),
                ("constants", ", ".join(f"{name}={value}" for name, value in shown.items()) or None),
                ("repeats of each", self.plan.repeat if self.plan.repeat > 1 else None),
                *((word, number) for word, number in counts.items() if number),
            ],
        )

    def to_dataframe(self, *, meta: bool = False) -> Any:
        """Return a pandas.DataFrame, a row for each point and repeat in the order of the axes.

        Results that are dicts, dataclasses or named tuples have a column for each part. What is not done is missing.

        Args:
            meta: also status, error, seconds, attempts, job, run, host, and the digest of the code.

        Raises:
            ImportError: pandas is not installed.
        """
        return to_dataframe(self.plan, self._rows.rows(), meta=meta)

    def to_csv(self, path: str | os.PathLike[str] | None = None, *, meta: bool = False) -> str:
        """Return the same table as CSV, and write it to a file if there is a path. Needs no pandas.

        Without ``meta`` the text depends on the points and their results alone. Arrays are named by shape and dtype.
        """
        return to_csv(self.plan, self._rows.rows(), path, meta=meta)

    def to_xarray(
        self, dims: Mapping[str, Sequence[str]] | None = None, coords: Mapping[str, Any] | None = None
    ) -> Any:
        """Return an xarray.Dataset: axes and repeats are dimensions; what is missing or failed is NaN, never dropped.

        Names that go together on an axis are coordinates of one dimension, which has the first one's name. Cases are
        along the dimension ``point``.

        Args:
            dims: names of the dimensions of results that are arrays: ``{"trace": ["time"]}``.
            coords: coordinates of those.

        Raises:
            ImportError: xarray is not installed.
            ValueError: arrays of one name have several shapes, or ``dims`` does not fit them.
        """
        return to_xarray(self.plan, self._rows.rows(), dims or {}, coords or {})

    def plot(
        self,
        x: str | None = None,
        y: str | None = None,
        hue: str | None = None,
        col: str | None = None,
        row: str | None = None,
        *,
        ax: Any = None,
    ) -> Any:
        """Draw a number of the results; return matplotlib's Axes, or an array of them for facets.

        Lines over ``x``, one for each ``hue``, their means with bands from the least to the greatest of the repeats;
        with two axes and nothing said, or an axis as ``y``, a heatmap; ``col`` and ``row`` make facets. By default the
        axes are taken in their order. Points that failed are marked by a red cross.

        Args:
            y: a part of the results, the first number by default.

        Raises:
            ImportError: xarray or matplotlib is not installed.
            ValueError: there is no such axis or part, or more axes than can be drawn.
        """
        failed = [dict(row.params) for row in self._rows.rows() if row.status == FAILED]
        return plot(self.to_xarray(), failed, x=x, y=y, hue=hue, col=col, row=row, ax=ax)
