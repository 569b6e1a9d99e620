"""A dask graph: the power spectrum of a long noisy signal, averaged over pieces that are merged two by two.

    python dask_graph.py

dask takes any executor as its scheduler; it keeps the graph's order, and its tasks become calls, up to four that are
ready together in one (`chunksize=4`). The signal is what a thermally driven oscillator does, seen at even steps:
each value is a sum of the two before it and of noise. Its exact spectrum is that of an autoregressive process of the
second order (G. U. Yule, 1927).

The image needs dask and numpy.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import dask
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from prominence_executor import ProminenceExecutor

WORKERS = 2  # jobs that stay; as many as there is room for
PIECES, SEGMENTS, LENGTH = 8, 64, 1024  # so many pieces, of so many segments each, of so many values
PERIOD, DAMPING = 12.0, 0.02  # both in steps
A1, A2 = 2 * math.exp(-DAMPING) * math.cos(2 * math.pi / PERIOD), -math.exp(-2 * DAMPING)

Sums = tuple[int, Any, Any]  # how many periodograms, their sum, and the sum of their squares


def signal(seed: np.random.SeedSequence) -> Any:
    """Make one piece of the signal: segments that begin far behind the signal's start."""
    noise = np.random.default_rng(seed).normal(size=(LENGTH + 500, SEGMENTS))
    values = np.zeros_like(noise)
    for step in range(2, len(noise)):  # all segments side by side
        values[step] = A1 * values[step - 1] + A2 * values[step - 2] + noise[step]
    return values[500:].T


def spectra(seed: np.random.SeedSequence) -> Sums:
    """Sum the periodograms of a piece's segments, tapered by Hann's window, so that the peak does not leak."""
    values, window = signal(seed), np.hanning(LENGTH)
    powers = np.abs(np.fft.rfft(values * window)) ** 2 / np.sum(window**2)
    return len(values), powers.sum(0), (powers**2).sum(0)


def merge(one: Sums, other: Sums) -> Sums:
    """Add what two parts of the tree have."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def exact(frequency: Any) -> Any:
    """Compute the power at a frequency, in units of that of the noise."""
    turn = np.exp(-2j * np.pi * frequency)
    return 1 / np.abs(1 - A1 * turn - A2 * turn**2) ** 2


def main() -> int:
    """Build the graph, have it computed, compare, and return the exit status: 0 if the spectrum is the exact one."""
    seeds = np.random.SeedSequence(1927).spawn(PIECES)
    parts = [dask.delayed(spectra)(seed) for seed in seeds]
    while len(parts) > 1:
        parts = [dask.delayed(merge)(one, other) for one, other in zip(parts[::2], parts[1::2], strict=True)]
    with (
        ProminenceExecutor(
            os.environ.get("PROMINENCE_URL", "local"), name="spectrum", workers="warm", max_workers=WORKERS
        ) as executor,
        dask.config.set(scheduler=executor, chunksize=4),
    ):
        number, total, squares = parts[0].compute()

    mean = total / number
    error = np.sqrt((squares / number - mean**2) / (number - 1))
    frequency = np.fft.rfftfreq(LENGTH)
    inner = slice(5, -5)  # the window mixes the ends with themselves
    off = ((mean - exact(frequency)) / error)[inner]
    peak = frequency[np.argmax(mean)]

    figure, ax = plt.subplots(figsize=(6, 4), layout="tight")
    ax.fill_between(frequency, mean - 3 * error, mean + 3 * error, alpha=0.4, label="measured, three standard errors")
    ax.semilogy(frequency, exact(frequency), color="black", linewidth=1, label="exact")
    ax.set(xlabel="frequency / steps$^{-1}$", ylabel="power")
    ax.legend()
    figure.savefig("dask_graph.png", dpi=80)

    print(f"{number} periodograms in {2 * PIECES - 1} tasks; peak at {peak:.4f}, exact {1 / PERIOD:.4f}")
    square = float(np.mean(off**2))
    good = 0.7 < square < 1.4 and abs(peak - 1 / PERIOD) < 2 / LENGTH
    print(f"mean square of the differences in standard errors: {square:.2f}:", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
