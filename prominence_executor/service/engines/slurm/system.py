"""Slurm's commands: sbatch, squeue, scancel, srun, sinfo, scontrol. Each under a time limit, since they wait for munge.

Knows no tickets. What a command has printed is understood in `words`.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence

from ..base import Limits, Room
from ..system import Batch, Place, Shape, State, SystemAway, SystemRefuses
from . import words
from .options import arguments, check_options
from .sbatch import environment, script, submitted

log = logging.getLogger("prominence_executor.local")

_SECONDS = 30.0  # that one command may take
_MOST_WORDS = 100  # of one scancel; each may name many jobs of an array
_MOST_NICE = 2_000_000_000
_NEEDED = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun")


class Slurm:
    """The Slurm that this machine's commands reach. Every method may be called from any thread.

    options: what is said to sbatch for every job, unless a job says otherwise.
    limits_seconds: after which partitions and limits are read again: sites change them.
    """

    id_variable = "SLURM_JOB_ID"
    batch_variable = "SLURM_ARRAY_JOB_ID"
    passed: tuple[str, ...] = ("SLURM_", "PMI", "OMPI_")
    on_node: tuple[str, ...] = (
        "srun", "--overlap", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--relative={node}",
        "--cpus-per-task={cpus}", "--cpu-bind=none", "--mem=0", "--mpi=none", "--input=none", "--quiet",
    )  # fmt: skip

    def __init__(self, options: Mapping[str, str], limits_seconds: float = 600.0) -> None:
        self._options = dict(options)
        check_options(self._options)
        missing = [name for name in _NEEDED if shutil.which(name) is None]
        if missing:
            raise RuntimeError(
                f"there is no {missing[0]} here: start the service where Slurm's commands are, as on a login node"
            )
        self._user = str(os.getuid())  # which may have no name here
        self._table: str | None = None  # of partitions
        self._limits: Limits | None = None
        self._read_at, self._limits_seconds = 0.0, limits_seconds
        self._array = 1
        self._has_tmp = False
        self._accounted = shutil.which("sacct") is not None

    def limits(self) -> Limits:
        """Return what the chosen partition has. Raises RuntimeError when there is none of that name."""
        return self._limits or self._read()

    def _read(self) -> Limits:
        """Read partitions and limits. Raises RuntimeError when the chosen partition is not there, and SystemAway."""
        table = self._asked(["sinfo", "-h", "-a", "-e", "-o", "%P|%c|%m|%l"])
        config = self._asked(["scontrol", "show", "config"])
        disks = self._asked(["sinfo", "-h", "-e", "-o", "%d"]).split()
        array = words.largest_array(config)
        found = words.limits(table, self._options.get("partition"), array, words.cluster(config))
        self._table, self._array, self._has_tmp = table, array, any(int(size) for size in disks if size.isdigit())
        self._limits, self._read_at = found, time.monotonic()
        return found

    def _look_again(self) -> None:
        """Read partitions and limits again when it is time; what was read last holds where that cannot be."""
        if time.monotonic() < self._read_at + self._limits_seconds:
            return
        try:
            self._read()
        except (SystemAway, RuntimeError) as error:
            self._read_at = time.monotonic()
            log.warning("partitions and limits could not be read again: %s", error)

    def room(self) -> Room:
        """Return how much the chosen partition has, and how much of it is free."""
        chosen = ["-p", self._options["partition"]] if "partition" in self._options else []
        return words.room(
            self._asked(["sinfo", "-h", "-N", *chosen, "-O", "NodeHost:|,CPUsState:|,Memory:|,AllocMem:|"])
        )

    def check(self, shape: Shape) -> None:
        """Raise SystemRefuses for options that may not be, and a walltime above the partition's."""
        options = {**self._options, **dict(shape.options)}
        self._look_again()
        try:
            check_options(options)
            there = words.limits(self._table or "", options.get("partition"), self._array)
        except (ValueError, RuntimeError) as error:
            raise SystemRefuses(str(error)) from None
        for what, wanted, most in (("CPUs", shape.cpus, there.cpus), ("GB of memory", shape.memory, there.memory)):
            if wanted > most:
                raise SystemRefuses(f"no node has {wanted} {what}; the largest of the partition has {most}")
        limit = there.walltime
        if limit is not None and shape.seconds > limit * 60:
            raise SystemRefuses(
                f"a walltime of {math.ceil(shape.seconds / 60)} minutes is above the partition's limit of {limit:g}"
            )

    def submit(self, batch: Batch) -> str:
        """Submit a batch as an array; return its number. Raises SystemRefuses, SystemFull and SystemAway."""
        code, printed, said = submitted(["sbatch", *self._words(batch)], script(batch), environment(), _SECONDS)
        if code == 0:
            number = words.submitted_as(printed)
            if number is None:  # it is looked for by its name
                raise SystemAway(f"sbatch said no number, but {printed.strip()[:200]!r}")
            return number
        raise words.why_not(said, batch.size, bool(self._asked(["squeue", "-h", "-u", self._user, "-o", "%i"]).strip()))

    def _words(self, batch: Batch) -> list[str]:
        shape = batch.shape
        wide = shape.nodes > 1
        # The node's program ends a job at its walltime, to the second; Slurm, a minute later, what it could not end.
        minutes = max(1, math.ceil(shape.seconds / 60))
        partition = {**self._options, **dict(shape.options)}.get("partition")
        limit = words.limits(self._table or "", partition, self._array).walltime
        minutes = minutes if limit is not None and minutes + 1 > limit else minutes + 1
        found = [
            "--parsable", f"--job-name={batch.name}", "--output=/dev/null", "--error=/dev/null", "--export=ALL",
            "--no-requeue", "--chdir=/", f"--nodes={shape.nodes}",
            f"--ntasks-per-node={shape.cpus if wide else 1}", f"--cpus-per-task={1 if wide else shape.cpus}",
            f"--mem={shape.memory}G", f"--time={minutes}",
            f"--nice={min(max(0, -shape.priority), _MOST_NICE)}",
        ]  # fmt: skip
        if self._has_tmp:
            found.append(f"--tmp={shape.disk}G")
        if batch.size > 1:
            found.append(f"--array=0-{batch.size - 1}")
        return found + arguments({**self._options, **dict(shape.options)})

    def poll(self, prefix: str) -> dict[Place, State]:
        """Return the states of jobs, by one squeue."""
        return words.states(self._queue(), prefix)

    def find_by_name(self, names: Iterable[str]) -> dict[str, str]:
        """Return the numbers of batches that Slurm knows still."""
        return words.numbers(self._queue(), set(names))

    def why_gone(self, job_id: str) -> str:
        """Return why a job is gone, as far as Slurm still knows: the controller, then the accounting."""
        done = self._run(["scontrol", "show", "job", job_id])
        cause = words.exit_cause(done.stdout) if done.returncode == 0 else ""
        if cause or not self._accounted:
            return cause
        try:
            done = self._run(["sacct", "-n", "-P", "-X", "-j", job_id, "-o", "State,ExitCode"])
        except SystemAway:  # there is no sacct, or its database is away
            return ""
        self._accounted = "storage is disabled" not in done.stderr
        return words.accounted_cause(done.stdout) if done.returncode == 0 else ""

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; those that are gone do no harm."""
        named = words.together(ids)
        for start in range(0, len(named), _MOST_WORDS):
            done = self._run(["scancel", "--quiet", *named[start : start + _MOST_WORDS]])
            if done.returncode and words.is_away(done.stderr):
                raise SystemAway(f"scancel: {done.stderr.strip()}")

    def numbers(self, place: Place, batch_id: str, size: int) -> str:
        """Return what scancel calls one job of a batch."""
        return f"{batch_id}_{place[1]}" if size > 1 else batch_id

    def environment(self) -> dict[str, str]:
        """Return what Slurm's commands see."""
        return environment()

    def exec_command(self, job_id: str, argv: Sequence[str]) -> list[str]:
        """Return what runs words on a job's first node, within its limits."""
        return ["srun", f"--jobid={job_id}", "--overlap", "--nodes=1", "--ntasks=1", "--quiet", "--mem=0", *argv]

    def _queue(self) -> str:
        return self._asked(["squeue", "-h", "-r", "-t", "all", "-u", self._user, "-o", words.LINE])

    def _asked(self, command: list[str]) -> str:
        done = self._run(command)
        if done.returncode:
            raise SystemAway(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    @staticmethod
    def _run(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603
                command, input=given, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
                env=environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SystemAway(f"{command[0]} did not answer within {_SECONDS:g} s") from error
        except OSError as error:
            raise SystemAway(f"{command[0]}: {error}") from error
