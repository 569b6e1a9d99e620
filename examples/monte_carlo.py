"""Monte Carlo with error bars and seeds: the energy of Ising's magnet, beside the exact one.

    python monte_carlo.py

Each point of the sweep is one temperature and one repeat, and gets a seed of its own that no other point changes:
the same root gives the same numbers again, on any machine and in any order. A call runs chains of Metropolis'
algorithm, many at a time, on a lattice of 8 x 8 spins with periodic edges; the error bars come from how the repeats
differ. B. Kaufman gave the exact partition function of such a lattice in 1949 (Phys. Rev. 76, 1232).

The calls need numpy in their image, the picture needs matplotlib.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from prominence_executor import ProminenceExecutor, sweep

SIDE = 8
TEMPERATURES = [1.6, 1.9, 2.1, 2.2, 2.269, 2.35, 2.5, 2.8, 3.2]  # in units of the coupling; 2.269 is Onsager's
REPEATS = 8


def energy(temperature: float, seed: int, chains: int = 24, sweeps: int = 800) -> float:
    """Compute the mean energy of a spin, in units of the coupling, by Metropolis' algorithm."""
    rng = np.random.default_rng(seed)
    spins = np.ones((chains, SIDE, SIDE), np.int8)
    spins[::2] = rng.choice(np.array([-1, 1], np.int8), (len(spins[::2]), SIDE, SIDE))  # half begin hot, half cold
    even = np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2 == 0
    accept = np.exp(-2 * np.arange(-4, 5) / temperature)  # by the product of a spin and the sum of its neighbours
    total, measured = 0.0, 0
    for number in range(sweeps):
        for colour in (even, ~even):  # a spin's neighbours are of the other colour: all of one colour move at once
            field = np.roll(spins, 1, 1) + np.roll(spins, -1, 1) + np.roll(spins, 1, 2) + np.roll(spins, -1, 2)
            flip = (rng.random(spins.shape) < accept[spins * field + 4]) & colour
            spins = np.where(flip, -spins, spins)
        if number >= sweeps // 4:  # what came before has forgotten the start
            total -= float(np.mean(spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))))
            measured += 1
    return total / measured


def log_partition(coupling: float, side: int) -> float:
    """Compute the logarithm of the partition function by Kaufman's formula."""
    double = 2 * coupling
    gammas = [double + math.log(math.tanh(coupling))]
    gammas += [
        math.acosh(math.cosh(double) / math.tanh(double) - math.cos(math.pi * r / side)) for r in range(1, 2 * side)
    ]
    products = []
    for first in (0, 1):
        halves = [side * gamma / 2 for gamma in gammas[first::2]]
        products.append(math.prod(2 * math.cosh(half) for half in halves))
        products.append(math.prod(2 * math.sinh(half) for half in halves))
    return math.log(sum(products) / 2) + side * side / 2 * math.log(2 * math.sinh(double))


def exact_energy(temperature: float, side: int = SIDE) -> float:
    """Compute the mean energy of a spin, in units of the coupling, of an infinitely long run."""
    coupling, step = 1 / temperature, 1e-5
    slope = (log_partition(coupling + step, side) - log_partition(coupling - step, side)) / (2 * step)
    return -slope / side**2


def draw(mean: Any, error: Any) -> None:
    """Draw the energies with their errors, and below how far they are from the exact ones."""
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(6, 5), height_ratios=[3, 1], layout="tight")
    fine = np.linspace(1.5, 3.3, 200)
    above.plot(fine, [exact_energy(t) for t in fine], color="grey", label=f"exact, {SIDE} x {SIDE} spins")
    above.errorbar(TEMPERATURES, mean, error, fmt=".", capsize=2, label=f"Monte Carlo, {REPEATS} seeds each")
    above.set_ylabel("energy of a spin / J")
    above.legend()
    below.axhline(0, color="grey")
    below.errorbar(
        TEMPERATURES, 1000 * (mean - [exact_energy(t) for t in TEMPERATURES]), 1000 * error, fmt=".", capsize=2
    )
    below.set(xlabel="temperature / J", ylabel="difference / 0.001")
    figure.savefig("monte_carlo.png", dpi=80)


def main() -> int:
    """Run the sweep, compare, and return the exit status: 0 if the errors explain the differences."""
    axes = {"temperature": TEMPERATURES}
    with (
        ProminenceExecutor(os.environ.get("PROMINENCE_URL", "local"), name="ising") as executor,
        sweep(energy, axes, repeat=REPEATS, seed=1925, executor=executor, chunksize=6) as scan,
    ):
        scan.wait()
        table = scan.to_dataframe()
    energies = np.array([table[table["temperature"] == t]["result"] for t in TEMPERATURES])
    mean, error = energies.mean(1), energies.std(1, ddof=1) / math.sqrt(REPEATS)
    exact = np.array([exact_energy(t) for t in TEMPERATURES])
    for row in zip(TEMPERATURES, mean, error, exact, (mean - exact) / error, strict=True):
        print("T = {:5.3f}: {:8.5f} +- {:.5f}, exact {:8.5f}, {:+.1f} standard errors".format(*row))
    draw(mean, error)
    # The errors are estimates from few repeats, so that the squares below are on average (n - 1) / (n - 3), not 1.
    square = float(np.mean(((mean - exact) / error) ** 2)) * (REPEATS - 3) / (REPEATS - 1)
    good = 0.1 < square < 3 and float(np.max(np.abs(mean - exact))) < 0.01
    print(f"mean square of the differences: {square:.2f} (1 is expected):", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
