"""Bytes in pieces."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from prominence_executor.payload.blob import Blob


@pytest.fixture
def hasty() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_what_several_threads_read_at_once_is_not_there_twice() -> None:
    content, threads = bytes(60_000), 8
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(500):
            blob, together = Blob([content]), threading.Barrier(threads)

            def read(blob: Blob = blob, together: threading.Barrier = together) -> int:
                together.wait(20)
                return len(blob.tobytes())

            assert {future.result(20) for future in [pool.submit(read) for _ in range(threads)]} == {len(content)}
            assert len(blob.tobytes()) == blob.size
