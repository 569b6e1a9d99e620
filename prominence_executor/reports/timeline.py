"""The timeline of a run: a line for each job, drawn as SVG. Pure; all text in it is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..run.phases import ON_SLOT, JobSeen, phases_of
from ..shown import in_html

COLOURS = {
    "client": "#8a7f9e", "queue": "#a9adb3", "image": "#b57edc", "stage_in": "#3fb6c9", "start": "#e0a526",
    "call": "#3aa655", "idle": "#c3c7cc", "stage_out": "#4a86e8", "other": "#c08a6b",
}  # fmt: skip
_LOST = "#e5484d"
_MOST = 150  # jobs with a line
_WIDTH, _LABELS, _RIGHT = 900, 150, 12  # pixels
_AXIS = 24
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800)


class Bar(NamedTuple):
    """A part of a line; times in seconds since the epoch, by this program's clock."""

    phase: str
    begin: float
    end: float


def timeline(seen: Sequence[JobSeen], running: Sequence[JobSeen], offset: float, now: float) -> str:
    """Draw the jobs in the order in which they came; of very many, some that are evenly spread."""
    begun = [(begin, job.first, job) for job in (*seen, *running) if (begin := _begin_of(job, offset)) is not None]
    begun.sort(key=lambda one: one[:2])
    total = len(begun)
    if total > _MOST:
        begun = [begun[at * total // _MOST] for at in range(_MOST)]
    lines = [(job, bars) for _, _, job in begun if (bars := list(bars_of(job, offset, now)))]
    if not lines:
        return ""
    first = min(bars[0].begin for _, bars in lines)
    last = max(max(bar.end for bar in bars) for _, bars in lines)
    scale = (_WIDTH - _LABELS - _RIGHT) / max(last - first, 1e-3)
    height = 16 if len(lines) <= 40 else 8
    bottom = height * len(lines) + 4
    parts = [*_axis(last - first, scale, bottom)]
    for number, (job, bars) in enumerate(lines):
        parts.append(_line(job, bars, first, scale, 4 + number * height, height))
    shown = f"{len(lines)} of {total} jobs" if total > len(lines) else f"{total} jobs"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + _AXIS}" role="img" '
        f'style="max-width:100%;color:inherit" font-family="system-ui,sans-serif" font-size="11" fill="currentColor">'
        f"<title>{shown} over time</title>{''.join(parts)}</svg>"
    )


def bars_of(job: JobSeen, offset: float, now: float) -> Iterator[Bar]:
    """Return the parts of a job's line, one after the other."""
    begin = _begin_of(job, offset)
    if begin is None:
        return
    phases = phases_of(job, offset)
    if job.settled is None and job.ended is None:  # it goes on
        started = None if job.started is None else job.started - offset
        waiting = "queue" if job.sent is not None or job.created is not None else "client"
        yield Bar(waiting, begin, max(begin, min(started or now, now)))
        if started is not None:
            yield Bar("call", max(begin, started), max(begin, started, now))
        return
    at = begin
    before = 0.0
    if job.began is not None and job.sent is not None:
        before = min(max(0.0, job.sent - job.began), phases["client"])
    for name, seconds in (
        ("client", before),
        ("queue", phases["queue"]),
        *((name, phases[name]) for name in ON_SLOT),
        ("client", phases["client"] - before),
    ):
        if seconds > 0:
            yield Bar(name, at, at + seconds)
            at += seconds


def _begin_of(job: JobSeen, offset: float) -> float | None:
    """Return when a line begins, by this program's clock; None where nobody knows."""
    if job.began is not None or job.created is None:
        return job.began
    return job.created - (0.0 if job.is_worker else offset)


def _line(job: JobSeen, bars: Sequence[Bar], first: float, scale: float, top: float, height: int) -> str:
    lost = job.is_lost or bool(job.failed)
    what = f"worker {job.first}" if job.is_worker else _calls(job)
    said = [f"job {job.job_id}" if job.job_id is not None else "no job", what, job.function, job.status, job.reason]
    said += [f"{name} {seconds:.2f} s" for name, seconds in _merged(bars).items()]
    parts = [f"<g><title>{in_html(', '.join(word for word in said if word))}</title>"]
    if height >= 16:
        fill = f' fill="{_LOST}"' if lost else ""
        parts.append(
            f'<text x="{_LABELS - 6}" y="{top + height - 5}" text-anchor="end"{fill}>{_label(job, what)}</text>'
        )
    for bar in bars:
        x, width = _LABELS + (bar.begin - first) * scale, max((bar.end - bar.begin) * scale, 0.5)
        thin = bar.phase in ("client", "queue", "idle")
        inset = height * 0.35 if thin else height * 0.1
        parts.append(
            f'<rect x="{x:.1f}" y="{top + inset:.1f}" width="{width:.1f}" height="{height - 2 * inset:.1f}" '
            f'fill="{COLOURS[bar.phase]}"/>'
        )
    if lost:
        x = _LABELS + (bars[-1].end - first) * scale
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="3" height="{height}" fill="{_LOST}"/>')
    return "".join(parts) + "</g>"


def _label(job: JobSeen, what: str) -> str:
    return in_html(f"{job.job_id}: {what}" if job.job_id is not None else what, 24)


def _calls(job: JobSeen) -> str:
    numbers = f"call {job.first}" if job.size == 1 else f"calls {job.first}-{job.first + job.size - 1}"
    return numbers + (f".{job.attempt}" if job.attempt > 1 else "")


def _merged(bars: Sequence[Bar]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for bar in bars:
        sums[bar.phase] = sums.get(bar.phase, 0.0) + bar.end - bar.begin
    return sums


def _axis(seconds: float, scale: float, bottom: float) -> Iterator[str]:
    step = next((step for step in _STEPS if seconds / step <= 8), 604800.0)
    at = 0.0
    while at <= seconds and at / step < 1000:
        x = _LABELS + at * scale
        yield f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}" stroke="currentColor" stroke-opacity="0.15"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle" fill-opacity="0.8">{_moment(at, step)}</text>'
        at += step


def _moment(seconds: float, step: float) -> str:
    if step < 60:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if step < 3600 else f"{seconds / 3600:.3g} h"
