"""How long does one call take that does nothing, and where do the milliseconds go?

    python benchmarks/latency.py [--calls 300] [--many 3000] [--idle 10] [--against DIRECTORY]

All in one run, with 4 workers, each way in a process of its own: warm workers on the embedded service, which lets
requests wait; on one that does not, as the real one, and answers 12 ms late; a job for each call; and what users would
pick instead, where it is installed. *start* is from the first import to the first result; *after* is a call after some
seconds without any. Requests and milliseconds of the processor are those of one call. The floor is what a job cannot
go below: starting Python and importing cloudpickle. With `--against` an earlier version, in another checkout, is
measured, too; where no request waits, on this version's service.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import CORES, Table, argument_parser, check, machine, seconds

WORKERS = 4
LATE = 0.012  # seconds after which the real service answers a request for a key
TICKS = os.sysconf("SC_CLK_TCK")
NEVER_WAITS = """
import sys
from prominence_executor.service import __main__ as program
from prominence_executor.service.node.platform import Platform
platform = Platform(without_waiting=True, answer_seconds=float(sys.argv.pop(1)))
make = program.LocalService
program.LocalService = lambda *values, **options: make(*values, **{**options, "platform": platform})
sys.exit(program.main(sys.argv[1:]))
"""


def nothing(n: int) -> int:
    return n


class Ours:
    """Our executor, its service in a process of its own, and what both cost."""

    def __init__(self, way: str, stack: ExitStack) -> None:
        from prominence_executor import ProminenceExecutor, Resources

        serve = [sys.executable, "-m", "prominence_executor.local"]
        environment = dict(os.environ)
        if way == "looks":
            environment.pop("PYTHONPATH", None)
            serve = [sys.executable, "-c", NEVER_WAITS, str(LATE)]
        serve += ["--child", "--cpus", str(WORKERS), "--memory", "64"]
        self._service = stack.enter_context(
            subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        )
        assert self._service.stdout is not None
        at = json.loads(self._service.stdout.readline())
        stack.callback(self._service.stdin.close)  # type: ignore[union-attr]
        options: dict[str, Any] = {"max_workers": WORKERS, "resources": Resources(walltime=30)}
        if way != "jobs":
            options |= {"workers": "warm", "min_workers": WORKERS}
        self.executor = stack.enter_context(ProminenceExecutor(at["url"], at["token"], **options))
        self._warm = way != "jobs"

    def ready(self) -> None:
        """Wait for all workers."""
        while self._warm and sum(worker.state == "idle" for worker in self.executor.workers()) < WORKERS:
            time.sleep(0.05)

    def cost(self) -> list[float]:
        """Requests of the client and of its workers; seconds of the processor: client's, service's, and the jobs'."""
        workers = sum(worker.requests for worker in self.executor.workers()) if self._warm else 0
        own, jobs = processor(self._service.pid)
        sent = sum(self.executor.client.requests_sent.values())
        return [sent, workers, time.process_time(), own, jobs]


