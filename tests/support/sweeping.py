"""The function that tests of sweeps run, and how often it has run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each job of a sweep imports this module
    from prominence_executor import Sweep

Start = Callable[..., "Sweep"]


def compute(x: Any, y: Any = 1, *, marks: str, fails: str = "", seconds: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """Leaves a mark when it has run to its end; fails where a file says so."""
    time.sleep(seconds)
    if fails and Path(fails).exists() and f"{x}" in Path(fails).read_text().split():
        print("computing", x)
        raise ValueError(f"no such x: {x}")
    with open(marks, "a") as file:
        file.write(f"{x} {y}\n")
    return {"product": x * y, "square": x * x}


class Marks:
    """How often the function has run to its end for which parameters."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def count(self) -> Counter[str]:
        return Counter(self.path.read_text().splitlines())
