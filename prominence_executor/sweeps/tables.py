"""A sweep's calls as tables: rows with a column for each parameter and each part of the results.

pandas and xarray are the extra ``sweep``; they are imported when they are asked for. It reads rows and knows no store.
"""

from __future__ import annotations

import csv
import io
import numbers
import os
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .identity import form_of
from .records import DONE, Plan, PointRow
from .values import named_parts

META = ("status", "error", "seconds", "attempts", "job", "run", "host", "code")


def needed(module: str) -> Any:
    """Import a library of the extra ``sweep``. ImportError: a sentence that says what to install."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ImportError(f"this needs {package}: pip install 'prominence-executor[sweep]'") from None


def fields_of(result: Any) -> dict[str, Any]:
    """Spread a result over columns: a dict, dataclass or named tuple by its parts, all else as ``result``."""
    parts = named_parts(result)
    if parts is None:
        return {"result": result}
    flat: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": item for inner, item in fields_of(value).items()})
        else:
            flat[name] = value
    return flat


def records_of(plan: Plan, rows: Iterable[PointRow], *, meta: bool = False) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of the columns, and for each call a dict of those that it has.

    A part of a result that is named as a parameter is ``result.NAME``; what the table has itself, and is named as
    either, ``sweep.NAME``.
    """
    rows = list(rows)
    table: list[dict[str, Any]] = []
    params = {name: None for row in rows for name in row.params}
    own = _own(plan, params)
    results: dict[str, None] = {}
    for row in rows:
        which = {"repeat": row.identity[1], "seed": row.seed}
        record = {**row.params, **{column: which[name] for name, column in own.items()}}
        if row.status == DONE:
            found = {(f"result.{n}" if n in record else n): value for n, value in fields_of(row.result).items()}
            results.update(dict.fromkeys(found))
            record.update(found)
        table.append(record)
    columns = [*params, *own.values(), *results]
    if not meta:
        return columns, table
    last = [f"sweep.{name}" if name in results or name in params else name for name in META]
    for row, record in zip(rows, table, strict=True):
        facts = (row.status, row.error, row.seconds, row.attempts, row.job_id, row.run_id, row.host, row.code)
        record.update(zip(last, facts, strict=True))
    return [*columns, *last], table


def _own(plan: Plan, params: Collection[str]) -> dict[str, str]:
    """Return what tells the calls of a point apart, and the column of each."""
    names = ["repeat"] * (plan.repeat > 1) + ["seed"] * (plan.seed is not None)
    return {name: f"sweep.{name}" if name in params else name for name in names}


def to_dataframe(plan: Plan, rows: Iterable[PointRow], *, meta: bool) -> Any:
    """Return a pandas.DataFrame with a row for each call; what there is no result of is missing."""
    pandas = needed("pandas")
    columns, table = records_of(plan, rows, meta=meta)
    return pandas.DataFrame({name: [record.get(name) for record in table] for name in columns}, columns=columns)


def to_csv(plan: Plan, rows: Iterable[PointRow], path: str | os.PathLike[str] | None, *, meta: bool) -> str:
    """Return the table as CSV, and write it to a file if there is a path; arrays are named, not written."""
    columns, table = records_of(plan, rows, meta=meta)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(record.get(name)) for name in columns] for record in table)
    if path is not None:
        Path(path).write_text(text.getvalue(), encoding="utf-8", newline="\n")
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    shape = getattr(value, "shape", None)
    if shape:
        return f"{value.dtype}[{'x'.join(map(str, shape))}]"
    return value.item() if shape == () else value


def to_xarray(
    plan: Plan, rows: Iterable[PointRow], dims: Mapping[str, Sequence[str]], coords: Mapping[str, Any]
) -> Any:
    """Return an xarray.Dataset over axes and repeats; points that are missing or failed are masked (NaN).

    Args:
        dims: names of the dimensions of array-valued parts of the results; by default ``NAME_0``, ``NAME_1``, ...
        coords: coordinates of those dimensions.

    Raises:
        ValueError: arrays of one name have several shapes, or ``dims`` has not as many names as they have dimensions.
    """
    xarray, numpy = needed("xarray"), needed("numpy")
    rows = list(rows)
    columns, table = records_of(plan, rows)
    grid = _Grid(plan, rows)
    known = {*grid.names, *_own(plan, grid.names).values()}
    variables = {
        name: _variable(numpy, name, grid, [record.get(name) for record in table], dims.get(name))
        for name in columns
        if name not in known
    }
    dataset = xarray.Dataset(variables, coords={**grid.coords(numpy), **coords})
    dataset.attrs = {"function": plan.function, **{k: v for k, v in plan.constants.items() if _fits_attrs(v)}}
    return dataset


