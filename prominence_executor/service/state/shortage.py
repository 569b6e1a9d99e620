"""Which errors say no more than that this machine is short of something at the moment: of disk, descriptors, processes.

What fails so is worth another try later, and nobody's fault who asked for it.
"""

from __future__ import annotations

import errno
import sys

AGAIN = 1.0  # seconds until it is tried again
_FULL = "no space is left on the service's disk"
_SENTENCES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: "the service has no more file descriptors",
    errno.ENFILE: "the service's machine has no more file descriptors",
    errno.ENOMEM: "the service's machine has no more memory",
    errno.EAGAIN: "the service's machine has no more processes",
}
# As SQLite's messages say it: Python 3.10 does not tell their numbers.
_OF_DATABASE = {
    "database or disk is full": _FULL,
    "disk I/O error": _FULL,
    "unable to open database file": "the service has no more file descriptors",
    "attempt to write a readonly database": "the service's database cannot be written",
}


def shortage(error: BaseException) -> str | None:
    """Return what there is not enough of, as a sentence; None for any other error."""
    database = sys.modules.get("sqlite3")  # where nobody has imported it, it has raised nothing
    if database is not None and isinstance(error, database.OperationalError):
        return next((sentence for text, sentence in _OF_DATABASE.items() if text in str(error)), None)
    if isinstance(error, OSError) and error.errno is not None:
        return _SENTENCES.get(error.errno)
    return None


class NotNow(Exception):
    """Something could not begin, and nothing has changed; the text names what there was not enough of."""


def not_now(error: Exception) -> Exception:
    """Return NotNow for an error that is a shortage, else the error itself."""
    sentence = shortage(error)
    return error if sentence is None else NotNow(sentence)


def is_full(sentence: str) -> bool:
    """Return whether it is the disk of which there is not enough."""
    return sentence == _FULL
