"""What do large arguments and results cost, beside moving and hashing the same bytes with nothing around it?

    python benchmarks/data.py [--calls 100] [--shared 200] [--result 500]
    python benchmarks/data.py --warm [--beside DIRECTORY]

MB of random floats. Shared: calls that are all given one array, by a map and by a loop of submit; the time from the
first submit until the array is at the service, against a bare PUT of its bytes; the client's peak memory beyond what
it had before the array, in arrays; bytes that were uploaded, counted where they pass, in a second run through a plain
proxy. Result: one large array, which stays at the service until asked for (lazy), so that the job's time is apart;
against a bare GET of the same bytes with their SHA-256. The service is a process of its own.

Warm: one call at a time on two warm workers, whose argument or result has so many random bytes, from submit to result;
medians, behind two calls of 2 MB (nan: not done in 20 s), and of the package in another directory the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

# Not this folder, where a file is named as a library.
sys.path[:1] = [str(Path(__file__).parents[1] / folder / "support") for folder in ("benchmarks", "tests")]

import numpy as np
import proxy  # the tests' own
import requests
from measuring import Table, argument_parser, check, machine, seconds

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.service.launch import launch

MB = 1_000_000
SMALL = Resources(walltime=10)
_PATIENCE = 20.0  # seconds for a call of warm workers
_SIZES = [1_000, 100_000, 300_000, MB, 10 * MB, 60 * MB]
Run = Callable[[ProminenceExecutor, Any, int], list[float]]


def at(values: Any, n: int) -> float:
    return float(values[n])


def made(megabytes: int) -> Any:
    return np.random.default_rng(megabytes).random(megabytes * MB // 8)


def mapped(executor: ProminenceExecutor, values: Any, calls: int) -> list[float]:
    return list(executor.map(at, repeat(values), range(calls), chunksize=10))


def submitted(executor: ProminenceExecutor, values: Any, calls: int) -> list[float]:
    futures = [executor.submit(at, values, n) for n in range(calls)]
    return [future.result() for future in futures]


def in_memory(kind: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(kind))) * 1024


def bare_upload(service: Any, values: Any) -> None:
    headers = {"Authorization": f"Bearer {service.token}"}
    answer = requests.post(f"{service.url}/data/upload", json={"filename": "bare"}, headers=headers, timeout=60)
    content: Any = memoryview(values).cast("B")
    requests.put(answer.json()["url"], data=content, timeout=600).raise_for_status()


def shared(service: Any, run: Run, megabytes: int, calls: int) -> tuple[float, float, float]:
    """Seconds until the array was there, seconds of all, and peak memory in arrays."""
    arrived: list[float] = []
    with ProminenceExecutor(service.url, service.token, resources=SMALL) as executor:
        client = executor.client

        def watch() -> None:
            while not any(item["name"].startswith("px-") for item in client.list_data()):
                time.sleep(0.02)
            arrived.append(time.perf_counter())

        before = in_memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        values = made(megabytes)
        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        check(run(executor, values, calls), values[:calls].tolist())
        took = time.perf_counter() - began
        peak = (in_memory("VmHWM") - before) / values.nbytes
        watcher.join()
        executor.purge(older_than=0)
    return arrived[0] - began, took, peak


def bytes_sent(service: Any, run: Run, megabytes: int, calls: int) -> float:
    values = made(megabytes)
    with (
        proxy.FaultProxy(service.url) as between,
        ProminenceExecutor(between.url, service.token, resources=SMALL) as executor,
    ):
        check(run(executor, values, calls), values[:calls].tolist())
        sent: int = between.bytes_sent
    with ProminenceExecutor(service.url, service.token) as executor:
        executor.purge(older_than=0)
    return sent / int(values.nbytes)


def result(service: Any, megabytes: int) -> tuple[float, float, float]:
    """Seconds of a bare download with its SHA-256, of `future.result()`, and of the job."""
    with ProminenceExecutor(service.url, service.token, resources=SMALL, lazy=True) as executor:
        began = time.perf_counter()
        future = executor.submit(made, megabytes)
        wait([future])
        job = time.perf_counter() - began
        url = executor.client.describe_job(future.job_id or 0)["outputFiles"][0]["url"]
        bare = [seconds(lambda: bare_download(url)) for _ in range(2)][-1]
        ours = seconds(future.result)
        check(future.result()[:1].tolist(), made(megabytes)[:1].tolist())
    return bare, ours, job


def bare_download(url: str) -> str:
    """Into memory, where the result is to be, too."""
    memory = io.BytesIO()
    with requests.get(url, stream=True, timeout=600) as answer:
        for block in answer.iter_content(1 << 18):
            memory.write(block)
    return hashlib.sha256(memory.getbuffer()).hexdigest()


def rounds_of(service: Any, run: Run, options: argparse.Namespace) -> tuple[float, ...]:
    """Medians: seconds of a bare upload, until the array was there, and of all, and the peak of memory in arrays."""
    figures = []
    for _ in range(options.rounds + 1):
        values = made(options.shared)
        bare = seconds(partial(bare_upload, service, values))
        del values
        figures.append((bare, *shared(service, run, options.shared, options.calls)))
    # The first one warms up: the machine has not touched that much memory before.
    return tuple(statistics.median(column) for column in zip(*figures[1:], strict=True))


def sized(size: int) -> bytes:
    return os.urandom(size)


def answered(executor: ProminenceExecutor, function: Callable[[Any], Any], argument: Any) -> float:
    """Seconds of one call; not a number when it is not done in time."""
    began = time.perf_counter()
    future = executor.submit(function, argument)
    try:
        future.result(_PATIENCE)
    except TimeoutError:
        future.cancel()
        return math.nan
    return time.perf_counter() - began


def warm(rounds: int, sizes: list[int]) -> dict[str, tuple[float, float]]:
    """Seconds of a call with an argument, and with a result, of each size."""
    figures = {}
    service = launch()
    try:
        with ProminenceExecutor(service.url, service.token, resources=SMALL, workers="warm", max_workers=2) as executor:
            answered(executor, len, sized(2 * MB))
            answered(executor, sized, 2 * MB)
            for size in sizes:
                there = [answered(executor, len, sized(size)) for _ in range(rounds)]
                back = [answered(executor, sized, size) for _ in range(rounds)]
                figures[str(size)] = statistics.median(there), statistics.median(back)
    finally:
        service.stop()
    return figures


def warm_table(options: argparse.Namespace) -> None:
    """Print what `warm` measures, of this version and of another one."""
    ours = warm(options.rounds, options.sizes)
    other = {}
    if options.beside:
        command = [sys.executable, __file__, "--warm", "--json", "--rounds", str(options.rounds)]
        environment = {**os.environ, "PYTHONPATH": options.beside}
        sizes = map(str, options.sizes)
        done = subprocess.run([*command, "--sizes", *sizes], env=environment, stdout=subprocess.PIPE, check=True)
        other = json.loads(done.stdout)
    if options.json:
        print(json.dumps(ours))
        return
    print(f"{machine()}; a call on a warm worker, medians of {options.rounds}")
    columns = [("kB", ">8"), ("argument s", ">12.3f"), ("result s", ">12.3f")]
    if other:
        columns += [("beside: argument", ">18.3f"), ("result", ">12.3f")]
    table = Table(*columns)
    for size, figures in ours.items():
        table.row(int(size) // 1000, *figures, *other.get(size, ()))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=100, help="calls that share an array (default: %(default)s)")
    parser.add_argument("--shared", type=int, default=200, help="MB of it (default: %(default)s)")
    parser.add_argument("--result", type=int, default=500, help="MB of a result (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians count (default: %(default)s)")
    parser.add_argument("--warm", action="store_true", help="calls of warm workers instead")
    parser.add_argument("--beside", help="a directory with another version of the package, for --warm")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", help="bytes, for --warm", default=_SIZES)
    options = parser.parse_args()
    if options.warm:
        warm_table(options)
        return
    print(f"{machine()}; medians of {options.rounds}")
    service = launch()
    try:
        table = Table(
            ("", "<26"), ("calls", ">6"), ("bytes", ">8"), ("ratio", ">7"), ("there s", ">9.2f"), ("bare s", ">8.2f"),
            ("peak", ">8"), ("all s", ">8.1f"),
        )  # fmt: skip
        runs: dict[str, Run] = {"map(chunksize=10)": mapped, "submit in a loop": submitted}
        for name, run in runs.items():
            bare, there, took, peak = rounds_of(service, run, options)
            sent = bytes_sent(service, run, options.shared, options.calls)
            table.row(name, options.calls, f"{sent:.2f}x", f"{there / bare:.2f}x", there, bare, f"{peak:.2f}x", took)
        table = Table(
            ("", "<26"),
            ("MB", ">6"),
            ("result() s", ">12.2f"),
            ("bare s", ">8.2f"),
            ("ratio", ">7"),
            ("job s", ">8.2f"),
        )
        rounds = [result(service, options.result) for _ in range(options.rounds)]
        bare, ours, job = (statistics.median(column) for column in zip(*rounds, strict=True))
        table.row("large result, lazy", options.result, ours, bare, f"{ours / bare:.2f}x", job)
    finally:
        service.stop()


if __name__ == "__main__":
    main()
