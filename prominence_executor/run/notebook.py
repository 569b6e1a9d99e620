"""How IPython shows the exception of a call: the program's own frames, and without those of this package.

IPython asks an exception for ``_render_traceback_``; only in a notebook, or IPython's shell, do exceptions get one.
Everywhere else, and for whoever looks at ``__traceback__``, they stay as they are.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

_ATTRIBUTE = "_render_traceback_"
_FOLDERS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep for file in (os.path.dirname(__file__), concurrent.futures.__file__)
)


def fold(error: BaseException) -> None:
    """Have IPython, if this is one, show an exception of a call without this package's frames."""
    if _shell() is not None:
        with suppress(Exception):  # of a class with slots, or with a __setattr__ of its own
            vars(error).setdefault(_ATTRIBUTE, Folded(error))


class Folded:
    """Renders an exception for IPython. What is pickled of it is the plain rendering, which needs nothing from here."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self) -> list[str]:
        """Return the lines that IPython prints."""
        error, shell = self._error, _shell()
        kept, folded = without_package(error.__traceback__)
        try:
            lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, kept)
        except Exception:  # noqa: BLE001  another IPython; and formatting calls what is somebody else's
            lines = traceback.format_exception(type(error), error, kept)
        if folded:
            note = f"({folded} frames of prominence_executor and concurrent.futures are not shown; "
            lines = [*lines[:-1], note + "error.__traceback__ has them)", *lines[-1:]]
        return lines

    def __reduce__(self) -> Any:
        return partial, (traceback.format_exception, self._error)


def without_package(shown: TracebackType | None) -> tuple[TracebackType | None, int]:
    """Make a traceback without the frames of this package, and of what it waits in; return it and their number."""
    frames = []
    while shown is not None:
        frames.append(shown)
        shown = shown.tb_next
    kept = [frame for frame in frames if not _is_ours(frame.tb_frame.f_code.co_filename)]
    made = None
    for frame in reversed(kept):
        made = TracebackType(made, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return made, len(frames) - len(kept)


def _is_ours(file: str) -> bool:
    return os.path.abspath(file).startswith(_FOLDERS)


def _shell() -> Any:
    """Return IPython's shell, if this program is one; nothing is imported for that."""
    module = sys.modules.get("IPython")
    find = getattr(module, "get_ipython", None)
    return find() if find is not None else None
