"""The parts of a request, checked before anything is sent: numbers and paths for URLs, filters, bodies.

Pure functions of what a caller gave. What cannot be right is an InvalidRequestError, which is a ValueError, too.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ..errors import InvalidRequestError
from .validation import BODY_LIMIT, check_labels, encode

_IDS_LENGTH = 3500  # characters of ids in one URL; servers refuse lines of more than about 4000


def body_of(description: Mapping[str, Any]) -> bytes:
    """Return a description as a body that the service reads."""
    body = encode(description)
    if len(body) > BODY_LIMIT:
        raise InvalidRequestError(f"the description has {len(body)} bytes; the service reads at most {BODY_LIMIT}")
    return body


def natural(value: int) -> int:
    """Return an id, node or offset as an int of at least 0."""
    number = operator.index(value)
    if number < 0:
        raise InvalidRequestError(f"an id, node or offset must be at least 0, not {number}")
    return number


def id_lists(ids: Iterable[int]) -> Iterator[str]:
    """Join the ids by commas, in as many strings as keep each one short enough for a URL."""
    joined = ""
    for text in (str(natural(number)) for number in ids):
        if len(joined) + len(text) >= _IDS_LENGTH:
            yield joined
            joined = ""
        joined += f",{text}" if joined else text
    if joined:
        yield joined


def object_path(path: str, field: str, *, may_be_empty: bool = False, may_end: bool = False) -> str:
    """Return the path of an object or key as a URL has it, with a leading slash; ``may_end``: with one at its end."""
    path = path.removeprefix("/")
    if not path and may_be_empty:
        return ""
    whole = path.removesuffix("/") if may_end else path
    if any(part in ("", ".", "..") for part in whole.split("/")):
        raise InvalidRequestError(f"{field} must be words joined by single slashes, not {path!r}")
    return "/" + quote(path, safe="/")


def filters(constraint: tuple[str, str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query that lists jobs or workflows; filters that are None or False are left out."""
    chosen = {key: value for key, value in given.items() if value is not None and value is not False}
    params = {key: "true" if value is True else value for key, value in chosen.items()}
    if constraint is not None:
        label, value = constraint
        check_labels({label: value}, "constraint")
        params["constraint"] = f"{label}={value}"
    return params
