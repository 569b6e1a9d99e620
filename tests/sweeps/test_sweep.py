"""`sweep` on every kind of executor: points as they come, failures, and what a store keeps for the next time."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_disk import in_a_namespace, unavailable
from sweeping import Marks, Start

import prominence_executor
from prominence_executor import (
    CodeChangedError,
    PointFailedError,
    ProminenceExecutor,
    RemoteTraceback,
    StoreError,
    StoreInUseError,
    Sweep,
    open_sweep,
    sweep,
)

Until = Callable[..., None]


def test_points_come_as_they_are_done_and_a_failure_stops_no_other(
    any_executor: Executor, start: Start, failing: Path, marks: Marks
) -> None:
    failing.write_text("3")
    scan = start({"x": range(5), "y": [10, 20]}, any_executor)
    came = {(point.params["x"], point.params["y"]): point for point in scan}
    assert sorted(came) == [(x, y) for x in range(5) for y in (10, 20)]
    for (x, y), point in came.items():
        if x == 3:
            error = point.exception()
            assert isinstance(error, ValueError)
            assert str(error) == "no such x: 3"
            with pytest.raises(ValueError, match="no such x"):
                point.result()
            if isinstance(any_executor, ProminenceExecutor):
                assert isinstance(error.__cause__, RemoteTraceback)
                assert "in compute" in str(error.__cause__)
                assert point.outcome.job_id is not None
                assert "computing 3" in point.outcome.tail
        else:
            assert point.result() == {"product": x * y, "square": x * x}
            assert point.exception() is None
            assert point.outcome.seconds is not None
    assert [point.params["y"] for point in scan.failed] == [10, 20]
    assert scan.counts() == {"pending": 0, "sent": 0, "running": 0, "done": 8, "failed": 2, "lost": 0}
    failing.unlink()
    assert scan.retry() == 2
    scan.wait()
    assert scan.failed == []
    assert set(marks.count().values()) == {1}


@pytest.mark.parametrize("is_in_loop", [False, True])
def test_a_point_that_is_sent_again_comes_once_and_when_it_has_ended(threads: Executor, is_in_loop: bool) -> None:
    seen: list[int] = []

    def compute(x: int) -> int:
        seen.append(x)
        if x and seen.count(x) == 1:
            raise ValueError(x)
        return x

    scan = sweep(compute, {"x": range(4)}, executor=threads)
    scan.wait()
    came = []
    if not is_in_loop:
        scan.retry()
    for point in scan:
        came.append((point.params["x"], point.status))
        if is_in_loop and point.status == "failed":
            scan.retry()
    first = [came.pop(next(n for n, (_, status) in enumerate(came) if status == "failed"))] if is_in_loop else []
    assert sorted(came) == [(x, "done") for x in range(4)]
    assert len(first) == is_in_loop


@pytest.mark.parametrize("send", [Sweep.retry, lambda scan: scan.add({"x": range(3)})], ids=["retry", "add"])
def test_nobody_waits_for_points_that_the_executor_takes_no_more(send: Callable[[Sweep], Any]) -> None:
    with ThreadPoolExecutor(1) as executor:
        scan = sweep(lambda x: 1 // x, {"x": [0, 1]}, executor=executor)
        scan.wait()
    with pytest.raises(RuntimeError, match="shutdown"):
        send(scan)
    before = scan.counts()
    assert before["lost"] == 1
    assert len(list(scan)) == len(scan)
    with pytest.raises(RuntimeError, match="shutdown"):
        scan.retry()  # it sends them again
    assert scan.counts()["lost"] == before["lost"] + before["failed"]


def test_a_store_gives_what_is_done_and_only_the_rest_is_computed(
    any_executor: Executor, start: Start, failing: Path, marks: Marks, tmp_path: Path
) -> None:
    failing.write_text("2")
    store = tmp_path / "scan.sweep"
    with start({"x": range(4)}, any_executor, store=store) as scan:
        scan.wait()
        table = scan.to_csv()
    assert len(marks.count()) == 3
    failing.unlink()
    with start({"x": range(4)}, any_executor, store=store) as again:
        assert again.counts()["failed"] == 1  # it raised, and would again, as far as anybody knows
        again.wait()
        assert again.to_csv() == table
        assert [str(point.exception()) for point in again.failed] == ["no such x: 2"]
        assert again.retry() == 1
        again.wait()
    with start({"x": range(6), "y": [1, 5]}, any_executor, store=store, chunksize=2) as more:
        more.wait()
        assert [point.result()["product"] for point in more.points] == [x * y for x in range(6) for y in (1, 5)]
    with start({"x": [5, 0], "y": [5]}, any_executor, store=store) as fewer:
        assert [point.result()["product"] for point in fewer] == [25, 0]
        assert len(open_sweep(store)) == 2
    # x alone and x with y=1 are other points: what a default is worth is the function's own business.
    assert marks.count() == {**{f"{x} 5": 1 for x in range(6)}, **{f"{x} 1": 2 if x < 4 else 1 for x in range(6)}}
    with start({"x": [5.0, 0.0], "y": [5]}, any_executor, {"seconds": 0.001}, store=store) as changed:
        changed.wait()
    assert sum(marks.count().values()) == 16 + 2


def test_repeats_have_seeds_of_their_own_and_an_axis_that_grows_changes_none(
    threads: Executor, start: Start, tmp_path: Path
) -> None:
    def draw(x: int, *, seed: int) -> int:
        return seed

    few = sweep(draw, {"x": [1, 2]}, executor=threads, repeat=3, seed=42)
    many = sweep(draw, {"x": [0, 1, 2, 3]}, executor=threads, repeat=3, seed=42, order="spread")
    seeds = {(point.params["x"], point.repeat): point.result() for point in many}
    assert len(set(seeds.values())) == 12
    for point in few:
        assert point.result() == point.seed == seeds[point.params["x"], point.repeat]


def test_points_can_be_added_while_it_runs(threads: Executor) -> None:
    scan = sweep(lambda x: x * x, {"x": [0.0, 1.0]}, executor=threads)
    seen = []
    for point in scan:
        seen.append(point.params["x"])
        if len(seen) < 8:
            scan.add({"x": [point.params["x"] + 0.125, 0.0]})  # one new, one known
    assert len(seen) == len(set(seen)) == len(scan) == 9
    assert [point.params["x"] for point in scan.points][:2] == [0.0, 1.0]


def test_a_point_is_waited_for_and_knows_where_it_stands(threads: Executor, until: Until) -> None:
    gate = threading.Event()
    scan = sweep(lambda x: gate.wait(30), {"x": [1]}, executor=threads)
    [point] = scan.points
    until(lambda: point.status == "running")
    assert repr(point) == "<Point x=1: running>"
    with pytest.raises(concurrent.futures.TimeoutError):
        point.result(0.05)
    gate.set()
    assert point.result() is True
    assert point.status == "done"


def edited(source: str, tmp_path: Path) -> Callable[..., Any]:
    """A function of this source."""
    path = tmp_path / "edited.py"
    path.write_text(source)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, str(path), "exec"), names)
    found: Callable[..., Any] = names["f"]
    return found


def test_other_code_is_refused_kept_or_computed_again(threads: Executor, tmp_path: Path) -> None:
    store = tmp_path / "scan.sweep"
    before = edited("def f(x): return x", tmp_path)
    with sweep(before, {"x": [1, 2]}, executor=threads, store=store) as scan:
        scan.wait()
    after = edited("def f(x): return -x", tmp_path)
    with pytest.raises(CodeChangedError, match=r"2 points.*code of f \(changed: f\).*on_change='keep'"):
        sweep(after, {"x": [1, 2, 3]}, executor=threads, store=store)
    assert len(open_sweep(store)) == 2  # nothing has changed
    with sweep(after, {"x": [1, 2, 3]}, executor=threads, store=store, on_change="keep") as scan:
        assert sorted(point.result() for point in scan) == [-3, 1, 2]
        assert len(set(scan.to_dataframe(meta=True)["code"])) == 2
    with sweep(after, {"x": [1, 2, 3]}, executor=threads, store=store, on_change="recompute") as scan:
        assert sorted(point.result() for point in scan) == [-3, -2, -1]
    with sweep(after, {"x": [1, 2, 3]}, executor=threads, store=store) as scan:
        assert scan.counts()["done"] == 3


def test_points_that_are_added_were_not_computed_with_other_code_either(threads: Executor, tmp_path: Path) -> None:
    store = tmp_path / "scan.sweep"
    with sweep(edited("def f(x): return x", tmp_path), {"x": [1, 2]}, executor=threads, store=store) as scan:
        scan.wait()
    after = edited("def f(x): return -x", tmp_path)
    with sweep(after, {"x": [3]}, executor=threads, store=store) as scan:
        with pytest.raises(CodeChangedError, match="1 points"):
            scan.add({"x": [1]})
        scan.wait()
        assert len(scan) == 1
    with sweep(after, {"x": [3]}, executor=threads, store=store, on_change="keep") as scan:
        assert [point.result() for point in scan.add({"x": [1]})] == [1]
    with sweep(after, {"x": [3]}, executor=threads, store=store, on_change="recompute") as scan:
        assert [point.result() for point in scan.add({"x": [1, 2]})] == [-1, -2]


HOLDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from prominence_executor import sweep
with ThreadPoolExecutor() as executor:
    scan = sweep(abs if False else (lambda x: x), {"x": [1]}, executor=executor, store=sys.argv[1])
    scan.wait()
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_one_program_writes_and_the_lock_dies_with_it(threads: Executor, tmp_path: Path) -> None:
    store = tmp_path / "scan.sweep"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(StoreInUseError, match=f"process {holder.pid} on") as caught:
            sweep(lambda x: x, {"x": [1]}, executor=threads, store=store)
        assert caught.value.process == holder.pid
        assert len(open_sweep(store)) == 1  # readers are welcome
        holder.kill()
    with sweep(lambda x: x, {"x": [2]}, executor=threads, store=store) as scan:
        scan.wait()


def test_a_cell_that_is_run_again_takes_the_store_over(threads: Executor, tmp_path: Path, until: Until) -> None:
    store, gate = tmp_path / "scan.sweep", threading.Event()

    def slow(x: int) -> bool:
        return gate.wait(30)

    first = sweep(slow, {"x": [1]}, executor=threads, store=store)
    with pytest.raises(StoreInUseError, match="this program"):
        sweep(slow, {"x": [1]}, executor=threads, store=store)
    gate.set()
    first.wait()
    until(lambda: first.is_idle)
    with sweep(slow, {"x": [1]}, executor=threads, store=store) as second:
        assert second.counts()["done"] == 1
    assert first.points[0].result() is True


def test_a_sweep_that_nobody_has_any_more_holds_no_store(threads: Executor, tmp_path: Path) -> None:
    for axis in ([1], [1, 2]):  # which are no part of the lambda's code
        sweep(lambda x: x, {"x": axis}, executor=threads, store=tmp_path / "s").wait()
        gc.collect()


def newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: (path / "sweep.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000), "cannot be read"),
        (lambda path: (path / "sweep.db").write_bytes(b"something else" * 500), "cannot be read"),
        (lambda path: newer_version(path / "sweep.db"), "format 99.*update"),
    ],
)
def test_a_store_that_cannot_be_read_is_one_sentence(
    spoil: Callable[[Path], Any], problem: str, threads: Executor, tmp_path: Path
) -> None:
    store = tmp_path / "scan.sweep"
    with sweep(lambda x: x, {"x": [1]}, executor=threads, store=store) as scan:
        scan.wait()
    spoil(store)
    for use in (lambda: sweep(lambda x: x, {"x": [1]}, executor=threads, store=store), lambda: open_sweep(store)):
        with pytest.raises(StoreError, match=problem):
            use()


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=1500k none "$2"
"$1" -c "$3" "$2/s"
mount -o remount,size=16m none "$2"
"$1" -c "$3" "$2/s"
mount -o remount,ro none "$2"
"$1" -c "$3" "$2/s"
"""
WITH_ARRAYS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from prominence_executor import StoreError, open_sweep, sweep
with ThreadPoolExecutor(2) as executor:
    try:
        with sweep(lambda x: np.zeros(20_000) + x, {"x": range(20)}, executor=executor, store=sys.argv[1]) as scan:
            scan.wait()
    except StoreError as error:
        print(error)
