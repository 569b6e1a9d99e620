"""What nobody foresaw in a run's own threads breaks the run; what the user's callbacks raise there does not."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.errors import BrokenRunError
from prominence_executor.run.breaking import breaking
from prominence_executor.run.future import ProminenceFuture, settle
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.threads import start_thread_pool


def test_whatever_a_task_of_a_run_raises_breaks_the_run_by_a_sentence() -> None:
    registry = ChunkRegistry("run")
    pool = start_thread_pool(1, "prominence-test", lambda: breaking(registry, "part"))
    pool.submit(int, "x").exception(10)
    pool.shutdown()
    with pytest.raises(BrokenRunError, match=r"run run is broken: its part failed unexpectedly \(ValueError: .*attach"):
        registry.check_open()


@pytest.mark.parametrize(("succeeded", "value"), [(True, 4), (False, LookupError("none"))])
def test_a_callback_that_ends_its_program_ends_no_thread_of_a_run(
    succeeded: bool, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(future: Future[Any]) -> None:
        sys.exit("enough")

    future: ProminenceFuture[Any] = ProminenceFuture(7)
    future.add_done_callback(leave)
    settle(future, succeeded, value)
    assert (future.result() if succeeded else future.exception()) == value
    assert "a callback of call 7 raised" in caplog.text


@pytest.mark.parametrize("options", [{}, {"workers": "warm"}], ids=["jobs", "warm"])
@pytest.mark.parametrize("most", range(16))  # as jobs have, with the one that starts them
def test_where_the_system_has_no_more_threads_the_run_breaks_and_ends(
    most: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own, with that which starts the others; those that were started end."""
    executor = ProminenceExecutor("http://127.0.0.1:9/prominence/v1", "token", **options)
    start, left, started = threading.Thread.start, iter(range(most)), list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if executor.run_id in thread.name:
            if next(left, None) is None:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(pow, 2, 3)
    ending = threading.Thread(target=executor.shutdown, daemon=True)
    ending.start()
    ending.join(10)
    assert not ending.is_alive()
    for thread in started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in started)
