"""How many requests and bytes do 1,000 calls cost, beside the loop that a user of the upstream client would write?

    python benchmarks/requests.py [--calls 1000] [--upstream 100]

Each call has 1 kB of arguments. Requests and bytes are counted where they pass: a plain proxy stands between client
and service, uploads and downloads included. All in one run on the embedded service; the upstream client's loop makes
a job, asks for its state every second and reads its output, and is scaled from fewer calls since it is slow.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Not this folder, where a file is named as a library.
sys.path[:1] = [str(Path(__file__).parents[1] / folder / "support") for folder in ("benchmarks", "tests")]

import proxy  # the tests' own
from measuring import Table, argument_parser, check, machine, seconds, upstream_loop

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.local import LocalService

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
        proxy.FaultProxy(service.url) as between,
        ProminenceExecutor(between.url, service.token, resources=Resources(walltime=10)) as executor,
    ):
        return seconds(lambda: check(run(executor, calls), expected(calls))), Counts(between)


class Counts:
    """What passed a proxy so far."""

    def __init__(self, passed: proxy.FaultProxy) -> None:
        self.requests: Counter[str] = Counter()
        for kind, number in passed.forwarded.items():
            self.requests[named(kind)] += number
        self.sent, self.received = passed.bytes_sent, passed.bytes_received


def named(kind: str) -> str:
    method, _, path = kind.partition(" ")
    if path.startswith("/prominence-objects"):
        return "PUT upload" if method == "PUT" else "GET output"
    return "DELETE /data" if kind.startswith("DELETE /data/") else kind


def upstream(service: LocalService, calls: int) -> tuple[float, Counts]:
    import prominence

    def program(n: int) -> str:
        return f"python3 -c \"open('out', 'w').write(str(ord(open('argument').read()[0]) + {n}))\""

    def loop() -> None:
        given = [prominence.InputFile("argument", ARGUMENT)]
        check(upstream_loop(calls, program, interval=1.0, input_files=given), expected(calls))

    with proxy.FaultProxy(service.url) as between:
        os.environ.update(PROMINENCE_URL=between.url, PROMINENCE_TOKEN=service.token)
        return seconds(loop), Counts(between)


def expected(calls: int) -> list[int]:
    return [ord(ARGUMENT[0]) + n for n in range(calls)]


def row(table: Table, what: str, calls: int, took: float, counts: Counts) -> None:
    kinds = dict(counts.requests)
    submit = sum(number for kind, number in kinds.items() if kind in UPLOADS)
    polls = kinds.get("GET /jobs", 0) + kinds.get("GET /jobs/id", 0)
    downloads = kinds.get("GET output", 0)
    table.row(what, calls, took, submit, polls, downloads, counts.sent / 1e6, counts.received / 1e6)
    print(f"    {kinds}")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="calls of ours (default: %(default)s)")
    parser.add_argument("--upstream", type=int, default=100, help="calls of the upstream client's loop (%(default)s)")
    options = parser.parse_args()
    print(machine())
    table = Table(
        ("", "<40"), ("calls", ">6"), ("seconds", ">9.1f"), ("submit", ">8"), ("polls", ">8"), ("downloads", ">10"),
        ("MB sent", ">9.2f"), ("MB recv", ">9.2f"),
    )  # fmt: skip
    with LocalService() as service:
        row(table, "submit in a loop", options.calls, *ours(service, options.calls, submitted))
        row(table, "map(chunksize=1)", options.calls, *ours(service, options.calls, mapped(1)))
        row(table, "map(chunksize=50)", options.calls, *ours(service, options.calls, mapped(50)))
        row(table, "upstream client's loop", options.upstream, *upstream(service, options.upstream))


if __name__ == "__main__":
    main()
