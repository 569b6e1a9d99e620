"""The folder of this user's machine that keeps what takes long to make: images, locks and archives of packages.

Files appear in it whole, so several programs may use it. It knows nothing of what it keeps, and trusts nobody with it:
who uses a file verifies what can be verified.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BUILDING = "building-"
_LEFT = 86400.0  # seconds after which what a killed program has left is removed


def cache_folder(*parts: str) -> Path:
    """Return the path of a folder below the user's caches; it need not be there."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(caches, "prominence-executor", *parts)


@contextmanager
def appearing_in(path: Path) -> Iterator[Path]:
    """Give a scratch folder beside a path, in which ``new`` is to be made: it appears at the path if nothing fails.

    Folders are made for this user alone. What killed programs have left beside the path is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in path.parent.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # another program removes it as well
            if time.time() - left.stat().st_mtime > _LEFT:
                shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=path.parent))
    try:
        yield scratch
        os.replace(scratch / "new", path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
