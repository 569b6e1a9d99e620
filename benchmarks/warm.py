"""What does a call cost on a warm worker, beside a job for each call and beside what users would pick instead?

    python benchmarks/warm.py [--calls 4000] [--idle 10 60] [--lost 1000]

All in one run on the embedded service, a process of its own. Latency: one call that does nothing at a time, from
submit to result, back to back and after some seconds without calls. Throughput with 4 workers: a loop of submit, and a
map. Then calls while every worker is killed at a random moment, twice: lost, wrong, and those that ran twice.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import Table, argument_parser, check, machine, seconds

from prominence_executor import ProminenceExecutor, Resources

WORKERS = 4
serving = 0  # the service's process
SMALL = Resources(walltime=30)


def nothing(n: int) -> int:
    return n


def counted(n: int, folder: str) -> int:
    """Leaves a mark each time that it runs."""
    with open(os.path.join(folder, str(n)), "a") as file:
        file.write("x")
    time.sleep(0.02)
    return n


@contextmanager
def service() -> Iterator[dict[str, Any]]:
    """The embedded service as a process of its own, with a slot for each worker: its URL and token."""
    command = [sys.executable, "-m", "prominence_executor.local", "--child", "--cpus", str(WORKERS)]
    global serving
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen([*command, "--dir", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        serving = child.pid
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())
        finally:
            child.communicate()  # closes its standard input: it ends then


def warm(at: dict[str, Any], **options: Any) -> ProminenceExecutor:
    return ProminenceExecutor(**at, resources=SMALL, workers="warm", max_workers=WORKERS, **options)


def latency(executor: Executor, calls: int) -> list[float]:
    """Seconds of one call after the other, the shortest first."""
    return sorted(seconds(lambda: check([executor.submit(nothing, 1).result()], [1])) for _ in range(calls))


def submitted(executor: Executor, calls: int) -> float:
    def loop() -> None:
        futures = [executor.submit(nothing, n) for n in range(calls)]
        check([future.result() for future in futures], range(calls))

    return calls / seconds(loop)


def mapped(executor: Executor, calls: int) -> float:
    return calls / seconds(lambda: check(executor.map(nothing, range(calls)), range(calls)))


def ours(table: Table, at: dict[str, Any], calls: int, idle: list[float]) -> None:
    with warm(at, min_workers=WORKERS) as executor:
        latency(executor, 5)
        while sum(worker.state == "idle" for worker in executor.workers()) < WORKERS:
            time.sleep(0.05)
        cost = Cost(executor)
        one = latency(executor, 200)
        print(
            f"warm, one call at a time: median {one[100] * 1e3:.0f} ms, p99 {one[198] * 1e3:.0f} ms; "
            f"for each {cost.per(200)}",
            flush=True,
        )
        idle_cost = Cost(executor)
        for pause in idle:
            waited = []
            for _ in range(3 if pause < 30 else 1):
                time.sleep(pause)
                waited += latency(executor, 1)
            print(f"warm, after {pause:g} s without calls: median {statistics.median(waited) * 1e3:.0f} ms", flush=True)
        print(f"warm, idle but for these: for each second {idle_cost.per(idle_cost.seconds())}", flush=True)
        cost = Cost(executor)
        row(table, "ProminenceExecutor, warm", executor, calls)
        print(f"    for each of the 2 x {calls} calls {cost.per(2 * calls)}; {cost.rate():.0f} requests/s", flush=True)
    with ProminenceExecutor(**at, resources=SMALL, max_workers=WORKERS) as executor:
        latency(executor, 1)
        row(table, "ProminenceExecutor, a job a call", executor, max(20, calls // 50))


class Cost:
    """Requests, and CPU of client and service, from now on."""

    def __init__(self, executor: ProminenceExecutor) -> None:
        self._executor = executor
        self._at = time.perf_counter()
        self._begun = self._all()

    def _all(self) -> list[float]:
        ours = sum(self._executor.client.requests_sent.values())
        theirs = sum(worker.requests for worker in self._executor.workers())
        fields = Path(f"/proc/{serving}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return [ours, theirs, time.process_time(), ticks / os.sysconf("SC_CLK_TCK")]

    def seconds(self) -> float:
        return time.perf_counter() - self._at

    def rate(self) -> float:
        ours, theirs, _, _ = self._since()
        return (ours + theirs) / self.seconds()

    def per(self, number: float) -> str:
        ours, theirs, client, service = (value / number for value in self._since())
        return (
            f"{ours:.2f} requests of the client and {theirs:.2f} of the workers, "
            f"{client * 1e3:.1f} ms of CPU of the client and {service * 1e3:.1f} ms of the service"
        )

    def _since(self) -> list[float]:
        return [now - before for now, before in zip(self._all(), self._begun, strict=True)]


def row(table: Table, name: str, executor: Executor, calls: int) -> None:
    counts = getattr(executor, "client", None)
    before = counts.requests_sent if counts else None
    loop, whole = submitted(executor, calls), mapped(executor, calls)
    sent = sum((counts.requests_sent - before).values()) if counts else ""
    table.row(name, calls, loop, whole, latency(executor, 30)[15] * 1e3, sent)


def peers() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    def dask() -> Any:
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50)
        return Client(cluster).get_executor(pure=False)

    def parsl() -> Any:
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # its programs
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor

        htex = HighThroughputExecutor(max_workers_per_node=WORKERS, address="127.0.0.1", encrypted=False)
        return ParslPoolExecutor(Config(executors=[htex], run_dir=tempfile.mkdtemp(), initialize_logging=False))

    def blocks() -> Any:
        from executorlib import SingleNodeExecutor

        return SingleNodeExecutor(max_workers=WORKERS, block_allocation=True)

    return {"dask LocalCluster": dask, "Parsl HTEX": parsl, "executorlib, blocks": blocks}


def killed(at: dict[str, Any], calls: int, seed: int) -> None:
    """Kill each worker's processes, at random moments, until twice as many have gone as there are."""
    chance = random.Random(seed)
    patient = 2 * WORKERS + 1  # one call may have all of the workers that are killed
    with tempfile.TemporaryDirectory() as folder, warm(at, max_attempts=patient) as executor:
        futures = [executor.submit(counted, n, folder) for n in range(calls)]
        kills = 0

        def kill() -> None:
            nonlocal kills
            while kills < 2 * WORKERS and not all(future.done() for future in futures):
                time.sleep(chance.uniform(0.2, 0.8))
                ids = [worker.job_id for worker in executor.workers() if worker.state != "starting"]
                victims = processes_of(executor.client.url, chance.choice(ids)) if ids else []
                for how in (signal.SIGSTOP, signal.SIGKILL):  # all at once: none may still say that another has died
                    for pid in victims:
                        with suppress(ProcessLookupError):
                            os.kill(pid, how)
                kills += bool(victims)

        killer = threading.Thread(target=kill)
        killer.start()
        results = [future.result() if future.exception() is None else None for future in futures]
        killer.join()
        for future in futures:
            if error := future.exception():
                print(f"    lost: {error!r}")
        lost = sum(result is None for result in results)
        wrong = sum(result not in (None, n) for n, result in enumerate(results))
        runs = [len(Path(folder, str(n)).read_text()) for n in range(calls) if Path(folder, str(n)).exists()]
        again = sum(future.attempts > 1 for future in futures)
        print(
            f"{calls} calls, {kills} workers killed: lost {lost}, wrong {wrong}, sent again {again}, "
            f"ran twice {sum(n > 1 for n in runs)}",
            flush=True,
        )


