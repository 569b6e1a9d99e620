"""The folder of this user's machine that keeps what takes long to make: images, locks and archives of packages.

Files appear in it whole, so several programs may use it. It knows nothing of what it keeps, and trusts nobody with it:
who uses a file verifies what can be verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_BUILDING = "building-"
_LEFT = 86400.0  # seconds after which what a killed program has left is removed
_WORTH = 200_000  # bytes that were read anew, from which on it is kept what they have: a tenth of a second
_MOST = 20_000  # contents of which something is kept


def cache_folder(*parts: str) -> Path:
    """Return the path of a folder below the user's caches; it need not be there."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(caches, "prominence-executor", *parts)


@contextmanager
def appearing_in(path: Path) -> Iterator[Path]:
    """Give a scratch folder beside a path, in which ``new`` is to be made: it appears at the path if nothing fails.

    Folders are made for this user alone. What killed programs have left beside the path is removed.

    Raises:
        OSError: there can be no folder; the sentence says how to name another place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=path.parent))
    except OSError as error:
        why = f"{error.strerror} (the variable XDG_CACHE_HOME names another folder for caches)"
        raise OSError(error.errno, why, error.filename) from None
    for left in path.parent.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # another program removes it as well
            if time.time() - left.stat().st_mtime > _LEFT:
                shutil.rmtree(left, ignore_errors=True)
    try:
        yield scratch
        os.replace(scratch / "new", path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Findings:
    """What was found in sources, by their content: a later program with the same ones need not parse them again.

    Safe to use from threads. Sources are parsed differently by each Python, which therefore has a file of its own.

    Args:
        name: of what is found, with a number for how.
        find: returns it, something that JSON can hold.
    """

    def __init__(self, name: str, find: Callable[[bytes], Any]) -> None:
        self._name = f"{name}-{sys.version_info[0]}.{sys.version_info[1]}.json"
        self._find = find
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._is_read = False
        self._new = 0  # bytes that were read since the file was written

    def of(self, content: bytes) -> Any:
        """Return what is found in a source."""
        key = hashlib.sha256(content).hexdigest()
        with self._lock:
            if key not in self._known and not self._is_read:
                self._known = {**self._stored(), **self._known}
                self._is_read = True
            if key in self._known:
                return self._known[key]
        found = self._find(content)
        with self._lock:
            self._known[key] = found
            self._new += len(content)
        return found

    def keep(self) -> None:
        """Write what is new for later programs, if it was much; one that cannot be written is none."""
        with self._lock:
            if self._new < _WORTH:
                return
            kept = list({**self._stored(), **self._known}.items())[-_MOST:]
            self._new = 0
        with suppress(OSError), appearing_in(cache_folder("sources", self._name)) as scratch:
            (scratch / "new").write_text(json.dumps(dict(kept), separators=(",", ":")))

    def _stored(self) -> dict[str, Any]:
        try:
            stored = json.loads(cache_folder("sources", self._name).read_bytes())
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}
