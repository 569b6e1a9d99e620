"""The heat equation by MPI: each rank has a strip of the plate, and asks its neighbours for their edges.

    python mpi_heat.py

One call runs on all ranks of one job, and its result is the list of what the ranks have returned: here the strips.
The plate is a unit square whose edges are kept at temperature 0. It begins as a sum of two of its modes, each of
which decays by an exponential of its own, which is the exact answer.

The image needs mpirun, mpi4py and numpy; on this machine that is `apt install openmpi-bin` and `pip install mpi4py`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from prominence_executor import ProminenceExecutor, Resources

RANKS = 2
CELLS = 64
TIMES = [0.0, 0.005, 0.02, 0.05]
MODES = [(1, 1, 1.0), (3, 2, 0.8)]  # half waves along x and y, and amplitude


def plate(x: Any, y: Any, time: float) -> Any:
    """Compute the exact temperature."""
    return sum(
        amplitude
        * np.exp(-(np.pi**2) * (along_x**2 + along_y**2) * time)
        * np.outer(np.sin(np.pi * along_x * x), np.sin(np.pi * along_y * y))
        for along_x, along_y, amplitude in MODES
    )


def strip(cells: int, times: list[float]) -> tuple[int, list[Any]]:
    """Compute this rank's strip of the plate at some times; on each rank of an MPI job."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    rank, ranks = world.Get_rank(), world.Get_size()
    below = rank - 1 if rank > 0 else MPI.PROC_NULL
    above = rank + 1 if rank < ranks - 1 else MPI.PROC_NULL
    inner = np.arange(1, cells)  # the points that are not on the edge
    mine = np.array_split(inner, ranks)[rank]
    now = np.zeros((len(mine) + 2, cells + 1))  # with a row of each neighbour, or of the edge
    now[1:-1] = plate(mine / cells, np.arange(cells + 1) / cells, 0.0)
    now[:, [0, -1]] = 0.0
    step, done, seen = 0.2 / cells**2, 0, []  # 0.25 is where the explicit scheme becomes unstable
    for time in times:
        for _ in range(round(time / step) - done):
            world.Sendrecv(now[1].copy(), dest=below, recvbuf=now[-1], source=above)
            world.Sendrecv(now[-2].copy(), dest=above, recvbuf=now[0], source=below)
            around = now[:-2, 1:-1] + now[2:, 1:-1] + now[1:-1, :-2] + now[1:-1, 2:]
            now[1:-1, 1:-1] += 0.2 * (around - 4 * now[1:-1, 1:-1])
            done += 1
        seen.append(now[1:-1].copy())
    return rank, seen


def main() -> int:
    """Run the job, compare with the exact answer, and return the exit status: 0 if it is that."""
    with ProminenceExecutor(
        os.environ.get("PROMINENCE_URL", "local"),
        name="heat",
        task_type="openmpi",
        resources=Resources(nodes=1, cpus=RANKS),
        procs_per_node=RANKS,
    ) as executor:
        parts: Any = executor.submit(strip, CELLS, TIMES).result()
    print("strips of ranks", [rank for rank, _ in parts], "with rows", [len(seen[0]) for _, seen in parts])
    fields = [np.concatenate([seen[number] for _, seen in parts]) for number in range(len(TIMES))]

    places = np.arange(CELLS + 1) / CELLS
    worst = 0.0
    for time, field in zip(TIMES, fields, strict=True):
        exact = plate(places[1:-1], places, time)
        off = float(np.max(np.abs(field - exact)) / np.max(np.abs(exact)))
        print(f"t = {time:5.3f}: highest temperature {field.max():.4f}, exact {exact.max():.4f}, error {off:.1e}")
        worst = max(worst, off)

    figure, plots = plt.subplots(1, len(TIMES), figsize=(9, 2.6), layout="constrained")
    for ax, time, field in zip(plots, TIMES, fields, strict=True):
        image = ax.imshow(field.T, origin="lower", extent=(0, 1, 0, 1), cmap="coolwarm", vmin=-1.6, vmax=1.6)
        ax.axvline(len(parts[0][1][0]) / CELLS, color="black", linewidth=0.5, linestyle=":")  # where rank 1 begins
        ax.set(title=f"t = {time:g}", xticks=[], yticks=[])
    figure.colorbar(image, ax=plots, label="temperature")
    figure.savefig("mpi_heat.png", dpi=60)

    good = worst < 3e-3  # the scheme's error is of the second order in the distance of points
    print(f"largest error {worst:.1e}:", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
