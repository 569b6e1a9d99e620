"""The commands about runs and their calls: arguments to calls of `prominence_executor.runs`, what returns to text.

It may not hold logic that a program would miss.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..shown import harmless
from .account import connected
from .terminal import Columns, LiveTable, duration, moment, numbers, print_json, print_table

if TYPE_CHECKING:
    from ..runs import CallOutcome, JobInfo, RunInfo, RunState
    from ..runs.logs import Stream
    from . import AddParser

_JOBS = Columns(
    ("calls", "job", "status", "function", "started", "time", "reason"), ("calls", "job", "status"), ("started",)
)
_RUNS = Columns(("run", "state", "calls", "jobs", "function", "created"), ("run", "state"), ("created", "calls"))
_OUTCOMES = Columns(("call", "outcome", "job", "seconds", "file", "message"), ("call", "outcome", "job"), ("seconds",))


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    command = add("runs", _runs, "list the runs that have active jobs, or all", "runs --all --json")
    command.add_argument("--all", action="store_true", help="also those that have ended")
    command.add_argument("--json", action="store_true", help="as JSON")
    command = add("show", _show, "what a run is doing: its jobs and calls", "show px-20260101-120000-abc123")
    _run(command)
    command.add_argument("--status", metavar="WORD", help="only jobs of this status: running, failed, ...")
    command.add_argument("--json", action="store_true", help="as JSON")
    command = add(
        "watch",
        _watch,
        "watch a run until it has ended; status 1 if a job has failed",
        "watch px-20260101-120000-abc123",
    )
    _run(command)
    command.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="default: 2")
    command = add("logs", _logs, "what the calls of a run have printed", "logs px-20260101-120000-abc123 7 --follow")
    _run(command)
    _calls(command)
    command.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended, or these calls")
    command.add_argument("--stream", choices=("stdout", "stderr", "both"), default="both", help="default: both")
    command = add("cancel", _cancel, "end a run, or some of its calls", "cancel px-20260101-120000-abc123 7 8")
    _run(command)
    _calls(command)
    command.add_argument("--together", action="store_true", help="with the calls that share a job with these")
    command = add(
        "results", _results, "write the results of a run's calls to files", "results px-20260101-120000-abc123 -o out"
    )
    _run(command)
    _calls(command)
    command.add_argument("-o", "--output", required=True, metavar="DIR", help="the directory; made if it is not there")
    command.add_argument("--json", action="store_true", help="as JSON")

    command = add("report", _report, "where the time of a run went", "report px-20260101-120000-abc123 --html run.html")
    _run(command)
    command.add_argument("--html", metavar="FILE", help="write it to a file for a browser")
    command.add_argument("--json", action="store_true", help="as JSON")


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="the run's id, as `runs` lists it")


def _calls(command: argparse.ArgumentParser) -> None:
    command.add_argument("call", nargs="*", type=_call, metavar="CALL", help="its number in the run; default: all")
    command.set_defaults(more=("call", _call))


def _call(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a call")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 on")
    return seconds


def _runs(arguments: argparse.Namespace) -> int:
    from ..runs import list_runs

    with connected(arguments) as client:
        found = list_runs(client, all=arguments.all)
    if arguments.json:
        print_json(found)
    elif found:
        print_table(
            _RUNS,
            [
                (
                    info.run_id,
                    "active" if info.active else "ended",
                    str(info.calls or ""),
                    _counts(info),
                    ", ".join(info.functions) or ("(warm workers)" if info.all_workers else ""),
                    moment(info.created),
                )
                for info in found
            ],
        )
    else:
        which = "there are no runs" if arguments.all else "no run has active jobs; --all lists those that have ended"
        print(which, file=sys.stderr)
    return 0


def _counts(info: RunInfo) -> str:
    return ", ".join(f"{count} {word}" for word, count in info.jobs.items())


def _show(arguments: argparse.Namespace) -> int:
    from ..runs import run_state

    with connected(arguments) as client:
        state = run_state(client, arguments.run)
    jobs = [job for job in state.jobs if arguments.status in (None, job.status)]
    if arguments.json:
        print_json({"run": state.info, "jobs": jobs, "arrays": state.arrays})
        return 0
    print(_title(state))
    if state.info.all_workers:
        print("calls of warm workers do not show in lists; `results` finds their outcomes")
    if jobs:
        print()
        print_table(_JOBS, _rows(jobs))
    return 0


def _title(state: RunState) -> str:
    info = state.info
    calls = f"{info.calls} calls" if info.calls else f"{info.all_workers} warm workers"
    functions = f" of {', '.join(info.functions)}" if info.functions else ""
    how = "active" if info.active else f"ended {moment(info.ended)}".rstrip()
    return harmless(f"run {info.run_id}, {how}: {calls}{functions}; jobs: {_counts(info)}")


def _rows(jobs: Iterable[JobInfo]) -> list[Sequence[str]]:
    return [
        (
            f"worker {job.worker}" if job.worker is not None else numbers(job.calls) + _attempt(job),
            str(job.id),
            job.status,
            job.function,
            moment(job.started),
            duration(job.seconds()),
            job.reason,
        )
        for job in jobs
    ]


def _attempt(job: JobInfo) -> str:
    return f" (attempt {job.attempt})" if job.attempt > 1 else ""


def _watch(arguments: argparse.Namespace) -> int:
    from ..runs import watch_run

    with connected(arguments) as client, LiveTable() as table:
        for state in watch_run(client, arguments.run, arguments.interval):
            shown = sorted(state.jobs, key=lambda job: (not job.active, -job.id))
            table.show(_title(state), _JOBS, _rows(shown))
    last = [job for job in state.calls().values() if job is not None]
    lost = [job for job in state.jobs if job.worker is not None and job.status in ("killed", "failed")]
    return 1 if lost or any(job.status != "completed" for job in last) else 0


def _logs(arguments: argparse.Namespace) -> int:
    from ..runs import read_logs, run_state

    streams: Sequence[Stream] = ("stdout", "stderr") if arguments.stream == "both" else (arguments.stream,)
    with connected(arguments) as client:
        state = run_state(client, arguments.run)
        jobs = {job.id: job for call in arguments.call for job in state.jobs_of(call)[-1:]}
        missing = {call for call in arguments.call if not state.jobs_of(call)}
        if missing:
            print(f"no job of run {harmless(arguments.run)} shows call {min(missing)}", file=sys.stderr)
        chosen = list(jobs.values()) if arguments.call else list(state.jobs)
        last: object = None
        for piece in read_logs(
            client, chosen, streams, follow=arguments.follow, run_id=arguments.run, calls=arguments.call
        ):
            missing -= set(piece.job.calls)
            several = len(piece.job.calls) > 1 or [job.id for job in chosen] != [piece.job.id]
            if last != (piece.job.id, piece.stream) and several:
                _write(f"==> {_who(piece.job)}, {piece.stream} <==\n".encode(), "stderr")
            last = piece.job.id, piece.stream
            _write(piece.content, piece.stream)
    return 1 if missing else 0


def _who(job: JobInfo) -> str:
    calls = f"calls {numbers(job.calls)}" if len(job.calls) > 1 else f"call {numbers(job.calls)}"
    return f"{f'worker {job.worker}' if job.worker is not None else calls} (job {job.id})"


def _write(content: bytes, stream: str) -> None:
    """Write what a job has printed: as it is into a pipe or file, with its escapes made harmless to a terminal."""
    file = sys.stdout if stream == "stdout" else sys.stderr
    if file.isatty():
        file.write(harmless(content.decode("utf-8", "replace"), lines=True))
    else:
        file.flush()
        file.buffer.write(content) if hasattr(file, "buffer") else file.write(content.decode("utf-8", "replace"))
    file.flush()


def _cancel(arguments: argparse.Namespace) -> int:
    from ..runs import cancel_run

    with connected(arguments) as client:
        done = cancel_run(client, arguments.run, arguments.call or None, together=arguments.together)
    print(f"{len(done.jobs)} jobs deleted" + (f", {len(done.workflows)} workflows" if done.workflows else ""))
    if done.calls:
        print(f"no active job: calls {', '.join(map(str, done.calls))}", file=sys.stderr)
    if done.unmade:
        listed = ", ".join(map(str, done.unmade))
        print(f"their array has not made a job yet: calls {listed}; cancel the run, or try again", file=sys.stderr)
    return 1 if done.calls or done.unmade else 0


def _results(arguments: argparse.Namespace) -> int:
    from ..runs import fetch_results

    with connected(arguments) as client:
        outcomes = fetch_results(client, arguments.run, arguments.output, arguments.call or None)
    if arguments.json:
        print_json(outcomes)
    else:
        print_table(_OUTCOMES, map(_row, outcomes))
    missing = set(arguments.call) - {outcome.call for outcome in outcomes}
    if missing:
        print(f"nothing is known of calls {', '.join(map(str, sorted(missing)))}", file=sys.stderr)
    return 0 if not missing and all(outcome.kind == "result" for outcome in outcomes) else 1


def _report(arguments: argparse.Namespace) -> int:
    from ..reports.service import report_of

    with connected(arguments) as client:
        report = report_of(client, arguments.run)
    if arguments.html:
        with open(arguments.html, "w", encoding="utf-8") as file:
            file.write(report.html())
    if arguments.json:
        print_json(report.to_json())
    elif not arguments.html:
        print(harmless(report.text(), lines=True))
    return 0


def _row(outcome: CallOutcome) -> Sequence[str]:
    return (
        str(outcome.call),
        outcome.kind,
        "" if outcome.job_id is None else str(outcome.job_id),
        "" if outcome.seconds is None else f"{outcome.seconds:.2f}",
        str(outcome.paths[0]) if outcome.paths else "",
        outcome.message.partition("\n")[0],
    )
