"""What a batch at a warm worker has come to."""

from __future__ import annotations

import time
from types import SimpleNamespace

from prominence_executor.remote.worker_outcomes import Outcomes


def test_a_chunk_of_many_calls_takes_no_more_time_for_each() -> None:
    worker = SimpleNamespace(key=b"k" * 32, words={}, depot=None, job={"room": 1 << 20})
    outcomes = Outcomes(worker, [{"job": 0, "attempt": 1, "calls": [None] * 12_000, "function": ""}])
    record = b"r" * 500
    began = time.process_time()
    outcomes.begin(0)
    for _ in range(12_000):
        outcomes.add(0, record)
    assert time.process_time() - began < 2
    outcomes.settle(0)
    assert outcomes.large == [0]
    assert bytes(outcomes.records[0]) == record * 12_000
