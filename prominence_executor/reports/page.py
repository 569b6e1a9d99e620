"""A report as HTML: one file, or a part of a notebook. No scripts, nothing from elsewhere, and all text escaped."""

from __future__ import annotations

import time

from ..run.phases import PHASES
from ..shown import facts, in_html, table
from .numbers import Numbers, duration, row_of
from .timeline import COLOURS, timeline

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
       color: #1f2328; background: #ffffff; }
table { margin: 0.5em 0 1.5em; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #14181d; } }
"""
_JOBS = 200  # that have a line in the table


def page(report: Numbers) -> str:
    """Return a whole HTML file."""
    title = in_html(f"run {report.run_id}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>{fragment(report)}{_jobs(report)}</body></html>\n"
    )


def fragment(report: Numbers) -> str:
    """Return what stands in a notebook; it has the text's colour on whatever background."""
    parts = [f"<h3>{in_html(report.title())}</h3>"]
    if report.suggestion:
        parts.append(f"<p><strong>Suggestion:</strong> {in_html(report.suggestion)}</p>")
    parts += [_phases(report), timeline(report.seen, report.running, report.offset, report.made), _numbers(report)]
    parts += [f"<p>{in_html(note)}</p>" for note in report.notes]
    return f"<div>{''.join(parts)}</div>"


def _phases(report: Numbers) -> str:
    """Draw one bar of all phases, and its legend."""
    whole = sum(report.phases.values())
    if not whole:
        return "<p>No job has ended.</p>"
    bar, rows = [], []
    for name, seconds in report.phases.items():
        if not seconds:
            continue
        share, colour = seconds / whole, COLOURS[name]
        bar.append(
            f'<span title="{in_html(name)} {duration(seconds)}" '
            f'style="display:inline-block;height:18px;width:{100 * share:.3f}%;background:{colour}"></span>'
        )
        rows.append(
            f'<div><span style="display:inline-block;width:0.8em;height:0.8em;background:{colour}"></span> '
            f"<strong>{in_html(name)}</strong> {duration(seconds)}, {share:.0%}: {in_html(PHASES[name])}</div>"
        )
    line = f'<div style="width:100%;white-space:nowrap;overflow:hidden;font-size:0">{"".join(bar)}</div>'
    return f"<p>Where the time went, {duration(whole)} of all jobs together:</p>{line}{''.join(rows)}"


def _numbers(report: Numbers) -> str:
    fit = report.fit
    waiting = ", ".join(f"{number} {word}" for word, number in sorted(report.waiting.items()))
    return facts(
        "",
        [
            ("made", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.made))),
            ("not ended", waiting or None),
            ("cpu hours", report.cpu_sentence()),
            ("further attempts", report.repeated_jobs or None),
            ("runs again by the platform", report.reruns or None),
            ("lost", report.losses_sentence() if report.lost_jobs else None),
            ("calls in a job", f"{fit.calls / fit.jobs:.3g}, {duration(fit.call)} each" if fit else None),
            ("a job costs beside them", duration(fit.overhead) if fit else None),
            ("efficiency", None if report.efficiency is None else f"{report.efficiency:.0%}"),
        ],
    )


def _jobs(report: Numbers) -> str:
    """Return the table of jobs; the longest list of them is in `Numbers.rows`."""
    rows = [row_of(job, report.offset) for job in report.seen[:_JOBS]]
    names = [name for name in PHASES if any(row[name] for row in rows)]
    lines = [
        (
            row["job"] if row["job"] is not None else "-",
            f"worker {row['worker']}" if row["worker"] is not None else _calls(row["first_call"], row["calls"]),
            row["function"],
            row["status"] + (f" ({row['reason']})" if row["reason"] else ""),
            row["attempt"],
            *(f"{row[name]:.2f}" for name in names),
        )
        for row in rows
    ]
    if not lines:
        return ""
    title = f"{len(rows)} of {len(report.seen)} jobs" if len(rows) < len(report.seen) else "Jobs"
    head = ("job", "calls", "function", "end", "attempt", *(f"{name}, s" for name in names))
    return table(title, head, lines)


def _calls(first: int, size: int) -> str:
    return f"{first}" if size == 1 else f"{first} to {first + size - 1}"