scan = open_sweep(sys.argv[1])
print(scan.counts()["done"] in range(1, 20), scan.counts()["done"], sum(point.result()[0] for point in scan))
"""


def test_a_disk_that_is_full_or_cannot_be_written_costs_nothing_that_is_stored(tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    done = subprocess.run(
        [*in_a_namespace(), "sh", "-c", ON_A_SMALL_DISK, "sh", sys.executable, str(tmp_path), WITH_ARRAYS],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    full, some, whole, read_only, still = done.stdout.splitlines()
    assert full == f"the store {tmp_path}/s cannot be written: No space left on device; what it had, it has"
    assert some.startswith("True")
    assert whole == still == "False 20 190.0"
    assert read_only == f"the store {tmp_path}/s cannot be written: Read-only file system; what it had, it has"
    assert done.stderr == ""


def test_what_is_no_store_is_left_alone(threads: Executor, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(StoreError, match=r"no store of a sweep.*data\.csv"):
        sweep(lambda x: x, {"x": [1]}, executor=threads, store=tmp_path)
    with pytest.raises(StoreError, match="there is no store"):
        open_sweep(tmp_path / "nothing")
    with pytest.raises(StoreError, match="it is a file"):
        sweep(lambda x: x, {"x": [1]}, executor=threads, store=tmp_path / "data.csv")
    assert os.listdir(tmp_path) == ["data.csv"]
    assert (tmp_path / "data.csv").read_text() == "1,2"


def test_a_damaged_result_is_an_error_of_its_point_alone(threads: Executor, tmp_path: Path) -> None:
    store = tmp_path / "scan.sweep"
    with sweep(lambda x: np.arange(x), {"x": [3, 4]}, executor=threads, store=store) as scan:
        scan.wait()
    for path in store.rglob("*.npy"):
        if path.stat().st_size == len(np.arange(3).tobytes()) + 128:
            path.write_bytes(b"")
    [three, four] = open_sweep(store).points
    with pytest.raises(StoreError, match="damaged"):
        three.result()
    assert four.result().tolist() == [0, 1, 2, 3]
    assert ["damaged" in error for error in open_sweep(store).to_dataframe(meta=True)["error"]] == [True, False]


def test_a_result_that_cannot_be_kept_fails_its_point(threads: Executor, tmp_path: Path) -> None:
    with sweep(lambda x: threading.Lock() if x else 0, {"x": [0, 1]}, executor=threads, store=tmp_path / "s") as scan:
        scan.wait()
        [failed] = scan.failed
        assert failed.params == {"x": 1}
        assert "cannot be kept" in str(failed.exception())


class Unloadable(Exception):
    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> None:
    raise RuntimeError("not here")


def test_an_exception_that_cannot_be_loaded_has_its_text(threads: Executor, tmp_path: Path) -> None:
    def fail(x: int) -> None:
        raise Unloadable("hot")

    with sweep(fail, {"x": [1]}, executor=threads, store=tmp_path / "s") as scan:
        scan.wait()
    error = open_sweep(tmp_path / "s").points[0].exception()
    assert isinstance(error, PointFailedError)
    assert "Unloadable: hot" in str(error)
    assert "in fail" in error.traceback


def test_pickles_of_others_are_loaded_when_they_are_trusted(
    threads: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sweep(lambda x: {x}, {"x": [1]}, executor=threads, store=tmp_path / "s") as scan:
        scan.wait()
    assert open_sweep(tmp_path / "s").points[0].result() == {1}
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    with pytest.raises(StoreError, match="trust=True"):
        open_sweep(tmp_path / "s").points[0].result()
    assert open_sweep(tmp_path / "s", trust=True).points[0].result() == {1}


def test_an_executor_that_breaks_ends_the_loop_and_loses_nothing(start: Start, tmp_path: Path, marks: Marks) -> None:
    with ThreadPoolExecutor(1, initializer=_refuse) as executor:
        with (  # the second point may be refused already
            pytest.raises(BrokenExecutor, match="not usable|initializ|abruptly"),
            start({"x": range(3)}, executor, store=tmp_path / "s") as scan,
        ):
            scan.wait()
    with ThreadPoolExecutor(1) as executor, start({"x": range(3)}, executor, store=tmp_path / "s") as scan:
        scan.wait()
    assert set(marks.count().values()) == {1}


def test_a_sweep_of_nothing_and_senseless_options_are_refused(threads: Executor) -> None:
    for options in ({"where": lambda x: False}, {"order": "random"}, {"on_change": "ask"}):
        with pytest.raises(ValueError, match="no points|order|on_change"):
            sweep(lambda x: x, {"x": [1]}, executor=threads, **options)


def test_the_room_uses_public_names_of_the_executor_only() -> None:
    folder = Path(prominence_executor.__file__).parent / "sweeps"
    for path in folder.glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith("from ..") and not line.startswith("from .. import"):
                assert line.split()[1] in ("..public", "..caches", "..errors", "..formats", "..progress", "..shown"), (
                    path.name,
                    line,
                )
