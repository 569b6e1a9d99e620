"""Which point of a sweep is which: parameters to a canonical form, and that to a key.

Two points are the same when function, parameters and constants are equal *by value*, in whatever type, order, program
or version of Python they were written: a key is the SHA-256 of a text, never of a pickle. What has no canonical form
needs a label. This module computes; it stores nothing, and knows neither executors nor tables.
"""

from __future__ import annotations

import datetime
import enum
import functools
import hashlib
import inspect
import json
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..public import public

_DATES = (datetime.date, datetime.time)  # a datetime is a date


@public
@dataclass(frozen=True)
class Labelled:
    """A parameter's value that has no canonical form, under a name that says which one it is.

    Attributes:
        value: what the function gets.
        label: by which points are told apart, and what tables show; the same label means the same value.
    """

    value: Any
    label: str


class NoCanonicalFormError(TypeError):
    """A value of a type that this module knows no canonical form of."""


def canonical(value: Any) -> Any:
    """Return what a value is, as nested lists of JSON.

    Numbers are what they are worth: 1, 1.0, Fraction(1) and np.float64(1) are the same; True is another value. Lists
    and tuples are apart, the order of a dict does not matter, and an array is its dtype, shape and bytes.

    Raises:
        NoCanonicalFormError: the value, or one inside it, is of another kind.
    """
    if value is None or isinstance(value, (bool, str)):
        return value if not isinstance(value, enum.Enum) else _of_enum(value)
    if isinstance(value, enum.Enum):
        return _of_enum(value)
    if isinstance(value, Labelled):
        return ["label", value.label]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, datetime.timedelta):
        return ["seconds", *_ratio(value / datetime.timedelta(microseconds=1))]
    if isinstance(value, _DATES):
        return [type(value).__name__, value.isoformat()]
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", *map(canonical, value)]
    if isinstance(value, Mapping):
        items = [[canonical(key), canonical(item)] for key, item in value.items()]
        return ["dict", *sorted(items, key=_text)]
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _of_array(numpy, value)
    return _of_number(value)


def _of_enum(value: enum.Enum) -> Any:
    return ["enum", type(value).__qualname__, value.name]


def _of_array(numpy: Any, value: Any) -> Any:
    if value.shape == () and value.dtype.char == "g":
        return _ratio(value[()])
    is_plain = type(value).__module__.partition(".")[0] == "numpy" and not isinstance(value, numpy.ma.MaskedArray)
    # A mask or a unit is not in an array's bytes, and of long doubles some of these mean nothing.
    if not is_plain or value.dtype.hasobject or value.dtype.char in "gG":
        raise _unknown(value)
    if value.shape == () and not isinstance(value.item(), numpy.generic) and value.dtype.kind in "biufcUS":
        return canonical(value.item())
    plain = numpy.asarray(value).astype(value.dtype.newbyteorder("<"), order="C")
    return ["array", str(plain.dtype.descr), list(plain.shape), hashlib.sha256(plain.tobytes()).hexdigest()]


def _of_number(value: Any) -> Any:
    if isinstance(value, complex):
        return _ratio(value.real) if value.imag == 0 else ["complex", _ratio(value.real), _ratio(value.imag)]
    try:
        return _ratio(operator.index(value) if hasattr(value, "__index__") else value)
    except (AttributeError, TypeError):
        raise _unknown(value) from None


def _ratio(value: Any) -> Any:
    """Return the exact worth of a real number: a numerator and a denominator, as texts since they may be long."""
    if isinstance(value, float) and not math.isfinite(value):
        return ["number", repr(value)]
    try:
        over, under = value.as_integer_ratio()
    except (OverflowError, ValueError):  # Decimal("NaN"), Decimal("Infinity")
        return ["number", repr(float(value))]
    return ["number", str(over)] if under == 1 else ["number", str(over), str(under)]


def _unknown(value: Any) -> NoCanonicalFormError:
    return NoCanonicalFormError(f"{type(value).__name__} has no canonical form")


def _text(form: Any) -> str:
    return json.dumps(form, separators=(",", ":"))


def form_of(name: str, value: Any, label: Callable[[Any], str] | None = None) -> str:
    """Return a parameter's canonical form as text.

    Raises:
        TypeError: the value has none, and no label; the message says what to do.
    """
    if label is not None and not isinstance(value, Labelled):
        value = Labelled(value, str(label(value)))
    try:
        return _text(canonical(value))
    except NoCanonicalFormError as error:
        raise TypeError(
            f"the parameter {name!r}: {error}, by which the point could be found again; give it a label: "
            f"labels={{{name!r}: str}}, or Labelled(value, 'a name')"
        ) from None


def part_of(name: str, form: str) -> str:
    """Return what one parameter, with the text of its canonical form, adds to a key: one line."""
    return f"{json.dumps(name)}:{form}"


def key_of(function: str, parts: Iterable[str]) -> str:
    """Return a point's key: 32 hexadecimal digits.

    Args:
        function: its name.
        parts: of all parameters and constants, in any order; see `part_of`.
    """
    text = "\n".join([json.dumps(function), *sorted(parts)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def seed_of(root: int, key: str, repeat: int) -> int:
    """Return the seed of one repeat of a point, below 2**63: no other point has a say in it."""
    digest = hashlib.sha256(f"{root}:{key}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which a function's points are found again: without its module's, ``__main__`` at times."""
    function, _ = unbound(function)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def unbound(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Take a ``functools.partial`` apart: the function in it, and what it binds, which is part of the identity."""
    bound: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        bound = {**{f"argument {n}": item for n, item in enumerate(function.args)}, **function.keywords, **bound}
        function = function.func
    return function, bound


def check_names(function: Callable[..., Any], names: Sequence[str]) -> None:
    """Raise TypeError unless the function can be called with just these keyword arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin does not tell
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    strange = [name for name in names if name not in signature.parameters]
    if strange and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(f"{name_of(function)}{signature} does not take {strange[0]!r}, a parameter of the sweep")
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise TypeError(
            f"{name_of(function)}{signature} cannot be called with the sweep's parameters: {error}"
        ) from None
