"""Bars that show how far a set of calls has come, or a file on its way: the only place that knows tqdm.

Quiet when standard error is no terminal, and, but for files, without tqdm (the extra ``progress``). It counts nothing.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

_PAUSE = 0.2  # seconds between two looks at what is counted


class ProgressBar:
    """Shows, from ``with`` to its end, how many calls have ended, what the others do, and how long it may take.

    Args:
        counts: returns the numbers by words; those in ``ended`` make the bar, the others stand behind it.
        wanted: None: where standard error is a terminal and tqdm is installed.

    Raises:
        ImportError: it is wanted, but tqdm is not installed.
    """

    def __init__(
        self,
        what: str,
        total: int,
        counts: Callable[[], Mapping[str, int]],
        ended: tuple[str, ...],
        wanted: bool | None,
    ) -> None:
        self._counts = counts
        self._ended = ended
        self._next = 0.0
        self._bar = _bar(wanted)
        if self._bar is not None:
            self._bar = self._bar(
                total=total,
                initial=self._number(counts()),
                desc=what,
                unit="",
                disable=None if wanted is None else False,
            )

    def _number(self, counts: Mapping[str, int]) -> int:
        return sum(counts.get(word, 0) for word in self._ended)

    def look(self, *, total: int | None = None) -> None:
        """Show what is new; cheap when it is called again at once."""
        now = time.monotonic()
        if self._bar is None or self._bar.disable or now < self._next:
            return
        self._next = now + _PAUSE
        counts = self._counts()
        if total is not None:
            self._bar.total = total
        others = {word: number for word, number in counts.items() if number and word != "done"}
        self._bar.set_postfix(others, refresh=False)
        self._bar.update(self._number(counts) - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """Show the last state, and end."""
        if self._bar is not None:
            self._next = 0.0
            self.look()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        self.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class TransferBar:
    """Shows how many bytes of one file have been sent, or fetched; to be called with those, and their number.

    Without tqdm a terminal has a plain line.

    Args:
        what: that it is; nothing that came from outside.
        wanted: None: where standard error is a terminal.
    """

    def __init__(self, what: str, wanted: bool | None = None) -> None:
        self._what = what
        self._shown = sys.stderr.isatty() if wanted is None else wanted
        self._make = _bar(None) if self._shown else None
        self._bar: Any = None
        self._next = 0.0
        self._line = ""

    def __call__(self, done: int, whole: int) -> None:
        """Show how far it has come; cheap when it is called again at once."""
        if not self._shown:
            return
        now = time.monotonic()
        if done < whole and now < self._next:
            return
        self._next = now + _PAUSE
        if self._make is None:
            self._line = f"\r{self._what}: {done / 1e6:.1f} of {whole / 1e6:.1f} MB"
            sys.stderr.write(self._line)
            sys.stderr.flush()
            return
        if self._bar is None:
            self._bar = self._make(total=whole, desc=self._what, unit="B", unit_scale=True)
        self._bar.total = whole
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> TransferBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._line:
            sys.stderr.write("\n")


def _bar(wanted: bool | None) -> Any:
    if wanted is False:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without ipywidgets has a bar of text
            from tqdm.auto import tqdm
    except ImportError:
        if wanted:
            raise ImportError("a progress bar needs tqdm: pip install 'prominence-executor[progress]'") from None
        return None
    return tqdm
