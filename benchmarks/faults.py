"""What do 1,000 calls lose when a tenth of all requests goes wrong, and how much longer do they take?

    python benchmarks/faults.py [--calls 1000] [--rate 0.1] [--seed N]

The embedded service runs the calls, one job each, twice: directly, and through the tests' fault-injecting proxy, which
does to a tenth of all requests one of the things that networks and services do. Each call writes a line to a file, so
that executions can be counted whatever the results say. The aim is 0 lost, 0 duplicated, 0 wrong, 0 hung.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

# Not this folder, where a file is named as a library.
sys.path[:1] = [str(Path(__file__).parents[1] / folder / "support") for folder in ("benchmarks", "tests")]

import proxy  # the tests' own
from measuring import Table, argument_parser, machine

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.local import LocalService

ANYWHERE = (
    proxy.reset_before(),
    proxy.reset_after(),
    proxy.dropped(),
    proxy.hang(1.0),
    proxy.status(500),
    proxy.status(500, forwarded=True),
    proxy.status(502),
    proxy.status(503, retry_after=1),
    proxy.status(503, forwarded=True),
    proxy.status(429, retry_after=1),
    proxy.truncated(),
    proxy.shortened(),
    proxy.corrupted(),
    proxy.html(),
    proxy.html(forwarded=True),
    proxy.dripped(0.5),
    proxy.away(0.3),
    proxy.misshapen(),
    proxy.misshapen(),  # twice as often: there are many shapes
    proxy.too_deep(),
    proxy.told_to_wait(),
    proxy.endless(),
    proxy.bomb(),
)
IN_LISTS = (proxy.omitting(), proxy.naming_twice(), proxy.unknown_status())


@dataclass
class Report:
    """How the calls of one run ended."""

    calls: int
    seconds: float
    lost: int  # ended with an exception, though none of the calls raises
    duplicated: int  # executions beyond one for each call
    wrong: int  # results that are not the call's
    hung: int  # had not ended in time
    faults: Counter[str]
    reasons: Counter[str]  # of the lost ones

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong or self.hung)


def squares(path: str) -> Callable[[int], int]:
    def noted(n: int) -> int:
        with open(path, "ab", buffering=0) as file:  # one write in append mode: lines do not mix
            file.write(b"%d\n" % n)
        return n * n

    return noted


def run(service: LocalService, url: str, calls: int, faults: Counter[str], patience: float) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        lines.touch()
        executor = ProminenceExecutor(url, service.token, resources=Resources(walltime=10), poll_interval=(0.1, 2.0))
        began = time.monotonic()
        call = squares(str(lines))
        futures = [executor.submit(call, n) for n in range(calls)]
        ended, hung = wait(futures, timeout=patience)
        took = time.monotonic() - began
        failed = [future.exception() for future in ended if future.exception() is not None]
        wrong = sum(
            future in ended and future.exception() is None and future.result() != n * n
            for n, future in enumerate(futures)
        )
        executor.shutdown(wait=not hung, cancel_futures=bool(hung))
        executions = Counter(lines.read_text().split())
    return Report(
        calls,
        took,
        lost=len(failed),
        duplicated=sum(executions.values()) - len(executions),
        wrong=wrong,
        hung=len(hung),
        faults=faults,
        reasons=Counter(f"{type(error).__name__}: {error}"[:200] for error in failed),
    )


def compare(calls: int, rate: float, seed: int, patience: float) -> tuple[Report, Report]:
    """The same calls without faults and with them, on one service."""
    with LocalService() as service:
        without = run(service, service.url, calls, Counter(), patience)
        with proxy.FaultProxy(service.url, seed=seed) as between:
            for fault in IN_LISTS:
                between.inject(fault, method="GET", path=r"^/jobs\?", probability=rate / len(IN_LISTS))
            for fault in ANYWHERE:
                between.inject(fault, probability=rate / len(ANYWHERE))
            with_faults = run(service, between.url, calls, between.injected, patience)
    return without, with_faults


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="jobs of one call each (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.1, help="part of the requests that go wrong (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the dice (default: a new one)")
    parser.add_argument("--patience", type=float, default=1800, help="seconds until a call is hung (%(default)s)")
    options = parser.parse_args()
    print(f"{machine()}, seed {options.seed}", flush=True)
    reports = compare(options.calls, options.rate, options.seed, options.patience)
    table = Table(
        ("", "<24"), ("calls", ">6"), ("seconds", ">9.1f"), ("faults", ">8"), ("lost", ">6"), ("duplicated", ">12"),
        ("wrong", ">7"), ("hung", ">6"),
    )  # fmt: skip
    for what, r in zip(("no faults", f"{options.rate:.0%} faults"), reports, strict=True):
        table.row(what, r.calls, r.seconds, sum(r.faults.values()), r.lost, r.duplicated, r.wrong, r.hung)
    without, with_faults = reports
    print(f"slow-down: {with_faults.seconds / without.seconds:.2f}")
    print("faults:", ", ".join(f"{name} {number}" for name, number in sorted(with_faults.faults.items())))
    for reason, number in with_faults.reasons.most_common():
        print(f"{number} x {reason}")
    return 0 if all(report.clean for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
