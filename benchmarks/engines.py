"""How long do calls take through Slurm, beside submitit and dask-jobqueue on the same Slurm, and on this machine alone?

    python benchmarks/engines.py [--calls 100 1000] [--rounds 10] [--only NAME ...] [--ways WAY ...] [--waiting 10000]

One call that does nothing (mean of the rounds, each begun at another moment of the second: Slurm
starts jobs once a second); some as a job each, in chunks of a tenth, and on warm workers. It
starts a Slurm of one node of its own, which takes root and the packages slurm-wlm and munge; what is compared with it
comes by the extra `bench`. Seconds are from the start of an executor to its last result: a user waits for its workers
as well. Counted are the calls of sbatch, and of squeue and sacct. The others start as many workers as there are CPUs,
as do warm workers of ours; jobs of submitit are an array. The floor is Slurm itself: an array of shell scripts.

With --waiting nothing runs: so many jobs are put into a partition that starts none, looked at, and cancelled.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_TESTS = Path(__file__).parents[1] / "tests" / "support"
# Instead of this folder, where a file is named as a library.
sys.path[:1] = [str(Path(__file__).with_name("support")), str(_TESTS)]

from measuring import Table, argument_parser, check, machine, seconds
from one_node_slurm import Counted, OneNodeSlurm, missing

from prominence_executor import ProminenceExecutor
from prominence_executor.service import LocalService

Ways = dict[str, Callable[[int], list[int]]]  # by name: what returns the results of so many calls
Peer = Callable[[Path], Any]

WORKERS = 8
WAYS = ("one call", "jobs", "chunks", "warm")


def nothing(n: int) -> int:
    return n


@contextmanager
def ours(folder: Path, engine: str) -> Iterator[Ways]:
    def run(calls: int, **options: Any) -> list[int]:
        chunksize = options.pop("chunksize", 1)
        with ProminenceExecutor(service.url, service.token, **options) as executor:
            return list(executor.map(nothing, range(calls), chunksize=chunksize))

    with LocalService(folder, cpus=WORKERS, memory=WORKERS, engine=engine) as service:
        yield {
            "one call": run,
            "jobs": run,
            "chunks": lambda calls: run(calls, chunksize=max(1, calls // 10)),
            "warm": lambda calls: run(calls, workers="warm", max_workers=WORKERS),
        }


@contextmanager
def submitit(folder: Path) -> Iterator[Ways]:
    import submitit as library

    logging.getLogger("submitit").setLevel(logging.ERROR)  # it would warn at each look that there is no sacct

    def run(calls: int) -> list[int]:
        executor = library.SlurmExecutor(folder=str(folder))
        executor.update_parameters(time=30, mem="1G", cpus_per_task=1, array_parallelism=calls)
        jobs = executor.map_array(nothing, range(calls)) if calls > 1 else [executor.submit(nothing, 0)]
        return [job.result() for job in jobs]

    yield {"one call": run, "jobs": run}


@contextmanager
def jobqueue(folder: Path) -> Iterator[Ways]:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    def run(calls: int) -> list[int]:
        with (
            SLURMCluster(
                cores=1, memory="1GB", walltime="00:30:00", interface="lo", log_directory=str(folder),
                scheduler_options={"dashboard_address": None}, worker_extra_args=["--no-dashboard"],
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            cluster.scale(jobs=1 if calls == 1 else WORKERS)
            return list(client.gather(client.map(nothing, range(calls))))

    yield {"one call": run, "warm": run}


@contextmanager
def floor(folder: Path) -> Iterator[Ways]:
    def run(calls: int) -> list[int]:
        with TemporaryDirectory() as ended:
            program = f"touch {ended}/$SLURM_ARRAY_TASK_ID"
            array = f"--array=0-{calls - 1}"
            subprocess.run(
                ["sbatch", array, "--mem=1G", "--output=/dev/null", "--wrap", program],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            while len(names := os.listdir(ended)) < calls:
                time.sleep(0.05)
            return sorted(map(int, names))

    yield {"one call": run, "jobs": run}


PEERS: dict[str, tuple[str, Peer]] = {
    "floor": ("prominence_executor", floor),
    "ours, local": ("prominence_executor", lambda folder: ours(folder, "local")),
    "ours, Slurm": ("prominence_executor", lambda folder: ours(folder, "slurm")),
    "submitit": ("submitit", submitit),
    "dask-jobqueue": ("dask_jobqueue", jobqueue),
}


def measured(table: Table, name: str, ways: Ways, numbers: list[int], rounds: int, counted: Counted) -> None:
    for way, run in ways.items():
        for calls in [1] if way == "one call" else numbers:
            before = counts(counted)
            times = []
            for number in range(rounds if calls == 1 else 1):
                time.sleep((1 - time.time() % 1) + number / rounds)
                times.append(seconds(lambda run=run, calls=calls: check(run(calls), range(calls))))  # type: ignore[misc]
            asked = [(now - then) / len(times) for now, then in zip(counts(counted), before, strict=True)]
            table.row(name, way, calls, statistics.mean(times), *asked)


def counts(counted: Counted) -> tuple[int, int]:
    return counted.calls("sbatch"), counted.calls("squeue") + counted.calls("sacct")


def waiting(calls: int, folder: Path, slurm: OneNodeSlurm, counted: Counted) -> None:
    """Submit jobs that do not start, let them be looked at for ten seconds, and cancel them."""

    def until(number: int) -> None:
        while len(slurm.asked("squeue", "-h", "-r", "-t", "pending", "-o", "%i").split()) != number:
            time.sleep(0.5)

    table = Table(("", "<12"), ("jobs", ">6"), ("seconds", ">9.1f"), *((f"{name}", ">9") for name in COMMANDS))
    with LocalService(folder, engine="slurm", engine_options={"partition": "closed"}) as service:
        executor = ProminenceExecutor(service.url, service.token)

        def submit() -> None:
            futures.extend(executor.submit(nothing, number) for number in range(calls))
            until(calls)

        def cancel() -> None:
            executor.shutdown(cancel_futures=True)
            until(0)

        futures: list[Any] = []
        for name, work in (("submitted", submit), ("waiting", lambda: time.sleep(10)), ("cancelled", cancel)):
            before = [counted.calls(command) for command in COMMANDS]
            took = seconds(work)
            called = [counted.calls(command) - then for command, then in zip(COMMANDS, before, strict=True)]
            table.row(name, calls, took, *called)
        if not all(future.cancelled() for future in futures):
            raise SystemExit("not all were cancelled")


COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[100])
    parser.add_argument("--rounds", type=int, default=10, help="of one call")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--waiting", type=int, metavar="JOBS")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # it has daemons to end
    if reason := missing():
        raise SystemExit(reason)
    with TemporaryDirectory() as name:
        folder, slurm = Path(name), OneNodeSlurm()
        counted = Counted(folder / "commands")
        os.environ.update({**slurm.variables, "PATH": counted.path()})
        slurm.start()
        try:
            print(f"{machine()}, load {os.getloadavg()[0]:.1f}; Slurm of one node with {WORKERS} CPUs")
            if options.waiting:
                return waiting(options.waiting, folder / "waiting", slurm, counted)
            table = Table(
                ("", "<16"), ("", "<10"), ("calls", ">6"), ("seconds", ">9.2f"), ("sbatch", ">8.3g"), ("looks", ">8.3g")
            )
            for number, peer in enumerate(options.only):
                library, ways_of = PEERS[peer]
                if find_spec(library):
                    with ways_of(folder / str(number)) as ways:
                        chosen = {way: run for way, run in ways.items() if way in options.ways}
                        measured(table, peer, chosen, options.calls, options.rounds, counted)
        finally:
            slurm.stop()


if __name__ == "__main__":
    main()
