"""From axes to points: which calls a sweep consists of, in which order, each with its key and its seed.

All of it is decided here before anything is sent, so that an axis that the function does not take, or a value that
cannot be found again, is one error at once. It runs nothing and stores nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .identity import Labelled, check_names, form_of, key_of, name_of, part_of, seed_of, unbound

Axes = Mapping[Any, Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Spec:
    """One call of a sweep.

    Attributes:
        key: of the point, the same for all its repeats.
        repeat: 0, 1, ...
        params: names and values of the point alone, in the order of the axes; neither constants nor seed.
        seed: of this repeat, or None.
    """

    key: str
    repeat: int
    params: dict[str, Any]
    seed: int | None

    @property
    def identity(self) -> tuple[str, int]:
        """What tells this call from all others of the sweep."""
        return self.key, self.repeat


@dataclass(frozen=True)
class Design:
    """What does not change from point to point."""

    function: Callable[..., Any]
    constants: Mapping[str, Any]
    repeat: int
    seed: int | None
    seed_param: str
    labels: Mapping[str, Callable[[Any], str]]
    where: Callable[..., bool] | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"a sweep's function must be callable, not {self.function!r}")
        for name, value in (("repeat", self.repeat), ("seed", self.seed)):
            if isinstance(value, bool) or not isinstance(value, (int, type(None))):
                raise TypeError(f"{name} must be an integer, not {value!r}")
        if self.repeat < 1:
            raise ValueError(f"repeat must be 1 or more, not {self.repeat!r}")

    def specs(self, points: Iterable[Mapping[str, Any]]) -> list[Spec]:
        """Return the calls of these points: each point's repeats one after the other, a point that came before once.

        Raises:
            TypeError: the function does not take the parameters, or a value has no canonical form.
        """
        function, (_, bound) = name_of(self.function), unbound(self.function)
        fixed = {**bound, **self.constants}
        constant = [part_of(key, form_of(key, value, self.labels.get(key))) for key, value in fixed.items()]
        forms = _Forms(self.labels)
        checked: set[tuple[str, ...]] = set()
        found: dict[tuple[str, int], Spec] = {}
        for params in points:
            if self.where is not None and not self.where(**params):
                continue
            names = tuple(params)
            if names not in checked:
                checked.add(names)
                self._check(names)
            key = key_of(function, [*constant, *(forms.of(name, value) for name, value in params.items())])
            for repeat in range(self.repeat):
                seed = None if self.seed is None else seed_of(self.seed, key, repeat)
                found.setdefault((key, repeat), Spec(key, repeat, dict(params), seed))
        return list(found.values())

    def _check(self, names: tuple[str, ...]) -> None:
        twice = set(names) & {*self.constants, *({self.seed_param} if self.seed is not None else ())}
        if twice:
            raise ValueError(
                f"the parameter {sorted(twice)[0]!r} is given twice: by the points, and as a constant or seed"
            )
        check_names(self.function, (*names, *self.constants, *([self.seed_param] if self.seed is not None else [])))

    def shown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters as a store keeps them: those without a canonical form as their labels."""
        found = {}
        for name, value in params.items():
            label = self.labels.get(name)
            if isinstance(value, Labelled):
                found[name] = value.label
            else:
                found[name] = str(label(value)) if label else value
        return found

    def arguments(self, spec: Spec) -> dict[str, Any]:
        """Return the keyword arguments of one call."""
        given = {**self.constants, **spec.params}
        if spec.seed is not None:
            given[self.seed_param] = spec.seed
        return {name: value.value if isinstance(value, Labelled) else value for name, value in given.items()}


class _Forms:
    """What parameters add to a key; a value that comes again, as those of an axis do, is looked at once."""

    def __init__(self, labels: Mapping[str, Callable[[Any], str]]) -> None:
        self._labels = labels
        self._known: dict[tuple[str, int], tuple[Any, str]] = {}  # by the value's id, with the value, so that it stays

    def of(self, name: str, value: Any) -> str:
        known = self._known.get((name, id(value)))
        if known is None:
            known = value, part_of(name, form_of(name, value, self._labels.get(name)))
            if len(self._known) < 100_000:
                self._known[name, id(value)] = known
        return known[1]


def points_of(axes: Axes | None, cases: Any) -> Iterable[Mapping[str, Any]]:
    """Return the points that one of the two describes. TypeError when it is not just one, or of another kind."""
    if (axes is None) == (cases is None):
        raise TypeError("a sweep needs axes, or cases=, and not both")
    if axes is None:
        return points_of_cases(cases)
    if not isinstance(axes, Mapping):
        raise TypeError(f"axes are a dict of names and values, not {axes!r}; points are given as cases=")
    return points_of_axes(axes)


def points_of_axes(axes: Axes) -> list[dict[str, Any]]:
    """Return the product of the axes, the last one running fastest; a tuple of names goes together.

    Raises:
        ValueError: an axis is empty, its values are not as many as its names, or a name comes twice.
        TypeError: an axis has no values to iterate over.
    """
    columns: list[list[tuple[tuple[str, Any], ...]]] = []
    names: list[str] = []
    for axis, values in axes.items():
        together = axis if isinstance(axis, tuple) else (axis,)
        names += together
        columns.append([_step(together, value, isinstance(axis, tuple)) for value in _values(axis, values)])
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of an axis is a string, or a tuple of strings, not {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"the parameter {name!r} is on two axes")
    return [dict(itertools.chain.from_iterable(steps)) for steps in itertools.product(*columns)]


def _values(axis: Any, values: Any) -> list[Any]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"the axis {axis!r} needs a list of values, not the text {values!r}")
    try:
        found = list(values)
    except TypeError:
        raise TypeError(
            f"the axis {axis!r} needs values to iterate over, not {values!r}; what is fixed is a constant"
        ) from None
    if not found:
        raise ValueError(f"the axis {axis!r} is empty")
    return found


def _step(names: tuple[str, ...], value: Any, is_tuple: bool) -> tuple[tuple[str, Any], ...]:
    if not is_tuple:
        return ((names[0], value),)
    found = tuple(value) if isinstance(value, (tuple, list)) or hasattr(value, "__array_interface__") else (value,)
    if len(found) != len(names):
        raise ValueError(f"the axis {names!r} needs {len(names)} values at once, not {value!r}")
    return tuple(zip(names, found, strict=True))


def points_of_cases(cases: Any) -> Iterator[dict[str, Any]]:
    """Yield the points that a user has listed: dicts, the rows of a DataFrame, or whatever yields dicts.

    Raises:
        TypeError: a case is no mapping of names to values.
    """
    columns = getattr(cases, "columns", None)
    if columns is not None and hasattr(cases, "itertuples"):  # a DataFrame; its own scalars keep their types
        for row in cases.itertuples(index=False, name=None):
            yield dict(zip(map(str, columns), row, strict=True))
        return
    for case in cases:
        if not isinstance(case, Mapping) or not all(isinstance(name, str) for name in case):
            raise TypeError(f"a case is a dict of parameters by their names, not {case!r}")
        yield dict(case)


def spread(count: int) -> list[int]:
    """Return 0 to count - 1 in an order that shows the whole range early: ends, middle, quarters, and so on.

    It is the van der Corput sequence, each number with its binary digits reversed.
    """
    bits = max(count - 1, 0).bit_length()
    backwards = (int(f"{n:0{bits}b}"[::-1], 2) if bits else 0 for n in range(1 << bits))
    return [n for n in backwards if n < count]
