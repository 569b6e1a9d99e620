"""What does a sweep's store cost: a point, going on, and 100,000 points opened, resumed and tabulated?

    python benchmarks/sweep.py [--points 2000] [--many 100000]

A function that does nothing, on ProcessPoolExecutor in all cases, so that the store is what is compared: the pool
alone, a sweep in memory, a sweep with a store, joblib.Memory around the function, and xyzpy's Harvester where they are
installed. Then the same once more, when everything is done already. Each figure of the many points is taken in a
process of its own: seconds, and the most memory that it had.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import CORES, Table, argument_parser, machine, seconds

from prominence_executor import open_sweep, sweep


def nothing(x: float, y: int) -> dict[str, float]:
    return {"sum": x + y}


class Immediate(Executor):
    """Runs a call in `submit`: what is left is the sweep itself."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def axes(points: int) -> dict[str, Any]:
    return {"x": [n / 7 for n in range(points // 100)], "y": range(100)}


def compute(points: int, store: str) -> None:
    with sweep(nothing, axes(points), executor=Immediate(), store=store) as scan:
        scan.wait()


def resume(points: int, store: str) -> None:
    with sweep(nothing, axes(points), executor=Immediate(), store=store) as scan:
        scan.wait()
        assert scan.from_store == points


def tabulate(points: int, store: str) -> None:
    assert len(open_sweep(store).to_dataframe()) == points


def in_a_process(what: str, points: int, store: str) -> tuple[float, float]:
    """Return seconds and megabytes."""
    command = [sys.executable, __file__, "--one", what, "--many", str(points), "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, memory = json.loads(done.stdout)
    return took, memory


def one(what: str, points: int, store: str) -> None:
    """Print what one thing takes, in this process."""
    took = seconds(partial({"compute": compute, "resume": resume, "tabulate": tabulate}[what], points, store))
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def size_of(folder: Path) -> int:
    """Return how much is written below a folder, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bare(points: int, pool: Executor, folder: Path) -> None:
    pairs = [(x, y) for x in axes(points)["x"] for y in axes(points)["y"]]
    assert len(list(pool.map(nothing, *zip(*pairs, strict=True)))) == points


def in_memory(points: int, pool: Executor, folder: Path) -> None:
    sweep(nothing, axes(points), executor=pool).wait()


def stored(points: int, pool: Executor, folder: Path) -> None:
    with sweep(nothing, axes(points), executor=pool, store=folder / "scan.sweep") as scan:
        scan.wait()


def joblib_memory(points: int, pool: Executor, folder: Path) -> None:
    import joblib  # type: ignore[import-not-found,import-untyped,unused-ignore]

    cached = joblib.Memory(folder, verbose=0).cache(nothing)
    pairs = [(x, y) for x in axes(points)["x"] for y in axes(points)["y"]]
    assert len(list(pool.map(cached, *zip(*pairs, strict=True)))) == points


def xyzpy_harvester(points: int, pool: Executor, folder: Path) -> None:
    import xyzpy  # type: ignore[import-not-found,import-untyped,unused-ignore]

    runner = xyzpy.Runner(lambda x, y: nothing(x, y)["sum"], var_names="sum")
    harvester = xyzpy.Harvester(runner, data_name=str(folder / "data.h5"))
    harvester.harvest_combos({"x": axes(points)["x"], "y": list(axes(points)["y"])}, verbosity=0)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.many, options.store)
        return
    print(machine())
    table = Table(
        (f"{options.points:,} points", "<32"),
        ("first, s", ">9.2f"),
        ("us a point", ">12.0f"),
        ("again, s", ">9.2f"),
        ("kB", ">9.0f"),
    )
    kinds: dict[str, Callable[[int, Executor, Path], None]] = {
        "ProcessPoolExecutor.map": bare,
        "sweep, in memory": in_memory,
        "sweep, with a store": stored,
    }
    if importlib.util.find_spec("joblib"):
        kinds["joblib.Memory in the pool"] = joblib_memory
    if importlib.util.find_spec("xyzpy"):
        kinds["xyzpy.Harvester, one process"] = xyzpy_harvester
    for name, run in kinds.items():
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(CORES) as pool:
            pool.submit(nothing, 0, 0).result()
            work = partial(run, options.points, pool, Path(folder))
            first = seconds(work)
            again = seconds(work)
            table.row(name, first, first / options.points * 1e6, again, size_of(Path(folder)) / 1000)
    print()
    many = Table((f"{options.many:,} points", "<32"), ("seconds", ">9.2f"), ("MB", ">9.0f"))
    with tempfile.TemporaryDirectory() as folder:
        for what in ("compute", "resume", "tabulate"):
            many.row(what, *in_a_process(what, options.many, str(Path(folder, "scan.sweep"))))
        print(f"on disk: {size_of(Path(folder)) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
