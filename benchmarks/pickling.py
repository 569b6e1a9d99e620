"""What does it take to pickle a map's calls, against cloudpickle alone and the standard library's pickle?

    python benchmarks/pickling.py [--calls 1000]

A map pickles its function once, with the text of the script, and the arguments of each call by themselves. cloudpickle
and pickle do here what a pool would do with them: function and arguments of each call together, and for cloudpickle as
well the function once. pickle writes names, which suffices for processes of one machine. The best of several rounds.
Nothing is sent; bytes are those of all pickles. Instances are of a class of the script.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

import cloudpickle
from measuring import Table, argument_parser, machine

from prominence_executor.executor.function import PickledFunctions
from prominence_executor.run.objects import Objects

ROUNDS = 15
FACTOR = 3

Calls = list[tuple[Any, ...]]


class Simulation:
    def __init__(self, size: int) -> None:
        self.size = size
        self.log = [size]

    def step(self) -> int:
        return scaled(self.size)


def scaled(size: int) -> int:
    return size * FACTOR


def work(value: object, times: int = 2) -> object:
    return scaled(times), value


class NothingStored:
    """Stands for a service that has no object: nothing is large here."""

    def knows(self, name: str) -> bool:
        return False


def ours(calls: Calls) -> int:
    objects = Objects(NothingStored())  # type: ignore[arg-type]
    function = PickledFunctions(objects, None, ()).get(work)
    size = function.for_one_more_call().blob.size
    for args in calls:
        function.for_one_more_call()
        size += objects.dumps((args, {}), args).blob.size
    return size


def cloud(calls: Calls) -> int:
    return len(cloudpickle.dumps(work)) + sum(len(cloudpickle.dumps((args, {}))) for args in calls)


def cloud_together(calls: Calls) -> int:
    return sum(len(cloudpickle.dumps((work, args, {}))) for args in calls)


def plain(calls: Calls) -> int:
    return sum(len(pickle.dumps((work, args, {}))) for args in calls)


def best(pickled: Callable[[Calls], int], calls: Calls) -> float:
    """The CPU's seconds in the best round."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        pickled(calls)
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    number = parser.parse_args().calls
    kinds: dict[str, Calls] = {
        "numbers": [(n,) for n in range(number)],
        "Decimals": [([Decimal(n), Decimal(n + 1)],) for n in range(number)],
        "instances": [(Simulation(n),) for n in range(number)],
    }
    ways = {
        "ProminenceExecutor": ours,
        "cloudpickle, the function once": cloud,
        "cloudpickle, function and arguments": cloud_together,
        "pickle, names alone": plain,
    }
    print(f"{number} calls, {machine()}; milliseconds of the CPU, and kB")
    columns = [
        (text, ">12.2f" if not at % 2 else ">9.1f") for at, text in enumerate(name for k in kinds for name in (k, ""))
    ]
    table = Table(("", "<38s"), *columns)
    for way, pickled in ways.items():
        table.part(way)
        for at, calls in enumerate(kinds.values()):
            table.part(1e3 * best(pickled, calls), pickled(calls) / 1e3, first=1 + 2 * at)
        table.end()


if __name__ == "__main__":
    main()
