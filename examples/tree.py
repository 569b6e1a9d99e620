"""A tree reduction: pieces of a table are counted apart, and the counts are merged two by two, where they are.

    python tree.py --pieces 8 --url local --warm

No result but the last one is looked at here: each call has the futures of two others as its arguments. Small counts
travel in the calls; with `--bins 200000` they are large, and go from job to job.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from prominence_executor import ProminenceExecutor

T = TypeVar("T")


def count(piece: int, rows: int, bins: int) -> list[int]:
    """Count the rows of a piece of the table by their values."""
    counts = [0] * bins
    for row in range(piece * rows, (piece + 1) * rows):
        counts[row * row % bins] += 1
    return counts


def merge(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Add two counts."""
    return [a + b for a, b in zip(left, right, strict=True)]


def reduce_tree(executor: ProminenceExecutor, join: Callable[[T, T], T], parts: Sequence[Future[T]]) -> Future[T]:
    """Join results two by two until one is left; returns at once."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        joined: list[Future[T]] = [executor.submit(join, *pair) for pair in pairs]  # type: ignore[arg-type]
        parts = [*joined, *(parts[-1:] if len(parts) % 2 else [])]
    return parts[0]


def main() -> None:
    """Count a table, and check that none is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--rows", type=int, default=10_000, help="of each piece")
    parser.add_argument("--bins", type=int, default=10)
    parser.add_argument("--url", help="of the service, or 'local'; by default PROMINENCE_URL")
    parser.add_argument("--warm", action="store_true", help="with warm workers")
    chosen = parser.parse_args()
    with ProminenceExecutor(chosen.url, workers="warm" if chosen.warm else None) as executor:
        parts = [executor.submit(count, piece, chosen.rows, chosen.bins) for piece in range(chosen.pieces)]
        counts = reduce_tree(executor, merge, parts).result()
    print(f"{sum(counts)} rows of {chosen.pieces} pieces in {len(counts)} bins")
    print("none is missing" if sum(counts) == chosen.pieces * chosen.rows else "some are missing")


if __name__ == "__main__":
    main()
