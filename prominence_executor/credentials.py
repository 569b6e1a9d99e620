"""Passwords in the addresses of package indexes: they reach the tool that needs them, and nobody else. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

_USER = re.compile(r"(://)[^/\s'\"]*@")  # up to the last @ before the path: a password may hold one
_SHORT = 4  # characters of a word that is too common to be searched for


def without_credentials(text: str, known: Iterable[str] = ()) -> str:
    """Return a text in which no address names a user or a password, nor does it say those that ``known`` lines have."""
    text = _USER.sub(r"\1****@", text)
    for secret in sorted(_passwords(known), key=len, reverse=True):
        text = text.replace(secret, "****")
    return text


def has_credentials(text: str) -> bool:
    """Return whether an address in it names a user, or a password."""
    return _USER.search(text) is not None


def _passwords(lines: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for line in lines:
        for match in _USER.finditer(line):
            user, colon, password = match[0][3:-1].partition(":")
            secret = password if colon else user  # a token may stand alone
            found |= {secret, unquote(secret)}
    return {secret for secret in found if len(secret) >= _SHORT}
