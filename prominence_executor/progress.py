"""A bar that shows how far a set of calls has come: the only place that knows tqdm.

Quiet when standard error is no terminal, and without tqdm (the extra ``progress``). It counts nothing itself.
"""

from __future__ import annotations

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

    def __enter__(self) -> ProgressBar:
        self.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._next = 0.0
            self.look()
            self._bar.close()


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
