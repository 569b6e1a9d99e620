"""How does the client bear 100 to 100,000 outstanding calls?

    python benchmarks/scale.py [--calls 100 1000 10000 100000] [--running 200] [--plot benchmarks/scale.svg]

The jobs ask for more than the service has, so that they wait there and nothing is executed; the service is a process
of its own. Measured in the client: time to submit, memory for each outstanding call (what Python has allocated, and
the process's resident size), and CPU seconds for each look at all jobs. Then calls that do run, with as many waiting
behind them: the time from the end of a call to its future's callback, beside the interval of the looks at the end.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import Table, argument_parser, machine

from prominence_executor import ProminenceExecutor, Resources

NOWHERE = Resources(cpus=1000, walltime=10)  # no slot is that large


def square(n: int) -> int:
    return n * n


def now(_: int) -> float:
    return time.time()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def outstanding(table: Table, calls: int, looks: int) -> dict[str, float]:
    with ProminenceExecutor(url="local", resources=NOWHERE, poll_interval=0.5) as executor:
        executor.submit(square, 0).cancel()
        gc.collect()
        before, began = resident(), time.perf_counter()
        futures = [executor.submit(square, n) for n in range(calls)]
        submitted = time.perf_counter() - began
        while any(future.job_id is None for future in reversed(futures)):
            time.sleep(0.1)
        accepted = time.perf_counter() - began
        gc.collect()
        rss = (resident() - before) / calls
        polls, cpu, began = executor.client.requests_sent["GET /jobs"], time.process_time(), time.perf_counter()
        while executor.client.requests_sent["GET /jobs"] < polls + looks:
            time.sleep(0.05)
        made = executor.client.requests_sent["GET /jobs"] - polls
        cpu, took = (time.process_time() - cpu) / made, (time.perf_counter() - began) / made
        requests = sum(n for kind, n in executor.client.requests_sent.items() if not kind.startswith("GET"))
        began = time.perf_counter()
        executor.shutdown(cancel_futures=True)
        cancelled = time.perf_counter() - began
    memory = allocated(calls)
    table.row(calls, submitted, accepted, requests, memory, rss, cpu * 1e3, took, cancelled)
    return {
        "submit, s": submitted,
        "accepted, s": accepted,
        "cancelled, s": cancelled,
        "CPU of a look, s": cpu,
        "resident memory, MB": rss * calls / 1e6,
    }


def allocated(calls: int) -> float:
    """Bytes that Python holds for each outstanding call once the service has accepted them; a run of its own."""
    calls = min(calls, 10_000)  # tracing makes everything slow
    with ProminenceExecutor(url="local", resources=NOWHERE, poll_interval=0.5) as executor:
        executor.submit(square, 0).cancel()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        futures = [executor.submit(square, n) for n in range(calls)]
        while any(future.job_id is None for future in reversed(futures)):
            time.sleep(0.1)
        time.sleep(1)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        executor.shutdown(cancel_futures=True)
    return held / calls


def latency(table: Table, calls: int, waiting: int) -> None:
    """From the end of a call to its callback, while many others wait."""
    delays: list[float] = []
    with ProminenceExecutor(url="local", resources=Resources(walltime=10)) as executor:
        waits = executor.with_options(resources=NOWHERE)
        behind = [waits.submit(square, n) for n in range(waiting)]
        while any(future.job_id is None for future in behind):
            time.sleep(0.1)
        futures = [executor.submit(now, n) for n in range(calls)]
        for future in futures:
            future.add_done_callback(lambda done: delays.append(time.time() - done.result()))
        polls, began = executor.client.requests_sent["GET /jobs"], time.perf_counter()
        while len(delays) < calls:
            time.sleep(0.05)
        interval = (time.perf_counter() - began) / max(1, executor.client.requests_sent["GET /jobs"] - polls) * 2
        executor.shutdown(cancel_futures=True)
    table.row(calls, waiting, statistics.median(delays), max(delays), interval)


def plot(figures: dict[int, dict[str, float]]) -> str:
    """Lines over the number of calls, both axes logarithmic, as SVG; parallel to the grey ones they are linear."""
    left, bottom, decade = 60, 440, 60  # pixels
    low = -3  # 0.001
    first, last = math.log10(min(figures)), math.log10(max(figures))
    wide = 460 / max(last - first, 1)

    def x(calls: float) -> float:
        return left + (math.log10(calls) - first) * wide

    def y(value: float) -> float:
        return bottom - (math.log10(max(value, 10.0**low)) - low) * decade

    drawn = []
    for power in range(low, low + 8):
        drawn.append(f'<text x="{left - 8}" y="{y(10.0**power) + 4:.0f}" text-anchor="end">{10.0**power:g}</text>')
        drawn.append(f'<path d="M{left} {y(10.0**power):.0f}h460" stroke="#eee"/>')
    for start in range(low, low + 8 - math.ceil(last - first)):  # y = x, shifted
        drawn.append(
            f'<path d="M{left} {y(10.0**start):.1f}L{x(max(figures)):.1f} '
            f'{y(10.0 ** (start + last - first)):.1f}" stroke="#ddd" stroke-dasharray="3"/>'
        )
    for calls in figures:
        drawn.append(f'<text x="{x(calls):.0f}" y="{bottom + 18}" text-anchor="middle">{calls:,}</text>')
    colours = ("#1b6ca8", "#3aa655", "#c0392b", "#8e44ad", "#b9770e")
    free = 0.0  # for the next label
    names = sorted(next(iter(figures.values())), key=lambda name: -figures[max(figures)][name])
    for name, colour in zip(names, colours, strict=True):
        points = [(x(calls), y(values[name])) for calls, values in figures.items()]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        free = max(free + 14, points[-1][1] + 4)
        drawn.append(f'<text x="{points[-1][0] + 6:.0f}" y="{free:.0f}" fill="{colour}">{name}</text>')
    drawn.append(f'<text x="{left + 230}" y="{bottom + 38}" text-anchor="middle">outstanding calls</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="700" height="490" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="700" height="490" fill="white"/>', *drawn, "</svg>"]) + "\n"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="outstanding ones")
    parser.add_argument("--running", type=int, default=200, help="calls that are executed (default: %(default)s)")
    parser.add_argument("--waiting", type=int, nargs="+", default=[0, 10_000], help="jobs that wait behind those")
    parser.add_argument("--looks", type=int, default=3, help="at all jobs, to be measured (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="a file for the first table as a picture (SVG)")
    options = parser.parse_args()
    print(machine())
    table = Table(
        ("calls", ">8"), ("submit s", ">10.2f"), ("accept s", ">10.2f"), ("requests", ">10"), ("B/call py", ">11.0f"),
        ("B/call rss", ">12.0f"), ("ms/look", ">10.1f"), ("s/look", ">10.2f"), ("cancel s", ">10.2f"),
    )  # fmt: skip
    figures = {calls: outstanding(table, calls, options.looks) for calls in options.calls}
    if options.plot:
        options.plot.write_text(plot(figures))
    table = Table(
        ("calls", ">8"), ("waiting", ">10"), ("median s", ">12.2f"), ("max s", ">12.2f"), ("s between looks", ">17.2f")
    )
    for waiting in options.waiting:
        latency(table, options.running, waiting)


if __name__ == "__main__":
    main()
