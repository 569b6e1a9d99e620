"""How many requests and bytes do 1,000 calls cost, beside the loop that a user of the upstream client would write?

    python benchmarks/requests.py [--calls 1000] [--upstream 100]

Each call has 1 kB of arguments. Requests and bytes are counted where they pass: a plain proxy stands between client
and service, uploads and downloads included. All in one run on the embedded service; the upstream client's loop makes
a job, asks for its state every second and reads its output, and is scaled from fewer calls since it is slow.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1] / "tests")  # not this folder, where a file is named as a library

from proxy import FaultProxy  # noqa: E402  the tests' own, here without any faults

from prominence_executor import ProminenceExecutor, Resources  # noqa: E402
from prominence_executor.local import LocalService  # noqa: E402

UPLOADS = ("POST /data/upload", "PUT upload", "POST /jobs", "POST /workflows")
ARGUMENT = os.urandom(500).hex()


def first(argument: str, n: int) -> int:
    return ord(argument[0]) + n


def submitted(executor: ProminenceExecutor, calls: int) -> list[int]:
    futures = [executor.submit(first, ARGUMENT, n) for n in range(calls)]
    return [future.result() for future in futures]


def mapped(chunksize: int) -> Callable[[ProminenceExecutor, int], list[int]]:
    def run(executor: ProminenceExecutor, calls: int) -> list[int]:
        return list(executor.map(first, [ARGUMENT] * calls, range(calls), chunksize=chunksize))

    return run


def ours(
    service: LocalService, calls: int, run: Callable[[ProminenceExecutor, int], list[int]]
) -> tuple[float, Counts]:
    with (
        FaultProxy(service.url) as proxy,
        ProminenceExecutor(proxy.url, service.token, resources=Resources(walltime=10)) as executor,
    ):
        began = time.perf_counter()
        check(run(executor, calls))
        took = time.perf_counter() - began
        return took, Counts(proxy)


class Counts:
    """What passed a proxy so far."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.requests: Counter[str] = Counter()
        for kind, number in proxy.forwarded.items():
            self.requests[named(kind)] += number
        self.sent, self.received = proxy.bytes_sent, proxy.bytes_received


def named(kind: str) -> str:
    method, _, path = kind.partition(" ")
    if path.startswith("/prominence-objects"):
        return "PUT upload" if method == "PUT" else "GET output"
    return "DELETE /data" if kind.startswith("DELETE /data/") else kind


def upstream(service: LocalService, calls: int) -> tuple[float, Counts]:
    """One `prominence.Job` for each call: create all, then wait for one after the other and read its output file."""
    import prominence

    with FaultProxy(service.url) as proxy:
        os.environ.update(PROMINENCE_URL=proxy.url, PROMINENCE_TOKEN=service.token)
        began = time.perf_counter()
        jobs = []
        for n in range(calls):
            task = prominence.Task()
            task.image, task.runtime = "python", "singularity"
            task.command = f"python3 -c \"open('out', 'w').write(str(ord(open('argument').read()[0]) + {n}))\""
            job = prominence.Job()
            job.name, job.tasks, job.output_files = f"call-{n}", [task], ["out"]
            job.resources.walltime = 10
            job.input_files = [prominence.InputFile("argument", ARGUMENT)]
            job.create()
            jobs.append(job)
        results = []
        for job in jobs:
            while job.status not in ("completed", "failed", "deleted", "killed"):
                time.sleep(1.0)
            results.append(int(job.get_output_file("out")))
        took = time.perf_counter() - began
        check(results)
        return took, Counts(proxy)


def check(results: list[int]) -> None:
    if results != [ord(ARGUMENT[0]) + n for n in range(len(results))]:
        raise SystemExit("wrong results")


def row(what: str, calls: int, took: float, counts: Counts) -> None:
    kinds = dict(counts.requests)
    submit = sum(number for kind, number in kinds.items() if kind in UPLOADS)
    polls = kinds.get("GET /jobs", 0) + kinds.get("GET /jobs/id", 0)
    downloads = kinds.get("GET output", 0)
    print(
        f"{what:<40}{calls:>6}{took:>9.1f}{submit:>8}{polls:>8}{downloads:>10}"
        f"{counts.sent / 1e6:>9.2f}{counts.received / 1e6:>9.2f}"
    )
    print(f"    {kinds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1000, help="calls of ours (default: %(default)s)")
    parser.add_argument("--upstream", type=int, default=100, help="calls of the upstream client's loop (%(default)s)")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(
        f"{'':<40}{'calls':>6}{'seconds':>9}{'submit':>8}{'polls':>8}{'downloads':>10}{'MB sent':>9}{'MB recv':>9}",
        flush=True,
    )
    with LocalService() as service:
        row("submit in a loop", options.calls, *ours(service, options.calls, submitted))
        row("map(chunksize=1)", options.calls, *ours(service, options.calls, mapped(1)))
        row("map(chunksize=50)", options.calls, *ours(service, options.calls, mapped(50)))
        row("upstream client's loop", options.upstream, *upstream(service, options.upstream))


if __name__ == "__main__":
    main()
