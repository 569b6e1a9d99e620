"""Where things lie that tests refer to: this repository, its recordings, and those of the real service beside it."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
DATA = SUPPORT.parent / "data"
# The recordings of the real service lie beside the repository where the project is developed, and nowhere else.
WIRE = ROOT.parent / "shared" / "wire"
