"""What does a call cost here that does nothing, against a process pool and a loop over the upstream client?

    python benchmarks/overhead.py [--calls 60] [--chunked 1000]

All run on this machine in one run: ProminenceExecutor through the embedded service with one job for each call and with
chunks of 50, ProcessPoolExecutor, and the loop that a user of the upstream client would write (`prominence.Job`, one
for each call). The floor is what a job cannot go below: starting Python and importing cloudpickle, on all cores.
Requests are counted where they are made; polls (lists and descriptions of jobs) apart.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

sys.path.pop(0)  # this folder, where a file is named as a library

from prominence_executor import ProminenceExecutor, Resources

WORKERS = os.cpu_count() or 1


def nothing(x: int) -> int:
    return x


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def floor(calls: int) -> None:
    """Start Python and import cloudpickle, `calls` times on all cores."""
    with ThreadPoolExecutor(WORKERS) as pool:
        command = [sys.executable, "-c", "import cloudpickle"]
        list(pool.map(lambda _: subprocess.run(command, check=True), range(calls)))


def ours(calls: int, chunksize: int) -> tuple[float, Counter[str]]:
    with ProminenceExecutor(url="local", resources=Resources(walltime=10)) as executor:
        executor.submit(nothing, 0).result()  # the service has started, the runner has been built
        before = executor.client.requests_sent
        took = seconds(lambda: check(list(executor.map(nothing, range(calls), chunksize=chunksize)), calls))
        return took, executor.client.requests_sent - before


def process_pool(calls: int) -> float:
    with ProcessPoolExecutor(WORKERS) as pool:
        pool.submit(nothing, 0).result()
        return seconds(lambda: check(list(pool.map(nothing, range(calls))), calls))


def upstream(calls: int) -> tuple[float, Counter[str]]:
    """One `prominence.Job` for each call: create all, then wait for one after the other and read its output file."""
    import prominence
    import requests

    from prominence_executor.local.launch import launch

    service = launch()
    os.environ.update(PROMINENCE_URL=service.url, PROMINENCE_TOKEN=service.token)
    counts: Counter[str] = Counter()
    request = requests.Session.request

    def counted(self: requests.Session, method: str, url: str, **options: object) -> requests.Response:
        counts[f"{method.upper()} {'/jobs' if '/v1/' in url else 'output'}"] += 1
        return request(self, method, url, **options)  # type: ignore[arg-type]

    def loop() -> None:
        jobs = []
        for number in range(calls):
            task = prominence.Task()
            task.image, task.runtime = "python", "singularity"
            task.command = f"python3 -c \"import cloudpickle; open('out', 'w').write('{number}')\""
            job = prominence.Job()
            job.name, job.tasks, job.output_files = f"call-{number}", [task], ["out"]
            job.resources.walltime = 10
            job.create()
            jobs.append(job)
        results = []
        for job in jobs:
            while job.status not in ("completed", "failed", "deleted", "killed"):
                time.sleep(0.1)
            results.append(int(job.get_output_file("out")))
        check(results, calls)

    try:
        requests.Session.request = counted  # type: ignore[method-assign,assignment]  # to count, not to change
        return seconds(loop), counts
    finally:
        requests.Session.request = request  # type: ignore[method-assign]
        service.stop()


def check(results: list[int], calls: int) -> None:
    if results != list(range(calls)):
        raise SystemExit("wrong results")


def row(what: str, calls: int, took: float, counts: Counter[str] | None = None) -> None:
    polls = counts.pop("GET /jobs", 0) if counts else 0
    others = f"{sum(counts.values()):>8}{polls:>8}   {dict(counts)}" if counts is not None else ""
    print(f"{what:<44}{calls:>6}{took:>9.2f}{calls / took:>10.1f}{others}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=60, help="calls of one job each (default: %(default)s)")
    parser.add_argument("--chunked", type=int, default=1000, help="calls in chunks of 50 (default: %(default)s)")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {WORKERS} cores")
    print(f"{'':<44}{'calls':>6}{'seconds':>9}{'calls/s':>10}{'requests':>9}{'polls':>7}")
    row("floor: python3 -c 'import cloudpickle'", options.calls, seconds(lambda: floor(options.calls)))
    row("ProminenceExecutor, one job a call", options.calls, *ours(options.calls, 1))
    row("ProminenceExecutor, chunksize=50", options.chunked, *ours(options.chunked, 50))
    row("upstream client, one prominence.Job a call", options.calls, *upstream(options.calls))
    row("ProcessPoolExecutor", options.chunked, process_pool(options.chunked))


if __name__ == "__main__":
    main()
