"""Bars of calls and of files: what they show, and that they are quiet where nobody looks."""

from __future__ import annotations

import concurrent.futures
import io
import sys
import time
from typing import Any

import pytest

from prominence_executor import ProminenceClient, ProminenceExecutor
from prominence_executor.executor.watching import WatchedCalls
from prominence_executor.local import LocalService
from prominence_executor.progress import TransferBar
from prominence_executor.run.future import ProminenceFuture, settle


def odd_only(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(number)
    return number


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_shows_how_many_calls_have_ended(
    ordered: bool, executor: ProminenceExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Any = executor.map if ordered else executor.map_unordered
    results = run(odd_only, range(6), chunksize=2, progress=True, return_exceptions=True)
    assert sorted(result for result in results if isinstance(result, int)) == [1, 3, 5]
    shown = capsys.readouterr().err
    assert "calls: 100%" in shown
    assert "6/6" in shown
    assert "failed=3" in shown
    assert "starmap" not in shown


def test_a_map_with_a_bar_keeps_its_timeout(executor: ProminenceExecutor) -> None:
    results = executor.map(time.sleep, [60], timeout=0.5, progress=True)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    for future in executor.futures():  # none, where the call had not begun: that has been cancelled
        future.terminate()


def test_without_a_bar_nothing_is_shown(executor: ProminenceExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(executor.starmap(pow, [(2, 3)], progress=None)) == [8]  # standard error is no terminal
    assert list(executor.map(abs, [-1])) == [1]
    executor.show_progress(None)
    assert capsys.readouterr().err == ""


def test_the_calls_of_an_executor_have_a_bar(executor: ProminenceExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    futures = [executor.submit(odd_only, number) for number in (1, 2)]
    executor.show_progress()
    assert all(future.done() for future in futures)
    shown = capsys.readouterr().err
    assert f"{executor.run_id}: 100%" in shown
    assert "failed=1" in shown


def test_without_tqdm_a_bar_that_is_wanted_says_what_to_install(
    executor: ProminenceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"prominence-executor\[progress\]"):
        executor.map(abs, [1], progress=True)
    with pytest.raises(ImportError, match=r"prominence-executor\[progress\]"):
        executor.show_progress()
    executor.show_progress(None)


def test_calls_are_counted_by_how_they_end() -> None:
    calls, futures = WatchedCalls(), [ProminenceFuture[int](number) for number in range(4)]
    calls.add(futures)
    settle(futures[0], True, 1)
    settle(futures[1], False, ValueError())
    futures[2].cancel()
    assert calls.counts() == {"done": 1, "failed": 1, "cancelled": 1}
    assert calls.total() == 4


def test_uploads_and_downloads_tell_how_far_they_have_come(service: LocalService) -> None:
    content = b"x" * 700_000
    sent: list[tuple[int, int]] = []
    came: list[tuple[int, int]] = []
    with ProminenceClient(service.url, service.token) as client:
        client.upload("progress", io.BytesIO(content), progress=lambda *told: sent.append(told))
        client.delete_data("progress")
        assert sent[-1] == (700_000, 700_000)
        assert [one for one, _ in sent] == sorted({one for one, _ in sent})
    with ProminenceExecutor(service.url, service.token, outputs=["big"], poll_interval=(0.05, 0.5)) as executor:
        future = executor.submit(write, "big", len(content))
        future.result(60)
        client = executor.client
        job = client.describe_job(future.job_id or 0)
        url = next(item["url"] for item in job["outputFiles"] if item["name"] == "pxfiles")
        assert len(client.download(url, progress=lambda *told: came.append(told))) >= len(content)
    assert came[-1][0] == came[-1][1] >= len(content)
    assert [one for one, _ in came] == sorted({one for one, _ in came})


def write(name: str, size: int) -> None:
    with open(name, "wb") as file:
        file.write(b"y" * size)


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_file_on_its_way_has_a_bar_with_and_without_tqdm(
    tqdm: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with TransferBar("upload", True) as bar:
        for done in range(0, 3_000_001, 100_000):
            bar(done, 3_000_000)
    shown = capsys.readouterr().err
    assert ("upload: 100%" if tqdm else "upload: 3.0 of 3.0 MB\n") in shown


def test_a_file_on_its_way_is_quiet_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TransferBar("upload") as bar:
        bar(1, 1)
    assert capsys.readouterr().err == ""
