"""A fit by scipy and emcee: the executor is `workers=executor.map` of the one, and `pool=executor` of the other.

    python fit.py

A free induction decay is made with noise (and a seed), and fitted: a least-squares function with many minima in the
frequency, whose lowest one scipy's differential evolution finds; emcee then draws from the posterior. Warm workers
take the calls, since a call is far shorter than a job's start. Checked: the minimum is one (a local method finds
nothing lower there), the truth is as far away as the noise permits, and the posterior's widths are those of the
linearised problem.

The image needs numpy; scipy and emcee are needed here (`pip install 'prominence-executor[examples]'`).
"""

from __future__ import annotations

import os
import sys
from typing import Any

import emcee
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import differential_evolution, least_squares

from prominence_executor import ProminenceExecutor

NAMES = ["amplitude", "decay time / s", "frequency / Hz", "phase / rad"]
TRUTH = np.array([1.0, 0.8, 3.3, 0.6])
BOUNDS = [(0.2, 3.0), (0.1, 3.0), (0.5, 8.0), (-np.pi, np.pi)]
SIGMA = 0.15
TIMES = np.linspace(0, 2, 120)
WORKERS = 2  # jobs that stay; as many as there is room for
WALKERS, STEPS = 32, 80  # a step is two rounds of calls: many walkers cost little more than few


def decay(parameters: Any, times: Any) -> Any:
    """Compute the signal."""
    amplitude, lifetime, frequency, phase = parameters
    return amplitude * np.exp(-times / lifetime) * np.cos(2 * np.pi * frequency * times + phase)


def misfit(parameters: Any, times: Any, data: Any) -> Any:
    """Compute the differences from the data, in units of the noise."""
    return (decay(parameters, times) - data) / SIGMA


def chi_square(parameters: Any, times: Any, data: Any) -> float:
    """Compute what the fit minimises."""
    return float(np.sum(misfit(parameters, times, data) ** 2))


def log_probability(parameters: Any, times: Any, data: Any) -> float:
    """Compute the logarithm of the posterior's density: even within the bounds."""
    inside = all(low < value < high for value, (low, high) in zip(parameters, BOUNDS, strict=True))
    return -chi_square(parameters, times, data) / 2 if inside else -np.inf


def draw(data: Any, best: Any, samples: Any, widths: Any) -> None:
    """Draw the data with the fit, and the posterior of two parameters with the linearised one's ellipse."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="tight")
    fine = np.linspace(0, 2, 400)
    left.errorbar(TIMES, data, SIGMA, fmt=".", color="grey", markersize=3, linewidth=0.5, label="data")
    for sample in samples[:: len(samples) // 40]:
        left.plot(fine, decay(sample, fine), color="tab:orange", alpha=0.1)
    left.plot(fine, decay(best, fine), color="tab:blue", label="fit")
    left.set(xlabel="time / s", ylabel="signal")
    left.legend()
    some = samples[:: len(samples) // 1500]
    right.plot(some[:, 2], some[:, 3], ".", markersize=2, alpha=0.5, label="emcee")
    angle = np.linspace(0, 2 * np.pi, 100)
    ring = 2 * np.linalg.cholesky(widths[2:, 2:]) @ [np.cos(angle), np.sin(angle)]
    right.plot(best[2] + ring[0], best[3] + ring[1], color="black", linewidth=1, label="two sigma, linearised")
    right.plot(*TRUTH[2:], "x", color="tab:red", label="truth")
    right.set(xlabel=NAMES[2], ylabel=NAMES[3])
    right.legend()
    figure.savefig("fit.png", dpi=70)


def main() -> int:
    """Fit, compare, and return the exit status: 0 if all three checks hold."""
    rng = np.random.default_rng(1946)
    data = decay(TRUTH, TIMES) + SIGMA * rng.normal(size=len(TIMES))
    with ProminenceExecutor(
        os.environ.get("PROMINENCE_URL", "local"), name="fit", workers="warm", max_workers=WORKERS
    ) as executor:
        found = differential_evolution(
            chi_square, BOUNDS, args=(TIMES, data), workers=executor.map, updating="deferred",
            popsize=8, maxiter=60, tol=1e-3, polish=False, rng=rng,
        )  # fmt: skip
        print(f"differential evolution: chi^2 = {found.fun:.2f} of {len(TIMES)} points, {found.nfev} calls")
        start = found.x + 1e-3 * rng.normal(size=(WALKERS, len(TRUTH)))
        sampler = emcee.EnsembleSampler(WALKERS, len(TRUTH), log_probability, args=(TIMES, data), pool=executor)
        sampler.random_state = np.random.RandomState(1763).get_state()
        sampler.run_mcmc(start, STEPS)

    best = least_squares(misfit, found.x, args=(TIMES, data))
    widths = np.linalg.inv(best.jac.T @ best.jac)
    samples = sampler.get_chain(discard=STEPS // 4, flat=True)
    for name, value, mean, width, exact in zip(
        NAMES, best.x, samples.mean(0), samples.std(0), np.sqrt(np.diag(widths)), strict=True
    ):
        print(f"{name:16} {value:7.4f}; emcee {mean:7.4f} +- {width:.4f}, linearised +- {exact:.4f}")
    draw(data, best.x, samples, widths)

    far = float((best.x - TRUTH) @ np.linalg.inv(widths) @ (best.x - TRUTH))  # chi^2 with 4 degrees of freedom
    ratio = samples.std(0) / np.sqrt(np.diag(widths))
    good = found.fun - 2 * best.cost < 0.5 and far < 18.5 and bool(np.all(np.abs(ratio - 1) < 0.3))
    print(f"the truth is at chi^2 = {far:.1f} (99.9 % below 18.5):", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
