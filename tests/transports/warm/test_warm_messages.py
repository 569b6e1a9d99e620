"""The messages between a run and its warm workers, and where they stand."""

from __future__ import annotations

from typing import Any

import pytest
from warm_world import MemoryClient, MemoryService

from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.payload.modules import ModuleZip
from prominence_executor.remote.wire import sign
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.options import Options
from prominence_executor.transports.warm.messages import Ended, Parts, batch_message, read_report
from prominence_executor.transports.warm.purge import remove_workers

KEY = b"key of the run"
FUNCTION = Blob([b"function"])
MODULES = ModuleZip(b"modules", "digest of modules", frozenset())


def parts_of(*arguments: list[bytes]) -> Parts:
    parts = []
    for number, contents in enumerate(arguments):
        calls: list[ProminenceFuture[Any]] = [ProminenceFuture(n) for n in range(len(contents))]
        payload = Payload(FUNCTION, [Blob([content]) for content in contents], MODULES)
        parts.append((Chunk("run", 10 * number, calls, Options(), payload, None), payload))  # type: ignore[arg-type]
    return parts


def test_a_function_goes_once_with_a_batch_and_not_to_a_worker_that_has_it() -> None:
    parts = parts_of([b"aa", b"b"], [b"ccc"])
    header, body, names = batch_message(parts, set(), 7.5)
    assert header["rate"] == 7.5
    assert [(chunk["job"], chunk["size"], chunk["calls"]) for chunk in header["chunks"]] == [
        (0, 3, [2, 1]),
        (10, 3, [3]),
    ]
    assert [extra["size"] for extra in header["extras"]] == [8, 7]
    assert body == b"aab" + b"ccc" + b"function" + b"modules"
    assert names == {FUNCTION.sha256(), MODULES.sha256}
    header, body, names = batch_message(parts, names, 7.5)
    assert (header["extras"], body, names) == ([], b"aabccc", frozenset())


def test_what_a_function_is_called_goes_with_it_once() -> None:
    (chunk, payload), *_ = parts_of([b"a"])
    chunk.function = "__main__.fit.<locals>.<lambda>"
    header, _, names = batch_message([(chunk, payload)], set(), 7.5)
    assert [extra.get("word") for extra in header["extras"]] == ["fit.lambda", None]
    assert "fit" not in str(batch_message([(chunk, payload)], names, 7.5).header)


def test_calls_that_are_done_do_not_go() -> None:
    parts = parts_of([b"aa", b"b", b"c"])
    parts[0][0].calls[1].cancel()
    header, body, _ = batch_message(parts, {FUNCTION.sha256(), MODULES.sha256}, 1.0)
    assert header["chunks"][0]["calls"] == [2, None, 1]
    assert body == b"aac"


def test_a_report_says_what_has_ended_runs_and_comes_back() -> None:
    common = {"nonce": "n", "batch": 3, "left": None, "requests": 9}
    header = {**common, "final": False, "ended": [[0, 2, None], [1, 0, [5, 7]]], "running": 2, "returned": [3]}
    report = read_report(sign(header, b"ab", KEY, "o4"), KEY, 4)
    assert report.ended == (Ended(0, b"ab", None), Ended(1, b"", [5, 7]))
    assert (report.on_batch, report.final, report.running, report.returned) == (True, False, 2, (3,))
    assert report.left == float("inf")
    ending = read_report(sign({**common, "left": 2.5, "final": True, "ending": True}, b"", KEY, "o4"), KEY, 4)
    assert (ending.on_batch, ending.ending, ending.left, ending.ended) == (False, True, 2.5, ())


def test_a_report_that_is_not_signed_for_this_worker_is_refused() -> None:
    text = sign({"nonce": "n"}, b"", KEY, "o4")
    for key, number in ((KEY, 5), (b"another", 4)):
        with pytest.raises(ValueError, match="sign"):
            read_report(text, key, number)


def test_removing_workers_whose_jobs_have_ended_removes_their_mailboxes() -> None:
    service = MemoryService()
    service.set("pxwarm/run/box/o/00001/0", "said")
    service.set("pxwarm/other/box/o/00001/0", "said")
    remove_workers(MemoryClient(service), "run", [17])  # type: ignore[arg-type]
    assert list(service.under("pxwarm")) == ["pxwarm/other/box/o/00001/0"]
