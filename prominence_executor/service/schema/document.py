"""JSON texts as they come in requests, read so that whatever they hold can be stored, compared, run and told again.

Refused is what JSON or Python allow and something further on does not: numbers that are none, characters that no file
name or environment can have, and lists inside lists without end.
"""

from __future__ import annotations

import json
import math
from typing import Any

from .bounds import DEEPEST, LONGEST_NUMBER
from .items import Refused

_LARGEST = 10**LONGEST_NUMBER
_TOO_LONG = f"numbers must have at most {LONGEST_NUMBER} digits"
_TOO_DEEP = f"the request's body must not be nested more than {DEEPEST} levels deep"


def read_document(content: bytes) -> Any:
    """Return what a JSON text says. Raises Refused."""
    try:
        document = json.loads(content, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise Refused(_TOO_DEEP) from None
    except Refused:
        raise
    except ValueError as error:
        raise Refused(f"the request's body must be JSON: {error}") from error
    check_parts(document)
    return document


def check_parts(document: Any) -> None:
    """Refuse characters, numbers and depths that break what a document is used for."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, str):
                _check_text(part)
            elif isinstance(part, dict):
                for key in part:
                    _check_text(key)
                inner += part.values()
            elif isinstance(part, list):
                inner += part
            elif isinstance(part, (int, float)):
                _check_number(part)
        level = inner
        if not level:
            return
    raise Refused(_TOO_DEEP)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise Refused("texts must not contain null characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused("texts must not contain half a character (a lone surrogate)") from None


def _check_number(number: float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        raise Refused(f"numbers must be finite: {number} is not")
    if isinstance(number, int) and abs(number) >= _LARGEST:
        raise Refused(_TOO_LONG)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refused(f"numbers must be finite: {text[:40]} is not")
    return number


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise Refused(_TOO_LONG)
    return int(text)
