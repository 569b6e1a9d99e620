"""The outcomes of a run's calls, from the service to files: verified by the run's key, and never unpickled.

The key stands in the description of each of the run's jobs; without one, nothing is fetched. A result's file is what
`ProminenceFuture.save` would have written.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..client.client import ProminenceClient
from ..client.status import has_ended
from ..client.transfers import appearing_whole
from ..errors import JobError, NotFoundError, OutcomeError, PermissionDeniedError
from ..executor.adoption import RunSnapshot
from ..executor.attach import find
from ..payload.calls import Identity
from ..payload.outcomes import Outcome, OutcomeFile, read_outcomes, verify_body
from ..payload.pickling import object_header
from ..remote.wire import FILES_FILE, OUTCOME_MAGIC
from ..run import diagnosis
from ..run.connection import Connection
from ..run.names import CallRange
from ..run.outputs import DownloadedFiles
from .outcomes import TOGETHER, kind_of, message_of

_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class CallOutcome:
    """What has come of a call.

    Attributes:
        kind: ``"result"``; ``"error"``: it raised; ``"lost"``: its job left no outcome of it; ``"open"``: it is not
            there yet.
        seconds: that it took, where that is known.
        message: of an error: its last line, or why there is no outcome, or no output files.
        paths: the files that were written: results (of an MPI call one a rank), the traceback, output files.
    """

    call: int
    kind: str
    job_id: int | None = None
    seconds: float | None = None
    message: str = ""
    paths: tuple[Path, ...] = ()


def fetch_results(
    client: ProminenceClient,
    run_id: str,
    folder: str | os.PathLike[str],
    calls: Collection[int] | None = None,
    told: Callable[[CallOutcome], None] = lambda outcome: None,
    begun: Callable[[int], None] = lambda calls: None,
) -> list[CallOutcome]:
    """Write the outcomes of a run's calls to files below a directory; return what has come of each, by number.

    ``folder/7.result`` is the result of call 7, which `load` reads; ``7.error.txt`` the traceback of what it raised;
    ``7/`` has the files that it wrote (``outputs=``). Blocks: for what `attach` asks, and a request for every fifty
    jobs and one or two for each of them.

    Args:
        calls: of these alone.
        told: called with each as soon as it is known.
        begun: called with their number, before the first one is fetched.

    Raises:
        RunNotFoundError: there is no such run, or the service does not have its key any more.
        OSError: the files cannot be written.
        ProminenceError: the service does not answer, or refuses.
    """
    snapshot = find(client, run_id, None)
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    writer = _Writer(client, run_id, snapshot.key, directory)
    wanted = last_attempts(snapshot, calls)
    warm = {} if snapshot.scan is None else snapshot.scan.outcomes
    outcomes: list[CallOutcome] = []
    begun(sum(map(len, wanted.values())))

    def settled(found: Iterator[CallOutcome]) -> None:
        for outcome in found:
            outcomes.append(outcome)
            told(outcome)

    ended = {chunk: job for chunk, job in snapshot.jobs.items() if chunk in wanted and has_ended(job)}
    for chunk in wanted:
        if chunk in warm:
            settled(writer.of_worker(chunk, wanted[chunk], warm[chunk].job_id, warm[chunk].records))
        elif chunk not in ended:
            job_id = snapshot.jobs[chunk]["id"] if chunk in snapshot.jobs else None
            settled(CallOutcome(number, "open", job_id) for number in wanted[chunk])
    waiting = list(ended)
    while waiting:
        some, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
        described = {job["id"]: job for job in client.list_jobs(ids=[ended[c]["id"] for c in some], detail=True)}
        for chunk in some:
            job = described.get(ended[chunk]["id"], ended[chunk])
            settled(writer.of_job(chunk, wanted[chunk], job))
    return sorted(outcomes, key=lambda outcome: outcome.call)


def last_attempts(snapshot: RunSnapshot, calls: Collection[int] | None = None) -> dict[CallRange, list[int]]:
    """Return by what travels together the calls whose last attempt that is; ``calls``: of these alone."""
    last: dict[int, CallRange] = {}
    for chunk in sorted({*snapshot.jobs, *snapshot.in_arrays(), *snapshot.with_workers}):
        for number in chunk.numbers():
            if number not in last or chunk.attempt >= last[number].attempt:
                last[number] = chunk
    wanted: dict[CallRange, list[int]] = {}
    for number, chunk in sorted(last.items()):
        if calls is None or number in calls:
            wanted.setdefault(chunk, []).append(number)
    return wanted


class _Writer:
    """Writes the outcomes of calls to files."""

    def __init__(self, client: ProminenceClient, run_id: str, key: bytes, folder: Path) -> None:
        self._client = client
        self._run_id = run_id
        self._key = key
        self._folder = folder
        self._connection = Connection(lambda: client)

    def of_job(self, chunk: CallRange, numbers: Collection[int], job: dict[str, Any]) -> Iterator[CallOutcome]:
        """Fetch a job's outcome file, and write what is in it of these calls."""
        url = diagnosis.outcome_url(job)
        if url is None:
            error = diagnosis.job_error(job)
            yield from (CallOutcome(number, "lost", job["id"], message=str(error)) for number in numbers)
            return
        with tempfile.TemporaryFile() as file:
            try:
                self._client.download(url, cast(BinaryIO, file))
            except (NotFoundError, PermissionDeniedError) as error:  # the store does not have it any more
                yield from (CallOutcome(number, "lost", job["id"], message=str(error)) for number in numbers)
                return
            files_url = diagnosis.output_url(job, FILES_FILE)
            yield from self._of_file(cast(BinaryIO, file), chunk, numbers, job, files_url)

    def of_worker(
        self, chunk: CallRange, numbers: Collection[int], job_id: int, records: bytes
    ) -> Iterator[CallOutcome]:
        """Write what a warm worker has said of these calls."""
        job = {"id": job_id, "status": "running"}
        yield from self._of_file(io.BytesIO(OUTCOME_MAGIC + records), chunk, numbers, job, None)

    def _of_file(
        self, file: BinaryIO, chunk: CallRange, numbers: Collection[int], job: dict[str, Any], files_url: str | None
    ) -> Iterator[CallOutcome]:
        job_id = job["id"]
        try:
            file.seek(0)
            outcomes = read_outcomes(file, self._key, Identity(self._run_id, chunk.first, chunk.attempt))
        except OutcomeError as error:
            yield from (CallOutcome(number, "lost", job_id, message=str(error)) for number in numbers)
            return
        for number in numbers:
            try:
                yield self._of_call(file, outcomes, number, number - chunk.first, chunk, job, files_url)
            except OutcomeError as error:  # it is not what was signed
                yield CallOutcome(number, "lost", job_id, message=str(error))

    def _of_call(
        self,
        file: BinaryIO,
        outcomes: OutcomeFile,
        number: int,
        position: int,
        chunk: CallRange,
        job: dict[str, Any],
        files_url: str | None,
    ) -> CallOutcome:
        outcome = outcomes.calls.get(position)
        if outcome is None:
            error = diagnosis.call_error(outcomes, position, chunk.first, job)
            return CallOutcome(number, "lost", job["id"], message=str(error))
        header = outcome.header
        verify_body(file, outcome)
        kind, message = kind_of(outcome.kind), ""
        if kind == "result":
            paths = [self._write_result(file, outcome, name, at, parts) for name, at, parts in _parts(number, outcome)]
        else:
            text = str(header.get("traceback") or header.get("error") or outcome.kind).rstrip()
            path = self._folder / f"{number}.error.txt"
            path.write_text(text + "\n", "utf-8", "backslashreplace")  # halves of surrogate pairs are in no file
            paths, message = [path], message_of(header)
        if header.get("files") is not None:
            where = str(self._folder.resolve().parent), self._folder.resolve().name
            files = DownloadedFiles(self._connection, where[1], number, job["id"], header["files"], where[0])
            try:
                paths += files.fetch(files_url).values()
            except (OutcomeError, JobError, NotFoundError) as error:
                message = f"its files: {error}"
        return CallOutcome(number, kind, job["id"], header.get("seconds"), message, tuple(paths))

    def _write_result(self, file: BinaryIO, outcome: Outcome, name: str, at: int, parts: Mapping[str, Any]) -> Path:
        """Copy a verified result, which stays as it is: no more than its place in a file of its own is written."""
        path, size = self._folder / name, int(parts["size"])
        with appearing_whole(str(path)) as target:
            target.write(object_header({"pickle": size, "buffers": [], **parts}))
            file.seek(outcome.offset + at)
            while size and (block := file.read(min(size, _BLOCK))):
                target.write(block)
                size -= len(block)
        return path


def _parts(number: int, outcome: Outcome) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Name the files of a result, and say where in the record the content of each begins: of an MPI call one a rank."""
    if outcome.kind == "result":
        yield f"{number}.result", 0, outcome.header
        return
    at = 0
    for rank, parts in enumerate(outcome.header["ranks"]):
        yield f"{number}.rank{rank}.result", at, parts
        at += int(parts["size"])
