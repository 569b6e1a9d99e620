"""The commands about runs and their calls: arguments to calls of `prominence_executor.runs`, what returns to text.

It may not hold logic that a program would miss.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import InvalidRequestError, RunNotFoundError
from ..shown import harmless
from .account import connected
from .terminal import (
    Columns,
    LiveTable,
    counted,
    duration,
    for_scripts,
    moment,
    numbers,
    paragraph,
    print_json,
    print_table,
    ranges,
)

if TYPE_CHECKING:
    from ..runs import CallEnd, CallOutcome, JobInfo, LogPiece, RunInfo, RunState
    from ..runs.logs import Stream
    from . import AddParser

_FOLLOWS = 900.0  # seconds for which the service may be away while a run is followed
_JOBS = Columns(
    ("calls", "job", "status", "function", "started", "time", "reason"), ("calls", "job", "status"), ("started",)
)
_RUNS = Columns(("run", "state", "calls", "jobs", "function", "created"), ("run", "state"), ("created", "calls"))
_ENDS = ("result", "error", "lost", "open")
_OUTCOMES = Columns(("call", "outcome", "job", "seconds", "file", "message"), ("call", "outcome", "job"), ("seconds",))


def add_to(add: AddParser) -> None:
    """Add the commands; each parser's ``work`` runs one and returns the exit status."""
    command = add("runs", _runs, "list the runs that have active jobs, or all", "runs --all --json")
    command.add_argument("--all", action="store_true", help="also those that have ended")
    for_scripts(command)
    command = add("show", _show, "what a run is doing: its jobs and calls", "show px-20260101-120000-abc123")
    _run(command)
    command.add_argument("--status", metavar="WORD", help="only jobs of this status: running, failed, ...")
    command.add_argument(
        "--outcomes",
        choices=("some", "all", "none"),
        default="some",
        help="read how calls have ended: of the 20 newest jobs (the default), all, or none; a request for each",
    )
    _journal(command)
    for_scripts(command)
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
    for_scripts(command)

    command = add("report", _report, "where the time of a run went", "report px-20260101-120000-abc123 --html run.html")
    _run(command)
    command.add_argument("--html", metavar="FILE", help="write it to a file for a browser")
    _journal(command)
    for_scripts(command)


def _journal(command: argparse.ArgumentParser) -> None:
    command.add_argument("--journal", metavar="FILE", help="of the run, if it is here: it has what was not sent yet")


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
    from ..runs import JournalKept, RunState, call_ends, kept_in_journal, only_kept, run_state
    from ..runs.outcomes import FEW, readable

    asked = arguments.journal is not None
    kept = kept_in_journal(arguments.journal, arguments.run) if asked else JournalKept()
    with connected(arguments) as client:
        try:
            state = run_state(client, arguments.run)
        except RunNotFoundError:
            if not kept.chunks:
                raise
            state = RunState(arguments.run, (), ())
        most = {"some": FEW, "all": None, "none": 0}[arguments.outcomes]
        ends = call_ends(client, arguments.run, state.jobs, most)
    jobs = [job for job in state.jobs if arguments.status in (None, job.status)]
    left = len(readable(state.jobs)) - len(ends)
    unsent = only_kept(kept, state, chain.from_iterable(ends.values()))
    if kept.note:
        print(harmless(kept.note), file=sys.stderr)
    if arguments.json:
        known = sorted(chain.from_iterable(ends.values()), key=lambda end: (end.call, end.attempt))
        said = {"run": state.info, "jobs": jobs, "arrays": state.arrays, "ends": known, "ends_missing": left}
        print_json({**said, "only_in_journal": unsent} if asked and not kept.note else said)
        return 0
    print(paragraph(_title(state, ends)))
    if unsent:
        print(paragraph(f"in the journal alone, as far as the service shows: {ranges(unsent)}"))
    elif asked and not kept.note:
        print("the journal has nothing that the service does not show")
    if state.info.all_workers and not ends:
        print("calls of warm workers do not show in lists; `results` finds their outcomes")
    if jobs:
        print()
        print_table(_JOBS, _rows(jobs, ends))
    if left:
        hint = "" if most is None else "; --outcomes all asks for them all"
        print(f"how calls have ended was not read of {counted(left, 'job')}{hint}", file=sys.stderr)
    return 0


def _title(state: RunState, ends: Mapping[int, Sequence[CallEnd]] = MappingProxyType({})) -> str:
    info = state.info
    if not state.jobs and not state.arrays:
        return f"run {info.run_id}: the service has no jobs of it"
    calls = [counted(info.calls, "call")] if info.calls else []
    calls += [counted(info.all_workers, "warm worker")] if info.all_workers else []
    functions = f" of {', '.join(info.functions)}" if info.functions else ""
    how = "active" if info.active else f"ended {moment(info.ended)}".rstrip()
    return f"run {info.run_id}, {how}: {' and '.join(calls)}{functions}; jobs: {_counts(info)}{_ended(ends)}"


def _ended(ends: Mapping[int, Sequence[CallEnd]]) -> str:
    from ..runs.outcomes import counted_ends

    counts = counted_ends(end for several in ends.values() for end in several)
    words = (("result", "with a result"), ("error", "raised"), ("lost", "lost"))
    said = ", ".join(f"{counts[kind]} {word}" for kind, word in words if counts[kind])
    return f"; calls: {said}" if said else ""


