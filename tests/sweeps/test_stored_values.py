"""Values in a store: exact, verified, and unpickled only where that is allowed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.sweeps.values import DamagedError, Files, dumps, fields_of, loads

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Run:
    loss: float
    trace: Any


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "files").mkdir()
    return Files(tmp_path / "files", b"k" * 32, False)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same type, NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@given(PLAIN)
def test_plain_values_come_back_as_they_were_and_are_json(value: Any) -> None:
    nowhere = Files(Path("/nonexistent"), None, False)
    text = dumps(value, nowhere)
    json.loads(text)
    assert same(loads(text, nowhere), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.array(3), np.array(["a", "bc"]), np.array([1 + 2j]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.arange(4, dtype=">i2"),

        np.array(["2026-01-01"], "M8[D]"),
    ],
)  # fmt: skip
def test_arrays_are_files_without_a_pickle(array: Any, files: Files) -> None:
    text = dumps({"trace": array, "n": [array]}, files)
    again = loads(text, files)
    assert again["trace"].dtype == array.dtype
    assert again["trace"].shape == array.shape
    assert np.array_equal(again["n"][0], array)
    assert "pickle" not in text


@pytest.mark.parametrize(
    "scalar", [np.float32(0.1), np.int64(3), np.bool_(True), np.complex64(1j), np.datetime64("2026-01-01", "ns")]
)
def test_numpy_scalars_keep_their_type(scalar: Any, files: Files) -> None:
    again = loads(dumps(scalar, files), files)
    assert type(again) is type(scalar)
    assert again == scalar


@pytest.mark.parametrize(
    "date", [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.time(1, 2)]
)
def test_dates_keep_their_type(date: Any, files: Files) -> None:
    assert same(loads(dumps(date, files), files), date)


@pytest.mark.parametrize("value", [Pair(1, 2.5), Run(0.5, [1, 2]), {1, 2}, np.ma.masked_array([1, 2], [True, False])])
def test_the_rest_is_pickled_signed_and_shows_its_fields(value: Any, files: Files, tmp_path: Path) -> None:
    text = dumps(value, files)
    assert str(loads(text, files)) == str(value)
    for key, trust in ((b"other", False), (None, False)):
        with pytest.raises(PermissionError, match="pickle"):
            loads(text, Files(tmp_path / "files", key, trust))
    assert str(loads(text, Files(tmp_path / "files", None, True))) == str(value)
    forged = json.loads(text)
    forged["mac"] = "0" * 64
    with pytest.raises(PermissionError):
        loads(json.dumps(forged), files)
    if isinstance(value, Pair):
        assert fields_of(text, files) == {"first": 1, "second": 2.5}
    if isinstance(value, Run):
        assert fields_of(text, files) == {"loss": 0.5, "trace": [1, 2]}


def test_a_damaged_file_is_an_error_and_the_same_content_one_file(files: Files, tmp_path: Path) -> None:
    text = dumps([np.arange(3), np.arange(3)], files)
    [path] = list((tmp_path / "files").rglob("*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="damaged"):
        loads(text, files)
    path.unlink()
    with pytest.raises(DamagedError, match="gone"):
        loads(text, files)


def test_a_name_never_leaves_the_directory(files: Files, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(DamagedError):
        loads('{"$array": "../../secret"}', files)


def test_a_key_that_looks_like_a_mark_is_a_key(files: Files) -> None:
    value = {"$pickle": "x", "a": {"$tuple": [1]}}
    assert loads(dumps(value, files), files) == value
