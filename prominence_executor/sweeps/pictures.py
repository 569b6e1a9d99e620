"""A sweep as a picture, over xarray's and matplotlib's own: lines with bands over repeats, a heatmap, facets.

matplotlib is imported when it is asked for. It draws what tables.py returns, and computes means and spreads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .tables import needed

_BAND = 0.2  # opacity
_FEW = 6  # lines whose names fit into the picture


def plot(
    dataset: Any,
    failed: Sequence[dict[str, Any]],
    *,
    x: str | None,
    y: str | None,
    hue: str | None,
    col: str | None,
    row: str | None,
    ax: Any,
) -> Any:
    """Draw one part of the results; return the Axes, or an array of them for facets.

    Args:
        dataset: over the axes and repeats.
        failed: parameters of the points that failed, which are marked.
        x, hue, col, row: dimensions.
        y: a part of the results; or a dimension, for a heatmap of the first part over x and y.

    Raises:
        ValueError: there is no such dimension or part of the results, or one dimension more than are drawn.
    """
    axes = [dim for dim in dataset.dims if dim != "repeat" and dim in _outer(dataset)]
    numeric = [
        name
        for name, data in dataset.data_vars.items()
        if data.dtype.kind in "biufc" and set(data.dims) <= {*axes, "repeat"}
    ]
    for dim in (x, hue, col, row):
        if dim is not None and dim not in axes:
            raise ValueError(f"the sweep has no axis {dim!r}; it has {', '.join(map(repr, axes))}")
    if not numeric:
        raise ValueError("no part of the results is a number that could be drawn")
    over_two = y in axes or (y is None and hue is None and len(axes) - sum(d is not None for d in (col, row)) >= 2)
    name = y if y is not None and y not in axes else numeric[0]
    if name not in numeric:
        raise ValueError(f"the results have no number {name!r}; they have {', '.join(map(repr, numeric))}")
    free = [dim for dim in axes if dim not in (x, y, hue, col, row)]
    x = x or free.pop(0)
    down = None
    if over_two:
        down = y if y in axes else free.pop(0)
    elif hue is None and free:
        hue = free.pop(0)
    for which in ("col", "row"):
        if free and (col if which == "col" else row) is None:
            col, row = (free.pop(0), row) if which == "col" else (col, free.pop(0))
    if free:
        raise ValueError(f"the axes {free} are left over: select from to_xarray(), and draw that")
    panels, returned = _panels(dataset[name], col, row, ax)
    for panel, data, where in panels:
        marks = [point for point in failed if all(point.get(dim) == value for dim, value in where.items())]
        if over_two:
            _heatmap(panel, data, x, str(down), marks)
        else:
            _lines(panel, data, x, hue, marks)
        panel.set_title(", ".join(f"{dim} = {_short(value)}" for dim, value in where.items()))
    return returned


def _outer(dataset: Any) -> set[str]:
    """Return the dimensions of the sweep itself: those that the parameters are coordinates of."""
    return {str(coord.dims[0]) for coord in dataset.coords.values() if coord.dims}


def _panels(data: Any, col: str | None, row: str | None, ax: Any) -> tuple[list[tuple[Any, Any, dict[str, Any]]], Any]:
    """Return each panel with its data and what it is at, and what is given to the user."""
    pyplot = needed("matplotlib.pyplot")
    if col is None and row is None:
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        return [(ax, data, {})], ax
    if ax is not None:
        raise ValueError("facets make axes of their own: leave ax= out, or col= and row=")
    columns = [None] if col is None else list(data[col].values)
    rows = [None] if row is None else list(data[row].values)
    size = (3.2 * len(columns) + 1.2, 2.6 * len(rows) + 0.6)  # inches
    _, grid = pyplot.subplots(
        len(rows), len(columns), squeeze=False, sharex=True, sharey=True, figsize=size, layout="constrained"
    )
    panels = []
    for r, row_value in enumerate(rows):
        for c, col_value in enumerate(columns):
            pairs = ((row, row_value, r), (col, col_value, c))
            where = {dim: value for dim, value, _ in pairs if dim is not None}
            places = {dim: place for dim, _, place in pairs if dim is not None}
            panels.append((grid[r][c], data.isel(places), where))
    return panels, grid


def _lines(ax: Any, data: Any, x: str, hue: str | None, failed: Sequence[dict[str, Any]]) -> None:
    """Draw lines of the means, and bands from the least to the greatest of the repeats."""
    at = data[x].values
    lines = (
        [(data, None)] if hue is None else [(data.isel({hue: n}), _short(v)) for n, v in enumerate(data[hue].values)]
    )
    for place, (line, label) in enumerate(lines):
        middle = line.mean("repeat") if "repeat" in line.dims else line
        colour = _colour(place, len(lines))
        [drawn] = ax.plot(at, middle.values, marker="o", markersize=3, label=label, color=colour)
        if "repeat" in line.dims:
            ax.fill_between(
                at, line.min("repeat").values, line.max("repeat").values, color=drawn.get_color(), alpha=_BAND, lw=0
            )
    marked = sorted({point[x] for point in failed if x in point})
    if marked:  # on the axis of x: a point that failed has no value
        ax.plot(
            marked,
            [0.02] * len(marked),
            "x",
            color="red",
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            label="failed",
        )
    ax.set_xlabel(x)
    ax.set_ylabel(str(data.name))
    if data[x].dtype.kind in "iu":
        ax.xaxis.get_major_locator().set_params(integer=True)
    if hue or marked:
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(lines) > _FEW else {}
        ax.legend(title=hue, **beside)


def _colour(place: int, count: int) -> Any:
    """Return a line's colour: of the usual ones while they differ, then of a range."""
    return f"C{place}" if count <= 10 else needed("matplotlib").colormaps["viridis"](place / (count - 1))


def _heatmap(ax: Any, data: Any, x: str, y: str, failed: Sequence[dict[str, Any]]) -> None:
    """Draw the means over the repeats as colours; each cell is a point, wherever the values of the axes lie."""
    middle = data.mean("repeat") if "repeat" in data.dims else data
    image = ax.imshow(middle.transpose(y, x).values, origin="lower", aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=str(data.name))
    places = {}
    for dim, axis in ((x, ax.xaxis), (y, ax.yaxis)):
        values = list(data[dim].values)
        places[dim] = {value: n for n, value in enumerate(values)}
        every = max(1, -(-len(values) // 10))
        axis.set_ticks(range(0, len(values), every), [_short(value) for value in values[::every]])
    marks = [(places[x][p[x]], places[y][p[y]]) for p in failed if p.get(x) in places[x] and p.get(y) in places[y]]
    if marks:
        ax.plot(*zip(*marks, strict=True), "x", color="red", linestyle="none", label="failed")
        ax.legend()
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
