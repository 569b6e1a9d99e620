"""From axes to points, their keys and seeds: computed alone, without an executor or a store."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor import Labelled
from prominence_executor.sweeps.identity import canonical, form_of, name_of, seed_of
from prominence_executor.sweeps.points import Design, points_of, spread


class Colour(enum.Enum):
    RED = 1


class Same(enum.IntEnum):
    ONE = 1


class Quantity(np.ndarray[Any, Any]):
    """An array with a unit, which is not in its bytes."""


def simulate(energy: float, gamma: float = 0.1, *, steps: int = 10, seed: int = 0) -> float:
    return energy * gamma * steps + seed


def design(function: Any = simulate, **more: Any) -> Design:
    given: dict[str, Any] = {"constants": {}, "repeat": 1, "seed": None, "seed_param": "seed", "labels": {}}
    return Design(function, **{**given, **more})


def keys(axes: Any = None, cases: Any = None, **more: Any) -> list[str]:
    return [spec.key for spec in design(**more).specs(points_of(axes, cases))]


@pytest.mark.parametrize(
    "values",
    [
        (
            1,
            1.0,
            np.float64(1),
            np.longdouble(1),
            np.int8(1),
            np.array(1.0),
            np.array(1, np.longdouble),
            fractions.Fraction(1),
            decimal.Decimal(1),
            1 + 0j,
        ),
        (0.5, np.float32(0.5), fractions.Fraction(1, 2), decimal.Decimal("0.5")),
        (0.0, -0.0, 0),
        (float("nan"), np.nan, decimal.Decimal("NaN")),
        (float("inf"), np.inf),
        (2**70, float(2**70)),
        ("a", np.str_("a")),
        (True, np.True_),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
        (np.arange(3.0), np.arange(6.0)[::2] / 2, np.arange(3.0).astype(">f8")),
        (datetime.timedelta(hours=1), datetime.timedelta(minutes=60)),
    ],
    ids=lambda values: type(values[0]).__name__ + str(values[0])[:6],
)
def test_what_is_equal_by_value_is_the_same_point(values: tuple[Any, ...]) -> None:
    assert len({str(canonical(value)) for value in values}) == 1


def test_what_differs_is_another_point() -> None:
    values = [
        None, True, 1, "1", b"1", 0.1, np.float32(0.1), 1j, (1,), [1], {"a": 1}, {"a": [1]}, Colour.RED, Same.ONE,
        np.arange(3), np.arange(3.0), np.zeros((2, 3)), np.zeros((3, 2)), np.datetime64("2026-01-01"), np.array(["a"]),
        datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), datetime.time(1), datetime.timedelta(1),
        Labelled(1, "1"), float("inf"), -float("inf"), float("nan"), "", (), [], {},
    ]  # fmt: skip
    assert len({str(canonical(value)) for value in values}) == len(values)


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, lambda: 1, np.array([object()]), [object()], simulate,
        np.ma.array([1, 2], mask=[False, True]), np.arange(2).view(Quantity), np.array(1.0).view(Quantity),
        np.ones(2, np.longdouble), np.clongdouble(1j),
    ],
)  # fmt: skip
def test_what_has_no_canonical_form_needs_a_label(value: Any) -> None:
    with pytest.raises(TypeError, match=r"parameter 'mesh'.*no canonical form.*labels=\{'mesh': str\}"):
        form_of("mesh", value)
    assert form_of("mesh", value, lambda value: "fine") == form_of("mesh", Labelled(1, "fine"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_plain_value_has_one_text(value: Any) -> None:
    assert form_of("x", value) == form_of("x", value)
    assert form_of("x", value) != form_of("x", [value])


def test_keys_and_seeds_are_the_same_in_every_process() -> None:
    """They are kept for years: these were computed once, and may never change."""
    [spec] = design(seed=42, constants={"steps": 2000}).specs([{"energy": 1.5, "gamma": 0.25}])
    program = (
        "from prominence_executor.sweeps.identity import *\n"
        "print(key_of('simulate', [part_of(n, form_of(n, v)) for n, v in "
        "[('gamma', 0.25), ('steps', 2000), ('energy', 1.5)]]))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == spec.key == "d617007873967a7b7ad7290ba749eb8c"
    assert spec.seed == 8161267947044049625


def test_the_last_axis_runs_fastest_and_a_tuple_of_names_goes_together() -> None:
    points = list(points_of({"a": [1, 2], ("x", "y"): [(3, 4), (5, 6)], "b": range(2)}, None))
    assert [tuple(point.values()) for point in points] == [
        (1, 3, 4, 0), (1, 3, 4, 1), (1, 5, 6, 0), (1, 5, 6, 1), (2, 3, 4, 0), (2, 3, 4, 1), (2, 5, 6, 0), (2, 5, 6, 1),
    ]  # fmt: skip
    assert list(points[0]) == ["a", "x", "y", "b"]


def test_the_order_of_axes_changes_no_point() -> None:
    assert sorted(keys({"energy": [1, 2], "gamma": [3, 4]})) == sorted(keys({"gamma": [4.0, 3.0], "energy": [2, 1.0]}))


def test_cases_are_dicts_a_frame_or_a_generator() -> None:
    cases = [{"energy": 1, "gamma": 0.5}, {"energy": 2, "gamma": 0.25}]
    expected = keys({("energy", "gamma"): [(1, 0.5), (2, 0.25)]})
    for listed in (cases, pd.DataFrame(cases), (case for case in cases)):
        assert keys(None, listed) == expected


def test_a_point_that_comes_twice_is_one() -> None:
    assert len(keys({"energy": [1, 1.0, 2, np.int64(2)]})) == 2


def test_where_leaves_points_out() -> None:
    assert len(keys({"energy": range(4), "gamma": range(4)}, where=lambda energy, gamma: energy < gamma)) == 6


def test_other_constants_or_another_function_are_other_points() -> None:
    def other(energy: float, steps: int = 1) -> None: ...

    base = keys({"energy": [1]}, constants={"steps": 1})
    assert base != keys({"energy": [1]}, constants={"steps": 2})
    assert base != keys({"energy": [1]})
    assert base != keys({"energy": [1]}, constants={"steps": 1}, function=other)
    assert base == keys({"energy": [1]}, function=partial(simulate, steps=1))


def test_a_seed_depends_on_its_point_and_repeat_alone() -> None:
    few = design(seed=42, repeat=3).specs([{"energy": 1}])
    many = design(seed=42, repeat=5).specs([{"energy": 0}, {"energy": 1.0}])
    seeds = {spec.identity: spec.seed for spec in many}
    assert all(seeds[spec.identity] == spec.seed for spec in few)
    assert len(set(seeds.values())) == 10
    assert all(0 <= seed < 2**63 for seed in seeds.values() if seed is not None)
    assert design(seed=42).arguments(few[0]) == {"energy": 1, "seed": few[0].seed}
    assert design(seed=43).specs([{"energy": 1}])[0].seed != few[0].seed


@given(st.integers(), st.text(), st.integers(0, 10**6))
def test_every_seed_is_below_two_to_the_63(root: int, key: str, repeat: int) -> None:
    assert 0 <= seed_of(root, key, repeat) < 2**63


@pytest.mark.parametrize(
    ("axes", "more", "problem"),
    [
        ({"energy": []}, {}, "axis 'energy' is empty"),
        ({"energy": 3}, {}, "axis 'energy' needs values to iterate over"),
        ({"energy": "abc"}, {}, "needs a list of values"),
        ({("energy", "gamma"): [(1, 2), (3,)]}, {}, "needs 2 values at once"),
        ({"energy": [1], ("energy", "gamma"): [(1, 2)]}, {}, "on two axes"),
        ({"mass": [1]}, {}, r"simulate\(energy.*does not take 'mass'"),
        ({"gamma": [1]}, {}, "missing a required argument: 'energy'"),
        ({"energy": [1]}, {"constants": {"energy": 2}}, "'energy' is given twice"),
        ({"energy": [1], "seed": [1]}, {"seed": 3}, "'seed' is given twice"),
        ({"energy": [1]}, {"seed": 3, "seed_param": "rng"}, "rng"),
        ({"energy": [object()]}, {}, "no canonical form"),
        ({3: [1]}, {}, "name of an axis is a string"),
        ([1, 2], {}, "axes are a dict"),
        (None, {}, "needs axes, or cases"),
        ({"energy": [1]}, {"repeat": 0}, "repeat must be 1 or more"),
        ({"energy": [1]}, {"seed": 1.5}, "seed must be an integer"),
        ({"energy": [1]}, {"function": 3}, "must be callable"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_error_at_once(axes: Any, more: dict[str, Any], problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        keys(axes, **more)


def test_a_label_stands_for_a_value_that_the_function_gets() -> None:
    mesh = object()
    labelled = design(function=lambda mesh: mesh, labels={"mesh": lambda value: "fine"})
    [spec] = labelled.specs([{"mesh": mesh}])
    assert labelled.arguments(spec) == {"mesh": mesh}
    assert labelled.shown(spec.params) == {"mesh": "fine"}
    [other] = design(function=labelled.function).specs([{"mesh": Labelled(mesh, "fine")}])
    assert other.key == spec.key
    assert labelled.arguments(other) == {"mesh": mesh}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 100])
def test_a_spread_order_has_every_point_once_and_shows_the_range_early(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    if count == 100:
        assert all(
            max(abs(a - b) for a, b in zip([-1, *sorted(order[:n])], [*sorted(order[:n]), 100], strict=True))
            <= 256 // n
            for n in (8, 16, 32)
        )


def test_names_are_those_of_the_function() -> None:
    assert name_of(partial(partial(simulate, 1), gamma=2)) == "simulate"
