"""``prominence-executor sweep``: looks at the store of a sweep, without service and token."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..shown import harmless

if TYPE_CHECKING:
    from ..sweeps.stored import StoredSweep
    from . import AddParser


NAME, ABOUT = "sweep", "look at the store of a parameter sweep"
EXAMPLE = "show scan.sweep"


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    for name, work, about in (
        ("show", _show, "what the sweep is, and how far it has come"),
        ("results", _results, "its table, as CSV"),
        ("failed", _failed, "the points that have failed: exception, job, the end of the output"),
    ):
        command = add(name, work, about, f"{name} scan.sweep")
        command.add_argument("store", metavar="STORE", help="the directory that the sweep was given as store=")
        if name == "results":
            command.add_argument("--meta", action="store_true", help="also status, seconds, attempts, job, code")


def _show(arguments: argparse.Namespace) -> int:
    from ..sweeps.stored import open_sweep
    from ..sweeps.values import written

    scan = open_sweep(arguments.store)
    plan = scan.plan
    sys.stdout.write(harmless(f"{arguments.store}: {plan.function}, {len(scan)} points") + "\n")
    for names in plan.axes:
        values = {tuple(repr(point.params.get(name)) for name in names) for point in scan.points}
        sys.stdout.write(harmless(f"  axis {', '.join(names)}: {len(values)} values") + "\n")
    for name, value in plan.constants.items():
        sys.stdout.write(harmless(f"  constant {name} = {written(value)}") + "\n")
    if plan.repeat > 1:
        sys.stdout.write(f"  each {plan.repeat} times\n")
    if plan.seed is not None:
        sys.stdout.write(f"  root of the seeds: {plan.seed}\n")
    sys.stdout.write("  " + ", ".join(f"{number} {word}" for word, number in scan.counts().items()) + "\n")
    return 0


def _results(arguments: argparse.Namespace) -> int:
    from ..sweeps.stored import open_sweep

    text = open_sweep(arguments.store).to_csv(meta=arguments.meta)
    sys.stdout.write(harmless(text, lines=True) if sys.stdout.isatty() else text)
    return 0


def _failed(arguments: argparse.Namespace) -> int:
    from ..sweeps.stored import open_sweep
    from ..sweeps.values import assignments

    scan: StoredSweep = open_sweep(arguments.store)
    for row in scan.failed_rows():
        which = f", repeat {row.identity[1]}" if scan.has_repeats else ""
        where = f" (job {row.job_id}, run {row.run_id})" if row.job_id is not None else ""
        sys.stdout.write(harmless(f"{assignments(row.params)}{which}: {row.error}{where}") + "\n")
        for line in (row.tail or "").splitlines()[-10:]:
            sys.stdout.write(f"    {harmless(line)}\n")
    return 0