def processes_of(url: str, job_id: int | None) -> list[int]:
    """The processes of a job here: those that the service has given its URL and the job's id, which others may use."""
    marks = {f"PROMINENCE_URL={url}".encode(), f"PROMINENCE_JOB_ID={job_id}".encode()}
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and marks <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
        except OSError:
            pass  # it has just ended, or is somebody else's
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=4000, help="calls that do nothing (default: %(default)s)")
    parser.add_argument("--idle", type=float, nargs="*", default=[10, 60], help="seconds without calls")
    parser.add_argument("--lost", type=int, default=1000, help="calls while workers are killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261124, help="of the moments at which they are")
    options = parser.parse_args()
    print(f"{machine()}, {WORKERS} workers")
    table = Table(
        ("", "<36"), ("calls", ">7"), ("submit /s", ">12.0f"), ("map /s", ">12.0f"), ("latency ms", ">12.1f"),
        ("requests", ">10"),
    )  # fmt: skip
    with service() as at:
        ours(table, at, options.calls, options.idle)
    modules = {"dask LocalCluster": "distributed", "Parsl HTEX": "parsl", "executorlib, blocks": "executorlib"}
    for name, make in peers().items():
        if importlib.util.find_spec(modules[name]) is None:
            table.row(name, "  not installed")
            continue
        with make() as executor:
            latency(executor, 5)
            row(table, name, executor, options.calls // 4)
    with service() as at:
        killed(at, options.lost, options.seed)


if __name__ == "__main__":
    main()
