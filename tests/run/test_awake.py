"""How long a run is patient: for as long as the machine was awake, and somebody has asked in vain."""

from __future__ import annotations

import time

import pytest

from prominence_executor.errors import ServiceUnavailableError
from prominence_executor.run.awake import AwakeClock
from prominence_executor.run.connection import ServiceHealth
from prominence_executor.run.context import LOG

NIGHT = 8 * 3600.0
SILENT = ServiceUnavailableError("no answer", request_sent=False)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("timeout", [10.0, 900.0])
def test_a_night_is_no_time_to_give_up_after(timeout: float) -> None:
    clock = Clock()
    awake = AwakeClock("run", timeout, clock)
    health = ServiceHealth("run", timeout, LOG, awake.now)
    assert health.give_up_after(SILENT) is None
    for _ in range(2):
        clock.now += NIGHT
        assert health.give_up_after(SILENT) is None
    seconds = 0
    while health.give_up_after(SILENT) is None:
        clock.now += 1.0
        seconds += 1
    assert 0.3 * timeout <= seconds <= timeout
    health.answered()
    clock.now += NIGHT
    assert health.unanswered() == 0


def test_awake_time_is_time() -> None:
    clock = Clock()
    awake = AwakeClock("run", 900.0, clock)
    before = awake.now()
    for _ in range(100):
        clock.now += 1.1
        awake.now()
    assert awake.now() - before == pytest.approx(110.0)
    clock.now -= 50.0  # which no monotonic clock does
    assert awake.now() - before == pytest.approx(110.0)


def test_its_thread_counts_while_nobody_asks() -> None:

    awake = AwakeClock("run", 1.0)
    awake.start()
    before = awake.now()
    time.sleep(1.0)  # many times what counts of a time in which nobody has looked
    assert awake.now() - before > 0.7
    awake.stop()
