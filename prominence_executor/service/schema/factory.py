"""The factories of a workflow: which parameters each instance of their jobs has. No state, no clock."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

from .bounds import LARGEST_PLAN, LARGEST_WORKFLOW, LONGEST_NUMBER, LONGEST_TEXT, LONGEST_VALUE
from .items import Refused, is_whole, shown

_LARGEST_NUMBER = 2**53  # up to which a step of 1 is a step
_BREAKS_VALUES = re.compile(r"[\s=\"'\\\x00]")


def check_type(factory: dict[str, Any]) -> None:
    """Refuse a factory of a kind that there is not."""
    if not isinstance(factory.get("type"), str) or factory["type"] not in _KINDS:
        raise Refused("invalid factory type")


def expanded(factory: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters of each instance, in order. Raises Refused when they cannot be told."""
    return _KINDS[factory["type"]](factory)


def _parameters(factory: dict[str, Any], items: set[str]) -> list[dict[str, Any]]:
    parameters = factory.get("parameters")
    if not isinstance(parameters, list) or not parameters:
        raise Refused("a factory must contain an array of parameters")
    for parameter in parameters:
        if not isinstance(parameter, dict) or not isinstance(parameter.get("name"), str):
            raise Refused("each parameter must have a name")
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", parameter["name"]) or len(parameter["name"]) >= LONGEST_TEXT:
            raise Refused(f'parameter name "{shown(parameter["name"])}" is invalid')
        if parameter.keys() != items | {"name"}:
            raise Refused(f"each parameter of a {factory['type']} factory must contain {', '.join(sorted(items))}")
    if len({parameter["name"] for parameter in parameters}) < len(parameters):
        raise Refused("all parameters must have unique names")
    return parameters


def _zip(factory: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = _parameters(factory, {"values"})
    lists = [parameter["values"] for parameter in parameters]
    if not all(isinstance(values, list) for values in lists) or len({len(values) for values in lists}) > 1:
        raise Refused("all parameters must lists of values the same length")
    _check_count(len(lists[0]), len(lists))
    for value in itertools.chain(*lists):
        if not _is_value(value):
            wanted = "numbers, or texts without spaces, quotes, = and backslashes"
            raise Refused(f"value {shown(repr(value))} of a zip factory is invalid: {wanted}")
    names = [parameter["name"] for parameter in parameters]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _is_value(value: object) -> bool:
    """Return whether a value arrives everywhere as it was sent, and is short enough for a name."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < int(10**LONGEST_NUMBER)
    if not isinstance(value, str) or not value or len(value) > LONGEST_VALUE:
        return False
    return len(value.encode()) <= LONGEST_VALUE and _BREAKS_VALUES.search(value) is None


def _check_count(jobs: int, parameters: int) -> None:
    """Refuse more jobs, or parameters of all of them, than can be stored; before they are made."""
    if jobs > LARGEST_WORKFLOW:
        raise Refused(f"a workflow may have at most {LARGEST_WORKFLOW} jobs")
    if jobs * parameters > LARGEST_PLAN:
        raise Refused(f"the jobs of a factory may have at most {LARGEST_PLAN} parameters together")


def _sweep(factory: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all combinations, the last parameter changing fastest. `end` is reached only if the steps add up to it."""
    parameters, lists, count = _parameters(factory, {"start", "end", "step"}), [], 1
    for parameter in parameters:
        lists.append(_steps(parameter["start"], parameter["end"], parameter["step"]))
        count *= len(lists[-1])
        _check_count(count, len(parameters))
    names = [parameter["name"] for parameter in parameters]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]


def _steps(start: Any, end: Any, step: Any) -> list[int | float]:
    for number in (start, end, step):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise Refused("start, end and step of a parameter must be numbers")
        if not abs(number) <= _LARGEST_NUMBER:
            raise Refused(f"start, end and step of a parameter must be at most {_LARGEST_NUMBER}")
    # Far from 0 a small step is none: the sum is the number that it was added to.
    if step <= 0 or start + step <= start or end + step <= end or abs(end - start) / step > LARGEST_WORKFLOW:
        raise Refused("step of a parameter must be greater than 0, and not too small")
    values, value = [], start
    while value <= end:
        values.append(int(value) if float(value).is_integer() else value)
        value += step
    return values


def _repeat(factory: dict[str, Any]) -> list[dict[str, Any]]:
    number = factory.get("number")
    if not isinstance(number, int) or not is_whole(number):
        raise Refused("number of repeats must be an integer")
    if number < 1:
        raise Refused("number of repeats must be at least 1")
    _check_count(number, 1)
    return [{} for _ in range(number)]


_KINDS: dict[Any, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "zip": _zip,
    "parameterSweep": _sweep,
    "repeat": _repeat,
}