def _fits_attrs(value: Any) -> bool:
    return isinstance(value, (str, numbers.Number))


def _variable(numpy: Any, name: str, grid: _Grid, values: Sequence[Any], dims: Sequence[str] | None) -> tuple[Any, Any]:
    """Return the dimensions and the array of one part of the results."""
    arrays = [None if value is None else numpy.asarray(value) for value in values]
    present = [array for array in arrays if array is not None]
    shapes = sorted({array.shape for array in present})
    if len(shapes) > 1:
        raise ValueError(f"the arrays {name!r} have several shapes, such as {shapes[0]} and {shapes[-1]}")
    shape = shapes[0] if shapes else ()
    inner = [f"{name}_{n}" for n in range(len(shape))] if dims is None else list(dims)
    if len(inner) != len(shape):
        raise ValueError(f"{name!r} has {len(shape)} dimensions of its own; dims= names {len(inner)}: {inner}")
    dtype = numpy.result_type(*present) if present else numpy.dtype(float)
    is_whole = len(present) == grid.size
    if dtype.kind in "biu" and not is_whole:
        dtype = numpy.dtype(float)
    elif dtype.kind not in "biufc":
        dtype = numpy.dtype(object)
    whole = numpy.full((*grid.shape, *shape), None if dtype.kind == "O" else 0, dtype=dtype)
    if not is_whole and dtype.kind in "fc":
        whole[...] = numpy.nan
    for place, array in zip(grid.places, arrays, strict=True):
        if array is not None:
            whole[place] = array if array.shape else array[()]
    return (*grid.dims, *inner), whole


class _Grid:
    """The dimensions of a sweep, and the place of each call in them."""

    def __init__(self, plan: Plan, rows: Sequence[PointRow]) -> None:
        self._steps: list[dict[Hashable, tuple[Any, ...]]] = []
        axes = [list(names) for names in plan.axes]
        every = list({name: None for row in rows for name in row.params})
        by_axes = axes and all(set(row.params) == {name for names in axes for name in names} for row in rows)
        self._axes = axes if by_axes else [every]
        self.dims = [names[0] for names in axes] if by_axes else ["point"]  # names that go together share one
        self.names = every
        places = []
        for names in self._axes:
            forms = [tuple(_form(name, row.params.get(name)) for name in names) for row in rows]
            steps: dict[Hashable, tuple[Any, ...]] = {}
            for form, row in zip(forms, rows, strict=True):
                steps.setdefault(form, tuple(row.params.get(name) for name in names))
            if len(names) == 1 and all(isinstance(value, numbers.Real) for (value,) in steps.values()):
                steps = dict(sorted(steps.items(), key=lambda item: item[1][0]))
            self._steps.append(steps)
            position = {form: n for n, form in enumerate(steps)}
            places.append([position[form] for form in forms])
        self.places: list[tuple[int, ...]] = list(zip(*places, strict=True))
        self.shape = tuple(map(len, self._steps))
        self._repeats = plan.repeat
        if plan.repeat > 1:
            self.dims.append("repeat")
            self.shape = (*self.shape, plan.repeat)
            self.places = [(*place, row.identity[1]) for place, row in zip(self.places, rows, strict=True)]
        self.size = 1
        for length in self.shape:
            self.size *= length

    def coords(self, numpy: Any) -> dict[str, Any]:
        """Return the values of the parameters along their dimensions."""
        coords: dict[str, Any] = {}
        for names, dim, steps in zip(self._axes, self.dims, self._steps, strict=False):
            for n, name in enumerate(names):
                values = [value[n] for value in steps.values()]
                plain = all(isinstance(value, (numbers.Number, str)) for value in values)
                coords[name] = (dim, values if plain else _objects(numpy, values))
        if self._repeats > 1:
            coords["repeat"] = ("repeat", list(range(self._repeats)))
        return coords


def _form(name: str, value: Any) -> str:
    try:
        return form_of(name, value)
    except TypeError:
        return repr(value)  # of a sweep without a store, whose values may be anything that has a label


def _objects(numpy: Any, values: Sequence[Any]) -> Any:
    """Return an array of texts that name values which no coordinate can be."""
    return numpy.array([value if isinstance(value, str) else repr(value) for value in values], dtype=object)
