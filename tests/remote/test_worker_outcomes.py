"""What a warm worker keeps of its chunks until the client has it."""

from __future__ import annotations

import time
from types import SimpleNamespace

from prominence_executor.remote.worker_outcomes import Outcomes


def test_records_of_a_large_chunk_are_not_copied_for_each_other() -> None:
    outcomes = Outcomes(SimpleNamespace(key=b"", words={}, depot=None, job={"room": 1 << 30}), [{}])
    record = bytes(20_000)
    began = time.process_time()
    for _ in range(2_000):
        outcomes.add(record)
    outcomes.settle(0)
    ended, body = outcomes.for_report(None)
    assert time.process_time() - began < 1
    assert ended == [[0, 40_000_000, None]]
    assert len(body) == 40_000_000
