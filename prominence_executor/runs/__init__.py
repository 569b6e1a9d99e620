"""Runs and their jobs as anybody can see them from outside: list, look, follow, cancel, and fetch results.

For programs; the command line is made of it. All of it takes a `ProminenceClient`, blocks, starts no thread, and sends
nothing but what it is asked for; nothing is unpickled. It may not know how an executor works, but for how `attach`
finds a run.
"""

from .cancelling import Cancelled, cancel_run, delete_jobs
from .describing import described
from .journals import JournalKept, kept_in_journal, only_kept
from .listing import ArrayInfo, JobInfo, RunInfo, list_jobs, list_runs
from .logs import LogPiece, read_calls, read_logs
from .outcomes import CallEnd, call_ends
from .results import CallOutcome, fetch_results
from .state import RunState, run_state, watch_run
from .stored import purge_stored

__all__ = [
    "ArrayInfo",
    "CallEnd",
    "CallOutcome",
    "Cancelled",
    "JobInfo",
    "JournalKept",
    "LogPiece",
    "RunInfo",
    "RunState",
    "call_ends",
    "cancel_run",
    "delete_jobs",
    "described",
    "fetch_results",
    "kept_in_journal",
    "list_jobs",
    "list_runs",
    "only_kept",
    "purge_stored",
    "read_calls",
    "read_logs",
    "run_state",
    "watch_run",
]
