"""A sweep that is interrupted and goes on: the Lyapunov exponent of the logistic map, x -> r x (1 - x).

    python interrupted_sweep.py

This program starts itself, kills that first run in the middle as a failing machine would (SIGKILL: nothing is tidied
up), and then does what you would do, start the same sweep with the same store: points that were done come from the
store, the others are computed. On a service that outlives the program (PROMINENCE_URL) calls that were under way are
found and awaited, too, and none is sent twice.

Exact are: ln|2 - r| for 1 < r < 3, where one point attracts; half of ln|4 + 2 r - r^2| for 3 < r < 1 + sqrt(6),
where two do; and ln 2 for r = 4 (S. Ulam and J. von Neumann, 1947). The function is pure Python: any image will do.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from prominence_executor import ProminenceExecutor, open_sweep, sweep

AXES = {"r": [2.5 + 0.01 * step for step in range(151)]}  # up to 4
ENOUGH = 50  # points, before the first run is killed


def exponent(r: float, steps: int = 20_000) -> float:
    """Compute how fast two orbits that begin beside each other part: the mean of the logarithm of the map's slope."""
    x = 0.1234567
    for _ in range(steps // 10):  # until it is on the attractor
        x = r * x * (1 - x)
    total = 0.0
    for _ in range(steps):
        total += math.log(abs(r * (1 - 2 * x)) + 1e-300)
        x = r * x * (1 - x)
    return total / steps


def known(r: float) -> float | None:
    """Compute the exact exponent, where it is known, and not so near a bifurcation that orbits take for ever."""
    if r < 2.9:
        return math.log(abs(2 - r))
    if 3.1 < r < 3.4:
        return math.log(abs(4 + 2 * r - r * r)) / 2
    return math.log(2) if r > 3.9999 else None


def run(store: str) -> Any:
    """Compute the points that the store does not have; return all, and how many it had."""
    with (
        ProminenceExecutor(os.environ.get("PROMINENCE_URL", "local"), name="lyapunov") as executor,
        sweep(exponent, AXES, executor=executor, store=store, chunksize=8, order="spread") as scan,
    ):
        for point in scan:
            print(f"r = {point.params['r']:.2f}: {point.result():+.4f}", flush=True)
        return scan.to_dataframe(), scan.from_store


def run_and_kill(store: str) -> None:
    """Start this program on its own, and kill it when it has told enough."""
    with subprocess.Popen([sys.executable, __file__, store], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for number, _ in enumerate(first.stdout, 1):
            if number == ENOUGH:
                first.kill()
                break


def main() -> int:
    """Interrupt the sweep, let it go on, and return the exit status: 0 if nothing is lost, twice, or wrong."""
    with tempfile.TemporaryDirectory(prefix="lyapunov-") as folder:
        store = os.path.join(folder, "lyapunov.sweep")
        run_and_kill(store)
        before = open_sweep(store).to_dataframe().dropna(subset="result").set_index("r")["result"]
        table, from_store = run(store)
    after = table.set_index("r")["result"]
    print(f"the first run was killed with {from_store} of {len(after)} points in the store")

    figure, ax = plt.subplots(figsize=(7, 4), layout="tight")
    late = after.drop(before.index)
    ax.axhline(0, color="grey", linewidth=0.5)
    ax.plot(before.index, before, "o", markersize=3, label="computed before it was killed")
    ax.plot(late.index, late, "o", markersize=3, fillstyle="none", label="computed when it went on")
    exact = [math.nan if (value := known(r)) is None else value for r in after.index]
    ax.plot(after.index, exact, linewidth=1, label="exact, where it is known")
    ax.set(xlabel="r", ylabel="Lyapunov exponent", ylim=(-3, 1))
    ax.legend()
    figure.savefig("interrupted_sweep.png", dpi=80)

    kept = ENOUGH <= from_store < len(after) == len(AXES["r"])
    worst = max(abs(value - sure) for value, sure in zip(after, exact, strict=True) if not math.isnan(sure))
    good = kept and worst < 2e-2
    print(f"largest difference from what is known: {worst:.1e}:", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1])
    else:
        sys.exit(main())
