"""Warnings about a run, given in a thread of the user's, at the line of the program that called the package."""

from __future__ import annotations

import inspect
import os
import warnings

from ..errors import ShortCallsWarning
from ..run.history import History

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def warn_of_short_calls(history: History) -> None:
    """Warn once when the run has turned out to be a long one of short calls in jobs of their own."""
    text = history.short_calls.take()
    if text is not None:
        warnings.warn(f"run {history.run_id}: {text}", ShortCallsWarning, stacklevel=_outside())


def _outside() -> int:
    """Return the stack level, for `warnings.warn` in the caller, of the first frame outside of this package."""
    here = inspect.currentframe()
    frame, level = here and here.f_back, 1  # warn_of_short_calls itself
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
