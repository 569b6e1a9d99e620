"""`Report`: where the time of a run went, what it cost, what was lost, and whether its chunks were well chosen.

Made of facts that others have gathered (`make_report`); it asks nobody. As text here, as HTML in page.py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill
from typing import Any

from ..public import public
from ..run.history import Seen
from ..run.phases import ON_SLOT, PHASES, JobSeen, Sums, phases_of
from ..run.short_calls import fit_of
from ..shown import on_terminal
from .numbers import COLUMNS, Numbers, duration
from .page import fragment, page

_BAR = 30  # characters
_WIDTH = 79
_NEARLY_ALL = 0.999


@public
@dataclass(frozen=True, repr=False)
class Report(Numbers):
    """Where the time of a run went; ``print(report)`` shows it, and a notebook does with its timeline.

    Attributes:
        run_id: whose it is.
        made: when, in seconds since the epoch.
        phases: seconds by phase, over all jobs that have ended and all warm workers: ``client`` (here), ``queue``,
            ``image``, ``stage_in``, ``start``, ``call``, ``idle`` (of warm workers), ``stage_out``, ``other``.
        jobs, calls, failed_calls: how many have ended; warm workers are no jobs here.
        failures_known: the outcomes of all jobs were read; else ``failed_calls`` may be more.
        workers: warm workers.
        lost_jobs: jobs that were killed, deleted, or have failed, and warm workers.
        repeated_jobs: jobs that were a further attempt at calls; ``reruns``: jobs that the platform ran again itself.
        cpu_hours_asked: CPUs that jobs have asked for, times the hours for which they had them.
        cpu_hours_used: those in which they were busy; None where the service does not tell.
        used_is_estimated: it tells that of a part of the jobs, which was taken for all.
        efficiency: the part of the jobs' time on their CPUs that their calls had; None where nobody knows.
        suggestion: how to do better, or nothing.
        waiting: jobs that have not ended, by their status, and ``"unsent"``.
        notes: what else is to be known of the numbers.
        used_share, fit, seen, running, offset: what text, HTML and table are made of.
    """

    # -- as text ---------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return it as lines for a terminal of 80 columns; what came from outside can do no harm there."""
        lines = [line if line.endswith("#") else fill(line, _WIDTH, subsequent_indent="  ") for line in self._lines()]
        return "\n".join([self.title(), *lines]) + "\n"

    def __str__(self) -> str:
        return self.text().rstrip("\n")

    def __repr__(self) -> str:
        return f"<Report of {self.title()}>"

    def _lines(self) -> Iterator[str]:
        if self.waiting:
            yield "not ended: " + ", ".join(f"{n} {on_terminal(word)}" for word, n in sorted(self.waiting.items()))
        whole = sum(self.phases.values())
        if whole:
            yield f"where the time went, {duration(whole)} of all jobs together:"
        for name, seconds in self.phases.items():
            if seconds and whole:
                bar = "#" * max(1, round(_BAR * seconds / whole))
                yield f"  {name:<9} {duration(seconds):>8} {seconds / whole:>4.0%}  {bar}"
        yield "cpu hours: " + self.cpu_sentence()
        if self.repeated_jobs or self.reruns:
            yield f"retries: {self.repeated_jobs} further attempts, {self.reruns} runs again by the platform"
        if self.lost_jobs:
            yield "lost: " + self.losses_sentence()
        if self.fit is not None and self.efficiency is not None:
            yield (
                f"chunks: {self.fit.calls / self.fit.jobs:.3g} calls in a job, {duration(self.fit.call)} each; "
                f"a job costs {duration(self.fit.overhead)} beside them: {self.efficiency:.0%} efficient"
            )
        if self.suggestion:
            yield f"suggestion: {self.suggestion}"
        for note in self.notes:
            yield f"note: {on_terminal(note)}"

    # -- as other things -------------------------------------------------------------------------------------------

    def html(self) -> str:
        """Return it as one HTML file with its timeline: without scripts, and without anything from elsewhere."""
        return page(self)

    def _repr_html_(self) -> str:
        return fragment(self)

    def to_json(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it; ``table`` has a row for each job. Seconds, unless a name says hours."""
        fit = self.fit
        return {
            "run_id": self.run_id,
            "made": self.made,
            "jobs": self.jobs,
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "failures_known": self.failures_known,
            "workers": self.workers,
            "waiting": dict(self.waiting),
            "phases": dict(self.phases),
            "cpu_hours_asked": self.cpu_hours_asked,
            "cpu_hours_used": self.cpu_hours_used,
            "cpu_hours_used_is_estimated": self.used_is_estimated,
            "repeated_jobs": self.repeated_jobs,
            "reruns": self.reruns,
            "lost_jobs": self.lost_jobs,
            "efficiency": self.efficiency,
            "seconds_of_a_call": None if fit is None else fit.call,
            "seconds_beside_the_calls": None if fit is None else fit.overhead,
            "suggestion": self.suggestion,
            "notes": list(self.notes),
            "table": self.rows(),
        }

    def to_dataframe(self) -> Any:
        """Return `rows` as a pandas.DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError:
            raise ImportError("a table of a report needs pandas: pip install 'prominence-executor[sweep]'") from None
        return pandas.DataFrame(self.rows(), columns=[*COLUMNS, *PHASES])


def make_report(
    run_id: str,
    seen: Seen,
    running: Sequence[JobSeen] = (),
    *,
    unsent: int = 0,
    notes: Iterable[str] = (),
    failures_known: bool = True,
) -> Report:
    """Make the report of a run.

    Args:
        seen: jobs that have ended, and warm workers.
        running: jobs that have not.
        unsent: jobs that the service does not have yet.
        failures_known: all jobs say how many of their calls have failed.
    """
    parts = [phases_of(job, seen.offset) for job in seen.jobs]
    sums = _copy(seen.beyond)
    for job, phases in zip(seen.jobs, parts, strict=True):
        sums.add(job, phases)
    jobs = sums.jobs
    for worker in seen.workers:
        sums.add(worker, phases_of(worker))
    fit = fit_of(seen.jobs, parts)
    notes = [*notes]
    if seen.beyond.jobs:
        kept = f"the {len(seen.jobs)} jobs that ended first are in table and timeline"
        notes.append(f"{kept}, {seen.beyond.jobs} more in the sums alone")
    if not any(job.calls is not None for job in seen.jobs) and any(job.task is not None for job in seen.jobs):
        notes.append("without the outcomes of the calls, their time cannot be told from the start of Python")
    silent = sum(phases_of(worker)[name] for worker in seen.workers if worker.calls is None for name in ON_SLOT)
    kept_slots = sum(sums.phases[name] for name in ON_SLOT) - silent
    known = fit is not None or any(worker.calls is not None for worker in seen.workers)
    share = sums.used / sums.asked_known if sums.asked_known else None
    shown = sorted((*seen.jobs, *seen.workers), key=lambda job: (job.is_worker, job.first, job.attempt))
    return Report(
        run_id=run_id,
        made=time.time(),
        phases=sums.phases,
        jobs=jobs,
        calls=sums.calls,
        failed_calls=sums.failed,
        failures_known=failures_known,
        workers=len(seen.workers),
        lost_jobs=sums.lost,
        repeated_jobs=sums.repeated,
        reruns=sums.reruns,
        cpu_hours_asked=sums.asked / 3600,
        cpu_hours_used=None if share is None else share * sums.asked / 3600,
        used_is_estimated=share is not None and sums.asked_known < _NEARLY_ALL * sums.asked,
        used_share=share,
        efficiency=sums.phases["call"] / kept_slots if known and kept_slots > 0 else None,
        suggestion=fit.advice if fit is not None else "",
        waiting=_waiting(running, unsent),
        notes=tuple(notes),
        fit=fit,
        seen=tuple(shown),
        running=tuple(running),
        offset=seen.offset,
    )


def _copy(sums: Sums) -> Sums:
    return Sums(**{**vars(sums), "phases": dict(sums.phases)})


def _waiting(running: Iterable[JobSeen], unsent: int) -> dict[str, int]:
    counts: Mapping[str, int] = Counter(job.status for job in running)
    return {**counts, **({"unsent": counts.get("unsent", 0) + unsent} if unsent else {})}
