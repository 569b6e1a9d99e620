"""What one call does to its surroundings does not reach the next one, in jobs and in warm workers alike."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService


@pytest.fixture(scope="module", params=["jobs", "warm"])
def executor(request: pytest.FixtureRequest, service: LocalService) -> Iterator[ProminenceExecutor]:
    options: dict[str, Any] = {"workers": "warm", "max_workers": 1} if request.param == "warm" else {}
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options) as executor:
        yield executor


def spoil(number: int) -> tuple[str, str | None, Any, bool]:
    found = os.getcwd(), os.environ.get("SPOILT"), signal.getsignal(signal.SIGTERM), sys.stdout.closed
    print("call", number)
    os.chdir("/")
    os.environ["SPOILT"] = "yes"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.close()
    return found


def test_a_call_finds_what_the_first_one_found(executor: ProminenceExecutor) -> None:
    first, *others = executor.map(spoil, range(3), chunksize=3)
    assert first[1:] == (None, signal.SIG_DFL, False)
    assert others == [first, first]
    again = executor.submit(spoil, 3)
    assert again.result(60)[1:] == first[1:]
    assert again.stdout() == "call 3\n"


def leaves_a_thread(path: str, seconds: float) -> None:
    def late() -> None:
        time.sleep(seconds)
        Path(path).touch()

    threading.Thread(target=late).start()


def test_a_thread_ends_before_the_next_call(executor: ProminenceExecutor, tmp_path: Path) -> None:
    path = str(tmp_path / "late")
    results = executor.map(apply, [leaves_a_thread, os.path.exists], [(path, 0.5), (path,)], chunksize=2)
    assert list(results) == [None, True]


def apply(function: Any, arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)
