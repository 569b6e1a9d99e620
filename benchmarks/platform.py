"""Are calls on the real platform ever behind the loop over the upstream client that they replace?

    python benchmarks/platform.py [--calls 50 200] [--slots 8] [--like-real NAME=VALUE,...]

The embedded service stands in for it, as slow and quirky as it was measured to be (service/execution/platform.py), in a
process of its own. Calls that do nothing, by each way in which they can be submitted, and the loop that a user of the
upstream client would write: the seconds until the last result is there, the client's requests, and for each call the
CPU milliseconds of the tasks that have run for it, and of the client.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where files are named as libraries

from measuring import Table, argument_parser, check, counted_requests, machine, upstream_loop

from prominence_executor import ProminenceExecutor, Resources

Run = Callable[[int], None]


def nothing(x: int) -> int:
    return x


@contextmanager
def platform(slots: int, changes: str) -> Iterator[subprocess.Popen[str]]:
    """Start the service, and name it in the environment."""
    with TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "prominence_executor.service", "--dir", folder, "--cpus", str(slots)]
        options = ["--memory", "64", "--quiet", f"--like-real={changes}"]
        process = subprocess.Popen([*program, *options], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            os.environ["PROMINENCE_URL"] = process.stdout.readline().strip().partition("=")[2]
            process.stdout.readline()
            os.environ["PROMINENCE_TOKEN"] = Path(folder, "token").read_text()
            yield process
        finally:
            process.terminate()
            process.communicate()


def task_cpu(service: subprocess.Popen[str]) -> float:
    """The CPU seconds of all tasks, those of deleted jobs included; to be asked when their jobs have ended."""
    time.sleep(0.5)
    fields = Path(f"/proc/{service.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def ours(use: Callable[[ProminenceExecutor, int], list[int]], **options: Any) -> Run:
    def run(calls: int) -> None:
        with ProminenceExecutor(resources=Resources(walltime=10), **options) as executor:
            check(use(executor, calls), range(calls))

    return run


def submitted(executor: ProminenceExecutor, calls: int) -> list[int]:
    futures = [executor.submit(nothing, n) for n in range(calls)]
    return [future.result() for future in futures]


def mapped(executor: ProminenceExecutor, calls: int) -> list[int]:
    return list(executor.map(nothing, range(calls)))


def chunked(executor: ProminenceExecutor, calls: int) -> list[int]:
    return list(executor.map(nothing, range(calls), chunksize=7))


def divided(executor: ProminenceExecutor, calls: int) -> list[int]:
    return list(executor.map(nothing, range(calls), chunksize="auto"))


def upstream(calls: int) -> None:
    check(upstream_loop(calls, lambda n: f"sh -c 'echo {n} > out'", interval=0.5), range(calls))


WAYS: dict[str, Run] = {
    "upstream client's loop": upstream,
    "submit in a loop": ours(submitted),
    "map": ours(mapped),
    "map(chunksize=7)": ours(chunked),
    'map(chunksize="auto")': ours(divided),
    "warm": ours(mapped, workers="warm", max_workers=8),
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[50, 200], help="(default: 50 200)")
    parser.add_argument("--slots", type=int, default=8, help="of the platform (default: %(default)s)")
    parser.add_argument("--like-real", default="", help="changes of the platform's settings, as of `serve --like-real`")
    parser.add_argument("--ways", nargs="+", metavar="WORD", default=[], help="only those with one of these words")
    options = parser.parse_args()
    print(f"{machine()}, {options.slots} slots")
    table = Table(
        ("", "<26"), ("calls", ">6"), ("seconds", ">9.1f"), ("requests", ">10"),
        ("ms CPU/call", ">12.0f"), ("client's", ">10.0f"), ("of the loop", ">12.2f"),
    )  # fmt: skip
    for calls in options.calls:
        loop = None
        for way, run in WAYS.items():
            if options.ways and not any(word in way for word in options.ways):
                continue
            with platform(options.slots, options.like_real) as service, counted_requests() as counts:
                began, used = time.perf_counter(), time.process_time()
                run(calls)
                took, used = time.perf_counter() - began, time.process_time() - used
                cpu = task_cpu(service)
            loop = took if loop is None else loop
            table.row(way, calls, took, sum(counts.values()), 1e3 * cpu / calls, 1e3 * used / calls, took / loop)


if __name__ == "__main__":
    main()
