"""What the service has of a run's warm workers: what they were given, and what has come of it.

What they were given stands in their mailboxes, and what has come of it in the standard output of their jobs.
`MailboxScan` reads both; it empties nothing, and settles no futures.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ...client.client import ProminenceClient
from ...client.status import has_ended, is_held
from ...errors import NotFoundError
from ...remote.wire import verify
from ...run.chunk import HELD
from ...run.names import COURIER, CallRange, parse_worker_name
from ...run.options import WORKER_LABEL
from .mailboxes import join, mailboxes, number_in, outcomes_in


class Outcome(NamedTuple):
    """What has come of a chunk."""

    job_id: int
    records: bytes


class Place(NamedTuple):
    """Where a chunk is."""

    worker: int
    job_id: int


class MailboxScan:
    """What the service has of a run's warm workers; each `look` brings it up to date.

    Attributes:
        outcomes: of the chunks that were run; who has no use for one removes it.
        held: the chunks that workers have in their mailboxes, or had when they ended.
        active: status by job id of the workers that have not ended; `HELD` of one that is held.
        couriers: ids of the jobs that have left places for large messages.
    """

    def __init__(self, run_id: str, key: bytes, jobs: list[dict[str, Any]]) -> None:
        self.outcomes: dict[CallRange, Outcome] = {}
        self.held: dict[CallRange, Place] = {}
        self.active: dict[int, str] = {}
        self._run_id = run_id
        self._key = key
        names = {job["id"]: parse_worker_name(run_id, job["name"]) for job in jobs}
        self._workers = {job_id: number for job_id, number in names.items() if number != COURIER}
        self.couriers = names.keys() - self._workers.keys()
        self._read: dict[int, int] = {}  # bytes of each worker's standard output
        self._ended: set[int] = set()  # whose last words have been read

    @property
    def next_worker(self) -> int:
        """A number that no worker has."""
        return max((number or 0 for number in self._workers.values()), default=0) + 1

    def look(self, client: ProminenceClient) -> None:
        """Two requests, and two for each worker that has not been seen to have ended."""
        listed = client.list_jobs(constraint=(WORKER_LABEL, self._run_id))
        self.active = {job["id"]: HELD if is_held(job) else job["status"] for job in listed if not has_ended(job)}
        for job in listed:
            number = parse_worker_name(self._run_id, str(job.get("name")))
            if number != COURIER:
                self._workers.setdefault(job["id"], number)
        returned = self._returned(client)
        for job_id in self._workers.keys() - self._ended:
            if self.active.get(job_id) not in ("idle", "pending", "deploying", "waiting"):
                self._look_into_mailbox(client, job_id, returned)
                self._read_stdout(client, job_id)
            if job_id not in self.active:
                self._ended.add(job_id)

    def _look_into_mailbox(
        self, client: ProminenceClient, job_id: int, returned: Mapping[tuple[int, int], list[int]]
    ) -> None:
        worker = self._workers[job_id] or 0
        self.held = {calls: place for calls, place in self.held.items() if place.job_id != job_id}
        boxes = join(client.kv_list(f"{mailboxes(self._run_id)}/i/{worker:05d}", values=True))
        for box, (nonce, text) in boxes.items():
            batch = number_in(box.rpartition("/")[2])
            if batch is None:
                continue
            with suppress(ValueError):  # it is not signed: nobody will run it
                header, _ = verify(text, self._key, f"{nonce}:{batch}")
                for number, chunk in enumerate(header.get("chunks", ())):  # none: it was told to end
                    if number not in returned.get((worker, batch), ()):
                        self.held[CallRange(chunk["job"], len(chunk["calls"]), chunk["attempt"])] = Place(
                            worker, job_id
                        )

    def _returned(self, client: ProminenceClient) -> dict[tuple[int, int], list[int]]:
        """Which chunks of its batch a worker will not run, as they would have waited for a long one."""
        returned = {}
        for box, (_, text) in join(client.kv_list(f"{mailboxes(self._run_id)}/o", values=True)).items():
            worker = number_in(box.rpartition("/")[2])
            if worker is None:
                continue
            with suppress(ValueError):
                header, _ = verify(text, self._key, f"o{worker}")
                returned[worker, header["batch"]] = header.get("returned", [])
        return returned

    def _read_stdout(self, client: ProminenceClient, job_id: int) -> None:
        start = self._read.get(job_id, 0)
        try:
            content = client.stdout(job_id, offset=start)
        except NotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        self._read[job_id] = start + whole
        for chunk, records in outcomes_in(content[:whole], self._key):
            self.outcomes[CallRange(chunk["job"], chunk["calls"], chunk["attempt"])] = Outcome(job_id, records)
