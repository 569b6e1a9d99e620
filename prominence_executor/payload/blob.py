"""Bytes in pieces, so that what is large is not copied to be joined, hashed or sent. It knows no pickles.

One thread writes them; then any may read.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterable, Iterator

from ..remote.wire import LARGE_BUFFER

Piece = bytes | memoryview

_FLUSHING = threading.Lock()  # the function of a loop is read by several threads at once, and by none before


class Blob:
    """Bytes in pieces: large ``bytes`` arguments and buffers stand in it as they are, not copied."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._small = bytearray()
        for piece in pieces:
            self.write(piece)

    def write(self, data: bytes | bytearray | memoryview | pickle.PickleBuffer) -> int:
        """Append a piece; the pickler's file interface."""
        size = len(data) if isinstance(data, (bytes, bytearray)) else memoryview(data).nbytes
        if size < LARGE_BUFFER:
            self._small += data
        else:
            self._flush()
            self.pieces.append(data if isinstance(data, bytes) else bytes(data))
        self.size += size
        return size

    def _flush(self) -> None:
        if self._small:
            with _FLUSHING:
                if self._small:
                    self.pieces.append(bytes(self._small))
                    self._small.clear()

    def __iter__(self) -> Iterator[bytes]:
        self._flush()
        return iter(self.pieces)

    def __len__(self) -> int:
        return self.size

    def sha256(self) -> str:
        """Return the digest of the content, in hexadecimal."""
        return sha256_of(self)

    def tobytes(self) -> bytes:
        """Return the content in one piece, a copy."""
        return b"".join(self)


def sha256_of(pieces: Iterable[Piece]) -> str:
    """Return the digest of all pieces together, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
