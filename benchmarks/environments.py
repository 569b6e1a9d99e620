"""How much later does a call begin whose packages travel (requirements=), beside one whose packages are in the image?

    python benchmarks/environments.py [--requirement numpy scipy pandas] [--calls 5]

The embedded service runs tasks as processes, with the packages of this Python: that is the image that has them. The
archive is made in a first run, which is not counted; what is measured is a second run's. That service names a folder
of the node, in which packages are unpacked once for all jobs; a row has them without it, as on a platform without one.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import Table, argument_parser, machine

from prominence_executor import ProminenceExecutor
from prominence_executor.environments.store import archive_of, locked
from prominence_executor.service.launch import launch


def imported(modules: list[str]) -> list[str]:
    """What a call does: it says where its packages lie."""
    return [str(importlib.import_module(name).__file__) for name in modules]


def seconds_of_call(executor: ProminenceExecutor, modules: list[str], travelled: bool) -> float:
    began = time.perf_counter()
    places = executor.submit(imported, modules).result()
    if any((".pxpackages-" in place) != travelled for place in places):
        raise SystemExit(f"these are not the packages that were meant: {places}")
    return time.perf_counter() - began


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--requirement", nargs="+", default=["numpy", "scipy", "pandas"])
    parser.add_argument("--calls", type=int, default=5)
    arguments = parser.parse_args()
    modules = arguments.requirement
    print(machine())
    lock = locked(modules)
    assert lock is not None
    archive = archive_of(lock)
    print(f"{', '.join(f'{name} {version}' for name, version in lock.versions.items())}: {archive.size / 1e6:.1f} MB")
    table = Table(("", "<34"), ("first call s", ">14.2f"), ("median s", ">10.2f"))
    service = launch(4, 16)
    try:
        with ProminenceExecutor(service.url, service.token, requirements=modules) as executor:
            seconds_of_call(executor, modules, True)  # the first run, which uploads
        alone = {"env": {"PROMINENCE_NODE_CACHE": ""}}
        warm = {"workers": "warm", "max_workers": 1}
        rows: list[tuple[str, list[str] | None, dict[str, Any]]] = [
            ("in the image, one job a call", None, {}),
            ("requirements=, one job a call", modules, {}),
            ("  unpacked by each job", modules, alone),
            ("in the image, warm worker", None, warm),
            ("requirements=, warm worker", modules, warm),
            ("  unpacked by the worker", modules, {**warm, **alone}),
        ]
        for name, requirements, options in rows:
            with ProminenceExecutor(service.url, service.token, requirements=requirements, **options) as executor:
                took = [seconds_of_call(executor, modules, bool(requirements)) for _ in range(arguments.calls)]
            table.row(name, took[0], statistics.median(took))
    finally:
        service.stop()


if __name__ == "__main__":
    main()
