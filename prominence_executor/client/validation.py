"""What a value must be so that the service accepts it, and the one form of the sentence when it is not.

Pure: no network, no files. It knows rules, not which description has which field.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "BODY_LIMIT",
    "Value",
    "check_labels",
    "check_name",
    "encode",
    "encoded",
    "has_control_characters",
    "one_of",
    "whole_number",
    "words_of",
    "wrong",
    "wrong_field",
]

BODY_LIMIT = 1_048_576
"""The largest request body that the service reads, in bytes. Inline files count in base64, so about 780 KB of them."""

_TEXT_LIMIT = 512  # characters that a name, or a label's name or value, must stay below
_WORD = re.compile(r"""(?:[^ \t\r\n'"\\]+|'[^']*'|"[^"\\]*(?:\\.[^"\\]*)*"|\\.)+""", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Value:
    """A value of a description: it may be changed freely, and is checked when JSON is made of it."""

    __slots__ = ()

    def json(self) -> dict[str, Any]:
        """Return the JSON that the service reads; nothing is sent.

        Raises:
            ValueError: a field has a value that the service would refuse, or break on.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json()`` returns; it is upstream's name."""
        return self.json()


def encode(description: Mapping[str, Any]) -> bytes:
    """Return a description as the request body that carries it."""
    return json.dumps(description, separators=(",", ":"), allow_nan=False).encode("ascii")


def check_name(name: str, field: str = "name") -> str:
    """Return the name of a job or workflow, if the service takes it."""
    if not isinstance(name, str) or len(name) >= _TEXT_LIMIT or not re.fullmatch(r"[a-zA-Z0-9_ ./-]*", name):
        raise wrong(field, "fewer than 512 letters, digits, spaces and - _ . /", name)
    return name


def check_labels(labels: Mapping[str, str], field: str = "labels") -> dict[str, str]:
    """Return the labels as a dict, if the service takes them."""
    if not isinstance(labels, Mapping):
        raise wrong(field, "a mapping of names to values", labels)
    for name, value in labels.items():
        if not isinstance(name, str) or len(name) >= _TEXT_LIMIT or not re.fullmatch(r"[a-zA-Z0-9]+", name):
            raise wrong(field, "names of letters and digits only", name)
        if not isinstance(value, str) or len(value) >= _TEXT_LIMIT or not re.fullmatch(r"[\w./-]+", value):
            raise wrong(f"{field}[{name!r}]", "a string of fewer than 512 letters, digits and _ . / -", value)
    return dict(labels)


def whole_number(owner: object, field: str, low: int, high: int | None = None, unit: str = "") -> int:
    """Return a field as an int; numpy's integers count, bool and float do not (the service wants digits)."""
    value = getattr(owner, field)
    expected = f"a whole number{unit} of at least {low}" + ("" if high is None else f" and at most {high}")
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong_field(owner, field, expected) from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise wrong_field(owner, field, expected)
    return int(number)


def one_of(owner: object, field: str, allowed: tuple[str, ...]) -> str:
    """Return a field, if it is one of these words."""
    value = getattr(owner, field)
    if value not in allowed:
        raise wrong_field(owner, field, "one of " + ", ".join(allowed))
    return str(value)


def encoded(text: str) -> bytes:
    """Return a text as UTF-8; half a character, which no service takes, counts as one."""
    return text.encode(errors="surrogatepass")


def words_of(command: str) -> list[str] | None:
    """Return the words of a command with their quotes, or None when those are not balanced.

    `shlex.split`, whose rules these are, is quadratic: it needs 20 seconds for a word of 1 MB.
    """
    words, end = [], 0
    for found in _WORD.finditer(command):
        if command[end : found.start()].strip(" \t\r\n"):
            return None
        words.append(found[0])
        end = found.end()
    return None if command[end:].strip(" \t\r\n") else words


def has_control_characters(text: str) -> bool:
    """Tell whether there is a line break, a NUL or their like in it."""
    return _CONTROL.search(text) is not None


def wrong(where: str, expected: str, value: object) -> ValueError:
    """Make the one form of the sentence: what must be what, and what it was instead."""
    shown = repr(value)
    return ValueError(f"{where} must be {expected}, not {shown if len(shown) <= 100 else shown[:97] + '...'}")


def wrong_field(owner: object, field: str, expected: str) -> ValueError:
    """Make that sentence about a field of a description."""
    return wrong(f"{type(owner).__name__}.{field}", expected, getattr(owner, field))
