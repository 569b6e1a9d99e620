"""How long do 10,000 short calls take, beside what users would pick instead on the same machine?

    python benchmarks/throughput.py [--calls 10000] [--slow-calls 200] [--rounds 3]

Calls that do nothing, that compute for 5 ms, and that sleep for 50 ms, with as many workers as the machine has cores:
``map(chunksize="auto")`` on the embedded service against ProcessPoolExecutor, and, as far as they are installed (extra
``bench``), loky, executorlib, Parsl and dask's LocalCluster. Starting a pool is not counted; the median of the rounds
is. Peers that start a process for each call run `--slow-calls` calls, and their time is scaled up (marked with *).
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import CORES, Table, argument_parser, check, machine, seconds

from prominence_executor import ProminenceExecutor, Resources

Map = Callable[[Callable[[int], int], int], list[int]]


def nothing(n: int) -> int:
    return n


def computes(n: int) -> int:
    from time import process_time  # Parsl's functions bring their own imports

    end = process_time() + 0.005
    while process_time() < end:
        pass
    return n


def sleeps(n: int) -> int:
    from time import sleep

    sleep(0.05)
    return n


@contextmanager
def ours() -> Iterator[Map]:
    with ProminenceExecutor(url="local", resources=Resources(walltime=60)) as executor:
        executor.submit(nothing, 0).result()  # the service has started, the runner has been built
        yield lambda call, calls: list(executor.map(call, range(calls), chunksize="auto"))


def mapping(executor: Executor, **options: Any) -> Map:
    executor.submit(nothing, 0).result()
    return lambda call, calls: list(executor.map(call, range(calls), **options))


@contextmanager
def process_pool(chunksize: int = 1) -> Iterator[Map]:
    with ProcessPoolExecutor(CORES) as executor:
        yield mapping(executor, chunksize=chunksize)


@contextmanager
def loky() -> Iterator[Map]:
    from loky import ProcessPoolExecutor as LokyExecutor

    executor = LokyExecutor(max_workers=CORES)
    try:
        yield mapping(executor)
    finally:
        executor.shutdown()


@contextmanager
def executorlib(block_allocation: bool) -> Iterator[Map]:
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=CORES, block_allocation=block_allocation) as executor:

        def run(call: Callable[[int], int], calls: int) -> list[int]:
            futures = [executor.submit(call, n) for n in range(calls)]
            return [future.result() for future in futures]

        run(nothing, 1)
        yield run


@contextmanager
def parsl() -> Iterator[Map]:
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # Parsl's programs
    import parsl as library
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    with TemporaryDirectory() as folder:
        executor = HighThroughputExecutor(
            label="local", address="127.0.0.1", max_workers_per_node=CORES, provider=LocalProvider(max_blocks=1)
        )
        config = Config(executors=[executor], run_dir=folder, usage_tracking=0, initialize_logging=False)
        with library.load(config):

            def run(call: Callable[[int], int], calls: int) -> list[int]:
                app = library.python_app(call)
                futures = [app(n) for n in range(calls)]
                return [future.result() for future in futures]

            run(nothing, 1)
            yield run


@contextmanager
def dask() -> Iterator[Map]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def run(call: Callable[[int], int], calls: int) -> list[int]:
            result: list[int] = client.gather(client.map(call, range(calls), pure=False))
            return result

        run(nothing, CORES)
        yield run


def timed(run: Map, call: Callable[[int], int], calls: int) -> float:
    return seconds(lambda: check(run(call, calls), range(calls)))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--calls", type=int, default=10_000, help="of each kind; of those that sleep a tenth (%(default)s)"
    )
    parser.add_argument("--slow-calls", type=int, default=200, help="for a process for each call (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: %(default)s)")
    options = parser.parse_args()
    kinds = {
        "nothing": (nothing, options.calls),
        "5 ms": (computes, options.calls),
        "50 ms": (sleeps, options.calls // 10),
    }
    peers: dict[
        str, tuple[str | None, bool, Callable[[], Any]]
    ] = {  # library, a process for each call, how to start it
        "ProcessPoolExecutor": (None, False, process_pool),
        "ProcessPoolExecutor, chunksize=50": (None, False, partial(process_pool, 50)),
        "ProminenceExecutor, auto": (None, False, ours),
        "loky": ("loky", False, loky),
        "dask LocalCluster": ("distributed", False, dask),
        "Parsl": ("parsl", False, parsl),
        "executorlib, blocks": ("executorlib", False, partial(executorlib, True)),
        "executorlib": ("executorlib", True, partial(executorlib, False)),
    }
    print(f"{machine()}; seconds, and the ratio to ProcessPoolExecutor")
    table = Table(("", "<36"), *((f"{calls} x {kind}", ">22") for kind, (_, calls) in kinds.items()))
    base: dict[str, float] = {}
    for peer, (library, slow, start) in peers.items():
        if library and find_spec(library) is None:
            table.row(peer, "not installed")
            continue
        table.part(peer)
        with start() as run:
            for column, (kind, (call, calls)) in enumerate(kinds.items(), 1):
                few = min(calls, options.slow_calls) if slow else calls
                took = statistics.median(timed(run, call, few) for _ in range(1 if slow else options.rounds))
                took *= calls / few
                base.setdefault(kind, took)
                table.part(f"{took:.2f}{'*' if few < calls else ' '}{took / base[kind]:>7.2f}", first=column)
        table.end()


if __name__ == "__main__":
    main()