def processor(pid: int) -> tuple[float, float]:
    """Seconds that a process has computed, and those that its descendants have."""
    found: dict[int, tuple[int, float, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
        found[int(folder.name)] = int(fields[1]), own / TICKS, ended / TICKS
    below, level = found[pid][2], {pid}
    while level := {number for number, (parent, _, _) in found.items() if parent in level}:
        below += sum(found[number][1] + found[number][2] for number in level)
    return found[pid][1], below


def peer(name: str, stack: ExitStack) -> Executor:
    """What users would pick instead."""
    if name == "ProcessPoolExecutor":
        return stack.enter_context(ProcessPoolExecutor(WORKERS))
    if name == "loky":
        from loky import ProcessPoolExecutor as LokyPool

        return stack.enter_context(LokyPool(WORKERS))  # type: ignore[no-any-return]
    if name == "dask LocalCluster":
        from distributed import Client, LocalCluster

        cluster = stack.enter_context(LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None))
        return stack.enter_context(Client(cluster)).get_executor(pure=False)  # type: ignore[no-any-return]
    if name == "Parsl HTEX":
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        htex = HighThroughputExecutor(
            max_workers_per_node=WORKERS,
            cores_per_worker=0.1,
            address="127.0.0.1",
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        config = Config([htex], strategy="none", run_dir=folder, initialize_logging=False)
        return stack.enter_context(ParslPoolExecutor(config))  # type: ignore[no-any-return]
    from executorlib import SingleNodeExecutor

    return stack.enter_context(SingleNodeExecutor(max_workers=WORKERS, block_allocation=True))  # type: ignore[no-any-return]


PEERS = {
    "ProcessPoolExecutor": "concurrent.futures",
    "loky": "loky",
    "Parsl HTEX": "parsl",
    "executorlib": "executorlib",
    "dask LocalCluster": "distributed",
}
OURS = {"ours, waiting": "waits", "ours, not waiting, 12 ms late": "looks", "ours, a job a call": "jobs"}


def measured(name: str, calls: int, many: int, idle: float) -> dict[str, Any]:
    """Measure one way, in this process."""
    began = time.perf_counter()
    with ExitStack() as stack:
        ours = Ours(OURS[name], stack) if name in OURS else None
        executor: Executor = ours.executor if ours else peer(name, stack)

        def one() -> float:
            return seconds(lambda: check([executor.submit(nothing, 1).result()], [1]))

        one()
        found: dict[str, Any] = {"start": time.perf_counter() - began}
        if ours:
            ours.ready()
        for _ in range(5):
            one()
        before = ours.cost() if ours else []
        took = sorted(one() for _ in range(calls))
        found |= {"median": 1e3 * took[calls // 2], "p99": 1e3 * took[int(calls * 0.99)]}
        if ours:
            if name != "ours, a job a call":
                one()  # a worker tells how often it has asked when it reports
            spent = [(now - then) / calls for now, then in zip(ours.cost(), before, strict=True)]
            found |= {"requests": spent[:2], "processor": [1e3 * each for each in spent[2:]]}
        time.sleep(idle)
        found["after"] = 1e3 * one()
        for _ in range(5):
            one()
        loop = seconds(
            lambda: check([f.result() for f in [executor.submit(nothing, n) for n in range(many)]], range(many))
        )
        found |= {"submit": many / loop}
        found |= {"map": many / seconds(lambda: check(executor.map(nothing, range(many)), range(many)))}
        return found


def apart(name: str, options: argparse.Namespace, tree: str | None = None) -> dict[str, Any] | None:
    """Measure one way in a process of its own; of an earlier version, what it has."""
    jobs = name == "ours, a job a call"
    calls, many = (max(5, options.calls // 15), max(10, options.many // 100)) if jobs else (options.calls, options.many)
    command = [sys.executable, __file__, "--only", name, "--calls", str(calls), "--many", str(many)]
    # Parsl finds its programs on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, **({"PYTHONPATH": tree} if tree else {})}
    command += ["--idle", str(options.idle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def floor(number: int = 20) -> float:
    """How many Pythons that import cloudpickle are started and end in a second, on all cores."""
    command = [sys.executable, "-c", "import cloudpickle"]
    with ThreadPoolExecutor(CORES) as pool:
        return number / seconds(lambda: list(pool.map(lambda _: subprocess.run(command, check=True), range(number))))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=300, help="one after the other (default: %(default)s)")
    parser.add_argument("--many", type=int, default=3000, help="submitted together (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without calls (default: %(default)s)")
    parser.add_argument("--against", metavar="DIRECTORY", help="a checkout of an earlier version")
    parser.add_argument("--ours", action="store_true", help="without what users would pick instead")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.calls, options.many, options.idle)))
        return
    print(machine(), flush=True)
    table = Table(
        ("", "<36"), ("median ms", ">10.2f"), ("p99 ms", ">8.1f"), ("after ms", ">9.1f"), ("submit/s", ">9.0f"),
        ("map/s", ">8.0f"), ("start s", ">8.2f"),
    )  # fmt: skip

    def row(label: str, found: dict[str, Any] | None) -> None:
        if found is None:
            table.row(label, "failed")
            return
        table.row(label, *(found[key] for key in ("median", "p99", "after", "submit", "map", "start")))
        if "requests" in found:
            client, workers = found["requests"]
            own, service, jobs = found["processor"]
            print(
                f"    a call: {client:.2f} requests of the client, {workers:.2f} of its worker; ms of the processor: "
                f"client {own:.2f}, service {service:.2f}, jobs {jobs:.2f}",
                flush=True,
            )

    for name, module in PEERS.items():
        if not options.ours and importlib.util.find_spec(module) is not None:
            row(name, apart(name, options))
    for name in OURS:
        if options.against:
            row(f"{name} (earlier)", apart(name, options, options.against))
        row(name, apart(name, options))
    print(f"floor of a job a call: {floor():.1f}/s; import prominence_executor: {1e3 * imported():.0f} ms")


def imported() -> float:
    """Seconds that the import takes, beyond Python's own start."""
    command = [sys.executable, "-c", "from prominence_executor import ProminenceExecutor"]
    bare = [sys.executable, "-c", "pass"]
    return min(seconds(lambda: subprocess.run(command, check=True)) for _ in range(5)) - min(
        seconds(lambda: subprocess.run(bare, check=True)) for _ in range(5)
    )


if __name__ == "__main__":
    main()
