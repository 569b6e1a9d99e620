"""Results that are pickled without cloudpickle: the same to their reader, and only what can be."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import io
import pickle
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import pytest

from prominence_executor.payload.loading import loads_outcome
from prominence_executor.remote.plain import Dumper, Elaborate, Held, PlainPickler
from prominence_executor.remote.script import Script

Point = collections.namedtuple("Point", "x y")
PLAIN = [
    None, 1, 1.5, 1j, "text", b"bytes", bytearray(b"x"), [1, [2]], {"a": (1, {2})}, frozenset((1,)), range(3),
    slice(1, 2), ValueError("wrong", 3), KeyError, len, datetime.datetime(2026, 1, 1), decimal.Decimal("1.5"),
    collections.OrderedDict(a=1), collections.deque([1], 3), collections.defaultdict(list, a=[1]), functools.reduce,
    pickle.PickleBuffer(b"buffer"),
]  # fmt: skip
ELABORATE = [
    lambda: 1, (lambda: 1).__code__, {}.keys(), types.MappingProxyType({}), sys, enum.Enum("Colour", "RED").RED,  # type: ignore[attr-defined]
    typing.TypeVar("T"), Ellipsis, functools.partial(int), functools.lru_cache(len), property(), Point(1, 2),
    PurePath("x"),
    type("Own", (), {"__module__": "__main__"})(), [1, (2, lambda: 3)], memoryview(b"x"),
]  # fmt: skip


def plainly(value: object) -> bytes:
    held = Held()
    PlainPickler(held, 5).dump(value)
    return b"".join(held.pieces)


@pytest.fixture
def without_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "cloudpickle")
        yield


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_pickled_plainly_is_the_same_to_its_reader(value: object) -> None:
    loaded = pickle.loads(plainly(value))
    if isinstance(value, pickle.PickleBuffer):
        assert loaded == b"buffer"
    else:
        assert repr(loaded) == repr(value)
        assert type(loaded) is type(value)


@pytest.mark.parametrize("value", ELABORATE, ids=lambda value: type(value).__name__)
def test_what_takes_cloudpickle_is_left_to_it(value: object) -> None:
    with pytest.raises(Elaborate):
        plainly(value)


def test_numpys_arrays_and_numbers_are_plain() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (
        numpy.arange(6).reshape(2, 3)[:, ::2],
        numpy.float64(1.5),
        numpy.dtype("i4"),
        numpy.array(["a", None]),
    ):
        assert repr(pickle.loads(plainly(value))) == repr(value)


class Counting:
    """Its `__reduce__` is to be called once."""

    asked = 0

    def __reduce__(self) -> tuple[Any, ...]:
        Counting.asked += 1
        return (Counting, ())


@pytest.mark.usefixtures("without_cloudpickle")
def test_python_code_of_others_is_asked_once() -> None:
    Counting.asked = 0
    Dumper(Script()).dumps([Counting(), lambda: 1])
    assert Counting.asked == 1


@pytest.mark.usefixtures("without_cloudpickle")
@pytest.mark.parametrize("elaborate", [False, True])
def test_buffers_are_seen_once_however_it_is_pickled(elaborate: bool) -> None:
    seen: list[object] = []
    value = [pickle.PickleBuffer(b"first"), pickle.PickleBuffer(b"second"), (lambda: 1) if elaborate else None]
    file = io.BytesIO()
    Dumper(Script()).dump(value, file, 5, seen.append, seen.clear)
    assert len(seen) == 2
    loaded = pickle.loads(file.getvalue(), buffers=[b"first", b"second"]) if not elaborate else None
    assert elaborate or loaded == [b"first", b"second", None]


@pytest.mark.usefixtures("without_cloudpickle")
def test_a_large_result_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prominence_executor.remote.plain.HELD", 1000)
    value = list(range(1000))
    assert loads_outcome(Dumper(Script()).dumps(value)) == value
    with pytest.raises(Elaborate):
        plainly(value)