def _rows(jobs: Iterable[JobInfo], ends: Mapping[int, Sequence[CallEnd]] = MappingProxyType({})) -> list[Sequence[str]]:
    from ..runs.outcomes import failures_in

    return [
        (
            f"worker {job.worker}" if job.worker is not None else numbers(job.calls) + _attempt(job),
            str(job.id),
            job.status,
            job.function,
            moment(job.started),
            duration(job.seconds()),
            job.reason or failures_in(ends.get(job.id, ())),
        )
        for job in jobs
    ]


def _attempt(job: JobInfo) -> str:
    return f" (attempt {job.attempt})" if job.attempt > 1 else ""


def _watch(arguments: argparse.Namespace) -> int:
    from ..runs import watch_run

    with connected(arguments) as client, LiveTable() as table:
        for state in watch_run(client, arguments.run, arguments.interval):
            client.api.retry_for = _FOLLOWS  # it has answered, so it is only away for a while
            shown = sorted(state.jobs, key=lambda job: (not job.active, -job.id))
            table.show(_title(state), _JOBS, _rows(shown))
    last = [job for job in state.calls().values() if job is not None]
    lost = [job for job in state.jobs if job.worker is not None and job.status in ("killed", "failed")]
    return 1 if lost or any(job.status != "completed" for job in last) else 0


def _logs(arguments: argparse.Namespace) -> int:
    from ..runs import read_calls, read_logs, run_state

    streams: Sequence[Stream] = ("stdout", "stderr") if arguments.stream == "both" else (arguments.stream,)
    with connected(arguments) as client:
        state = run_state(client, arguments.run)
        if arguments.follow:
            client.api.retry_for = _FOLLOWS
        own = read_calls(client, state, set(arguments.call), streams) if arguments.call else {}
        calls = [call for call in arguments.call if call not in own]
        jobs = {job.id: job for call in calls for job in state.jobs_of(call)[-1:]}
        missing = {call for call in calls if not state.jobs_of(call)}
        if missing:
            print(f"no job of run {harmless(arguments.run)} shows call {min(missing)}", file=sys.stderr)
        chosen = list(jobs.values()) if arguments.call else list(state.jobs)
        several = len(chosen) + len(own) > 1
        last: object = None
        for piece in chain.from_iterable(own.values()):
            last = _print_piece(piece, last, several)
        if calls or not arguments.call:
            for piece in read_logs(client, chosen, streams, follow=arguments.follow, run_id=arguments.run, calls=calls):
                missing -= set(piece.job.calls)
                sharing = len(piece.job.calls) > 1 or [job.id for job in chosen] != [piece.job.id]
                last = _print_piece(piece, last, several or sharing)
    return 1 if missing else 0


def _print_piece(piece: LogPiece, last: object, heading: bool) -> object:
    """Print what a job, or a call, has printed, below a heading where it is not that of before; return whose it is."""
    whose = piece.job.id, piece.stream, piece.call
    if piece.content:
        if last != whose and heading:
            _write(f"==> {_who(piece)}, {piece.stream} <==\n".encode(), "stderr")
        _write(piece.content, piece.stream)
    return whose


def _who(piece: LogPiece) -> str:
    job = piece.job
    if piece.call is not None:
        who = f"call {piece.call}"
    elif job.worker is not None:
        who = f"worker {job.worker}"
    else:
        who = f"call{'s' * (len(job.calls) > 1)} {numbers(job.calls)}"
    return f"{who} (job {job.id})"


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
        try:
            done = cancel_run(client, arguments.run, arguments.call or None, together=arguments.together)
        except RunNotFoundError:
            raise
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{error} (--together)") from None
    if not arguments.call and not done.jobs and not done.workflows:
        print("nothing was to be done: the run has no active job", file=sys.stderr)
        return 0
    workflows = f", {counted(len(done.workflows), 'workflow')}" if done.workflows else ""
    print(f"{counted(len(done.jobs), 'job')} deleted{workflows}")
    if done.calls:
        print(f"no active job: {_named(done.calls)}", file=sys.stderr)
    if done.unmade:
        print(
            f"their array has not made a job yet: {_named(done.unmade)}; cancel the run, or try again", file=sys.stderr
        )
    return 1 if done.calls or done.unmade else 0


def _named(calls: Sequence[int]) -> str:
    return f"call{'s' * (len(calls) > 1)} {', '.join(map(str, calls))}"


def _results(arguments: argparse.Namespace) -> int:
    from ..progress import ProgressBar
    from ..runs import fetch_results

    came: Counter[str] = Counter()
    with connected(arguments) as client, ExitStack() as shown:
        bars: list[ProgressBar] = []

        def begun(calls: int) -> None:
            bars.append(shown.enter_context(ProgressBar("results", calls, lambda: came, _ENDS, None)))

        def told(outcome: CallOutcome) -> None:
            came[outcome.kind] += 1
            bars[0].look()

        outcomes = fetch_results(client, arguments.run, arguments.output, arguments.call or None, told, begun)
    if arguments.json:
        print_json(outcomes)
    else:
        print_table(_OUTCOMES, map(_row, outcomes))
    missing = set(arguments.call) - {outcome.call for outcome in outcomes}
    if missing:
        print(f"nothing is known of {_named(sorted(missing))}", file=sys.stderr)
    return 0 if not missing and all(outcome.kind == "result" for outcome in outcomes) else 1


def _report(arguments: argparse.Namespace) -> int:
    from ..runs.report import report_of

    with connected(arguments) as client:
        report = report_of(client, arguments.run, journal=arguments.journal)
    if arguments.html:
        with open(arguments.html, "w", encoding="utf-8") as file:
            file.write(report.html())
    if arguments.json:
        print_json(report.to_json())
    elif not arguments.html:
        print(harmless(str(report), lines=True))
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
