"""Vibrational levels of diatomic molecules: a parameter sweep with a known answer.

For each molecule of ``molecules.csv`` (vibrational constants in 1/cm, reduced mass in atomic mass units; K. P. Huber
and G. Herzberg, Constants of Diatomic Molecules, 1979) and each of the lowest levels, one call solves the radial
Schroedinger equation in the molecule's Morse potential with Numerov's method, and bisects the energy by counting nodes.
P. M. Morse gave the exact levels in 1929 (Phys. Rev. 34, 57): E(v) = we (v + 1/2) - wexe (v + 1/2)^2.

    python -m prominence_executor.examples.morse [--levels 3] [--store morse.sweep] [--picture morse.png]
                                                 [--url URL] [--image IMAGE] [--workers N] [--warm]

runs on the service that --url or PROMINENCE_URL names, or else on the embedded one. Interrupted and started again, it
goes on from its store. The function is pure Python: any image will do; the table and the picture need the extra
``sweep``.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from prominence_executor import ProminenceExecutor, Resources, sweep

HBAR2_OVER_2U = 16.857629206  # hbar^2 / (2 * atomic mass unit), in Angstrom^2 / cm
TOLERANCE = 1e-6  # relative; Numerov's error is of the fourth order in the step


def morse_level(v: int, omega: float, anharmonicity: float, mass: float, points: int = 4000) -> float:
    """Compute the energy of level ``v`` in 1/cm numerically."""
    kinetic = HBAR2_OVER_2U / mass
    depth = omega**2 / (4 * anharmonicity)
    width = math.sqrt(anharmonicity / kinetic)  # the Morse parameter a, in 1/Angstrom
    guess = morse_exact(v, omega, anharmonicity)  # only to choose the interval: a wave function dies away outside it

    def potential_at(r: float) -> float:
        return depth * (1 - math.exp(-width * r)) ** 2

    def end(turning: float, stride: float) -> float:
        action, r = 0.0, turning
        while action < 16:  # the wave function has fallen to exp(-16)
            r += stride
            action += abs(stride) * math.sqrt(max(potential_at(r) - guess, 0.0) / kinetic)
        return r

    root = math.sqrt(guess / depth)
    left = end(-math.log(1 + root) / width, -0.01 / width)
    right = end(-math.log(1 - root) / width, 0.01 / width)
    step = (right - left) / points
    potential = [potential_at(left + i * step) for i in range(points + 1)]

    def nodes(energy: float) -> int:
        scale = step * step / (12 * kinetic)
        previous, current, count = 0.0, 1e-12, 0
        w_previous, w_current = 1 - scale * (potential[0] - energy), 1 - scale * (potential[1] - energy)
        for value in potential[2:]:
            w_next = 1 - scale * (value - energy)
            following = ((12 - 10 * w_current) * current - w_previous * previous) / w_next
            count += following * current < 0
            if abs(following) > 1e200:
                current, following = current * 1e-200, following * 1e-200
            previous, current = current, following
            w_previous, w_current = w_current, w_next
        return count

    low, high = 0.0, depth
    while high - low > 1e-9 * depth:
        middle = (low + high) / 2
        low, high = (low, middle) if nodes(middle) > v else (middle, high)
    return (low + high) / 2


def morse_exact(v: int, omega: float, anharmonicity: float) -> float:
    """Compute the energy of level ``v`` in 1/cm by Morse's formula."""
    return omega * (v + 0.5) - anharmonicity * (v + 0.5) ** 2


def level(molecule: str, omega: float, anharmonicity: float, mass: float, v: int) -> dict[str, float]:
    """Compute one point of the sweep: the energy of a molecule's level, in 1/cm, beside the exact one."""
    exact = morse_exact(v, omega, anharmonicity)
    computed = morse_level(v, omega, anharmonicity, mass)
    return {"energy": computed, "exact": exact, "deviation": abs(computed - exact) / exact}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--levels", type=int, default=3, help="how many levels of each molecule (default: %(default)s)")
    parser.add_argument("--store", default="morse.sweep", help="the directory of the store (default: %(default)s)")
    parser.add_argument("--picture", default="morse.png", help="the file of the picture (default: %(default)s)")
    parser.add_argument("--url", help="of the service (default: PROMINENCE_URL, or else the embedded one)")
    parser.add_argument("--image", help="with Python of this minor version (default: the executor's)")
    parser.add_argument("--workers", type=int, metavar="N", help="jobs at once (default: what the service has)")
    parser.add_argument("--warm", action="store_true", help="use jobs that stay, and take one call after the other")
    return parser.parse_args()


def main() -> int:
    """Run the sweep, print the table, and return the exit status: 0 if all levels are within the tolerance."""
    options = arguments()
    with Path(__file__).with_name("molecules.csv").open(newline="") as file:
        molecules = [
            (row["molecule"], float(row["omega_e"]), float(row["omega_e_x_e"]), float(row["reduced_mass"]))
            for row in csv.DictReader(file)
        ]
    axes: dict[Any, Any] = {
        ("molecule", "omega", "anharmonicity", "mass"): molecules,
        "v": range(options.levels),
    }
    began = time.monotonic()
    with (
        ProminenceExecutor(
            url=options.url or os.environ.get("PROMINENCE_URL", "local"),
            name="morse",
            resources=Resources(walltime=10),
            image=options.image,
            max_workers=options.workers,
            workers="warm" if options.warm else None,
        ) as executor,
        sweep(level, axes, executor=executor, store=options.store) as scan,
    ):
        print(f"run {executor.run_id}: {len(scan)} points; {scan.from_store} of them are in {options.store} already")
        for point in scan:  # as they come
            if not sys.stderr.isatty():
                molecule, v = point.params["molecule"], point.params["v"]
                print(f"{molecule}, level {v}: {point.result()['energy']:.1f} 1/cm")
        table = scan.to_dataframe()
        ax = scan.plot(x="v", y="energy", hue="molecule")
        ax.set_ylabel("energy in 1/cm")
        ax.figure.savefig(options.picture)
    print(table[["molecule", "v", "energy", "exact", "deviation"]].to_string(index=False, float_format="%.7g"))
    worst = table["deviation"].max()
    good = bool(worst <= TOLERANCE)
    print(
        f"\n{len(table)} levels in {time.monotonic() - began:.1f} s; the largest deviation, {worst:.1e}, is "
        f"{'within' if good else 'ABOVE'} the tolerance of {TOLERANCE:.0e}; the picture is {options.picture}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
