"""What does a call cost here that does nothing, against a process pool and a loop over the upstream client?

    python benchmarks/overhead.py [--calls 60] [--chunked 1000]

All run on this machine in one run: ProminenceExecutor through the embedded service with one job for each call and with
chunks of 50, ProcessPoolExecutor, and the loop that a user of the upstream client would write (`prominence.Job`, one
for each call). The floor is what a job cannot go below: starting Python and importing cloudpickle, on all cores.
Requests are counted where they are made; polls (lists and descriptions of jobs) apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import CORES, Table, argument_parser, check, counted_requests, machine, seconds, upstream_loop

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.service.launch import launch


def nothing(x: int) -> int:
    return x


def floor(calls: int) -> None:
    """Start Python and import cloudpickle, `calls` times on all cores."""
    with ThreadPoolExecutor(CORES) as pool:
        command = [sys.executable, "-c", "import cloudpickle"]
        list(pool.map(lambda _: subprocess.run(command, check=True), range(calls)))


def ours(calls: int, chunksize: int) -> tuple[float, Counter[str]]:
    with ProminenceExecutor(url="local", resources=Resources(walltime=10)) as executor:
        executor.submit(nothing, 0).result()  # the service has started, the runner has been built
        before = executor.client.requests_sent
        took = seconds(lambda: check(executor.map(nothing, range(calls), chunksize=chunksize), range(calls)))
        return took, executor.client.requests_sent - before


def process_pool(calls: int) -> float:
    with ProcessPoolExecutor(CORES) as pool:
        pool.submit(nothing, 0).result()
        return seconds(lambda: check(pool.map(nothing, range(calls)), range(calls)))


def upstream(calls: int) -> tuple[float, Counter[str]]:
    """The upstream client's loop, whose requests are counted where they leave."""
    service = launch()
    os.environ.update(PROMINENCE_URL=service.url, PROMINENCE_TOKEN=service.token)

    def program(number: int) -> str:
        return f"python3 -c \"import cloudpickle; open('out', 'w').write('{number}')\""

    def loop() -> None:
        check(upstream_loop(calls, program, interval=0.1), range(calls))

    try:
        with counted_requests() as counts:
            return seconds(loop), counts
    finally:
        service.stop()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=60, help="calls of one job each (default: %(default)s)")
    parser.add_argument("--chunked", type=int, default=1000, help="calls in chunks of 50 (default: %(default)s)")
    options = parser.parse_args()
    print(machine())
    table = Table(
        ("", "<44"), ("calls", ">6"), ("seconds", ">9.2f"), ("calls/s", ">10.1f"), ("requests", ">10"), ("polls", ">7")
    )

    def row(what: str, calls: int, took: float, counts: Counter[str] | None = None) -> None:
        if counts is None:
            table.row(what, calls, took, calls / took)
        else:
            others = {kind: number for kind, number in counts.items() if kind != "GET /jobs"}
            table.part(what, calls, took, calls / took, sum(others.values()), counts["GET /jobs"])
            print(f"   {others}")

    row("floor: python3 -c 'import cloudpickle'", options.calls, seconds(lambda: floor(options.calls)))
    row("ProminenceExecutor, one job a call", options.calls, *ours(options.calls, 1))
    row("ProminenceExecutor, chunksize=50", options.chunked, *ours(options.chunked, 50))
    row("upstream client, one prominence.Job a call", options.calls, *upstream(options.calls))
    row("ProcessPoolExecutor", options.chunked, process_pool(options.chunked))


if __name__ == "__main__":
    main()
