"""What the service's answers look like, as far as anything here reads them; checked once, where they are read.

Only what is read is looked at: what is unknown is ignored, and so is what is null where it may be missing. Pure; a
shape is a function that raises `Misshapen` with the place where an answer is not as it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shape = Callable[[Any, str], None]

_LARGEST = 1 << 63  # of numbers
_LATEST = 1e11  # seconds since the epoch


class Misshapen(ValueError):
    """An answer that the service would not give."""


def text(value: Any, where: str) -> None:
    """Take a string."""
    if not isinstance(value, str):
        raise Misshapen(f"{where} is not a string")


def word(value: Any, where: str) -> None:
    """Take a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise Misshapen(f"{where} is not a word")


def natural(value: Any, where: str) -> None:
    """Take a number such as an id, or a size."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise Misshapen(f"{where} is not a natural number")


def moment(value: Any, where: str) -> None:
    """Take seconds since the epoch."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LATEST:
        raise Misshapen(f"{where} is not a time")


def record(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """Make the shape of an object with fields of these shapes; the optional ones may be missing."""
    others = tuple((optional or {}).items())

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise Misshapen(f"{where} is not an object")
        for name, shape in required.items():
            shape(value.get(name), f"{where}.{name}")
        for name, shape in others:
            field = value.get(name)
            if field is not None:
                shape(field, f"{where}.{name}")

    return check


def each(shape: Shape) -> Shape:
    """Make the shape of a list of items of one shape."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise Misshapen(f"{where} is not a list")
        for number, item in enumerate(value):
            shape(item, f"{where}[{number}]")

    return check


def table(shape: Shape) -> Shape:
    """Make the shape of an object all of whose values have one shape."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise Misshapen(f"{where} is not an object")
        for name, item in value.items():
            shape(item, f"{where}.{name[:100]}")

    return check


_OUTPUT = record({"name": text}, {"url": text, "size": natural})


def _output(value: Any, where: str) -> None:
    """Take an output of a job; a mere name where nothing is known of it yet, as in a workflow's description."""
    if not isinstance(value, str):
        _OUTPUT(value, where)


_TIMES = record({}, {"createTime": moment, "startTime": moment, "endTime": moment})
_DESCRIPTION: Mapping[str, Shape] = {
    "name": text,
    "labels": table(text),
    "tasks": each(record({}, {"image": text})),
    "resources": record({}),
    "inputs": each(record({"filename": text}, {"content": text})),
    "artifacts": each(record({"url": text})),
    "outputFiles": each(_output),
    "outputDirs": each(_output),
}
"""Of a job, as it was created."""

JOB = record(
    {"id": natural, "status": word},
    {
        **_DESCRIPTION,
        "statusReason": text,
        "events": _TIMES,
        "execution": record({}, {"tasks": each(record({}))}),
        "parameters": record({}),
    },
)
WORKFLOW = record(
    {"id": natural, "status": word},
    {
        "name": text,
        "labels": table(text),
        "statusReason": text,
        "events": _TIMES,
        "progress": table(natural),
        "jobs": each(record({}, _DESCRIPTION)),
    },
)
CREATED = record({"id": natural})
SIGNED = record({"url": word}, {"fields": table(text)})
OBJECT = record({"name": text, "size": natural}, {"lastModified": text})
KEY = text
PAIR = table(text)
ANY = record({})
