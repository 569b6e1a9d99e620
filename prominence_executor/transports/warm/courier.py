"""How a run comes by places in the object store for large messages: a courier's job, which leaves them and ends.

A part of the scheduler, in whose thread all of it runs but what is done in the background. The job counts against
``max_workers`` while it is there, and workers make room for it. remote/courier.py is what it runs.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...client.model import Resources
from ...client.status import has_ended, is_held
from ...errors import JobFailedError, NotFoundError, ProminenceError
from ...payload.archive import runner_data, start_program
from ...payload.instructions import worker_file
from ...remote.wire import JOB_FILE, RUNNER_DATA, RUNNER_FILE
from ...run.context import RunContext
from ...run.names import COURIER, worker_name
from ...run.options import WORKER_LABEL, Options
from ...run.slots import Claim, Slots
from ..describe import describe
from .events import CourierCreated, CourierLooked, EndFailed, Event
from .lifecycle import InBackground
from .places import LONGEST_MESSAGE, PLACE, Places, addresses_in

_MOST = 64  # places; each costs the service some 30 ms when the job is described, once
_PATIENCE = 20.0  # seconds for which its job may be held, or unknown, while large calls wait for it
_BEGINS = 1.0  # seconds in which it begins where there is a place; after that, idle workers make room for it
_LOOKS = (0.05, 5.0)  # seconds between two looks whether it has ended: a part of the time since it was created


class Courier:
    """The courier of one run.

    Args:
        workers: that there are at most; each busy one may need two places.
    """

    def __init__(
        self, context: RunContext, places: Places, slots: Slots, workers: int, in_background: InBackground
    ) -> None:
        self._context = context
        self._places = places
        self._slots = slots
        self._number = min(2 * workers + 2, _MOST)  # places
        self._in_background = in_background
        self._counts = False  # its job does, against max_workers
        self._names: list[str] = []  # of its places: nobody takes them for those of another courier
        self._began = 0.0  # time.monotonic() when it was created
        self._look_at = 0.0
        self._looking = False
        self._doubted_since: float | None = None  # time.monotonic() when it was first seen to be held, or not at all
        self.wanted = False
        self.job_id: int | None = None  # while it is there

    @property
    def counts(self) -> int:
        """How many jobs of it there are."""
        return int(self._counts)

    def add_to(self, claim: Claim) -> Claim:
        """Add to what jobs want what this one does: it comes before all others, and is soon gone."""
        if self._counts:
            waits = self.job_id is not None and time.monotonic() > self._began + _BEGINS
            return Claim(claim.jobs + 1, claim.waiting, claim.first, claim.idle + waits)
        if self._is_missing():
            return Claim(claim.jobs, claim.waiting + 1, -1, claim.idle)
        return claim

    def _is_missing(self) -> bool:
        return self.wanted and not self._counts and not self._places.ready and self._places.usable

    def plan(self, options: Options | None) -> None:
        """Create the job where it is wanted and there is room, and see whether it has ended."""
        now = time.monotonic()
        if self._counts:
            if self.job_id is not None and not self._looking and now >= self._look_at:
                self._looking = True
                self._in_background(self._look, self.job_id, self._doubted_since)
        elif options is not None and self._is_missing() and self._slots.take(1):
            self._counts, self._began, self._looking = True, now, False
            group = secrets.token_hex(4)
            self._names = [f"{PLACE}-{group}-{number:02d}" for number in range(self._number)]
            self._in_background(self._create, options)

    def pause(self) -> float | None:
        """Seconds until the next look; None where there is nothing to look at."""
        return max(0.0, self._look_at - time.monotonic()) if self.job_id is not None and not self._looking else None

    def created(self, event: CourierCreated) -> None:
        """Note the job."""
        self.job_id, self._began = event.job_id, time.monotonic()
        self._look_at, self._doubted_since = self._began + _LOOKS[0], None

    def looked(self, event: CourierLooked) -> None:
        """Note whether it is over."""
        now = time.monotonic()
        self._looking = False
        self._doubted_since = (self._doubted_since or now) if event.doubtful else None
        self._look_at = now + min(max(_LOOKS[0], (now - self._began) / 10), _LOOKS[1])
        if event.over:
            self._counts, self.job_id = False, None

    # -- in the background -----------------------------------------------------------------------------------------

    def _create(self, options: Options) -> list[Event]:
        try:
            return [CourierCreated(self._context.client.create_job(self._described(options)))]
        except Exception as error:  # noqa: BLE001  whatever it is, calls go another way
            self._places.fail(error)
            return [CourierLooked(over=True)]

    def _described(self, options: Options) -> dict[str, Any]:
        context = self._context
        own = {name: value for name, value in options.env.items() if name not in ("PROMINENCE_URL", "PROMINENCE_TOKEN")}
        small = Resources(disk=options.resources.disk, walltime=options.resources.walltime)  # no large node
        options = replace(options, env=own, resources=small)
        instructions = worker_file(context.run_id, context.key, COURIER, courier=self._names)
        inputs = {RUNNER_FILE: start_program(), RUNNER_DATA: runner_data("courier"), JOB_FILE: instructions}
        description = {
            "name": worker_name(context.run_id, COURIER),
            **describe(context, options, inputs),
        }
        description["labels"][WORKER_LABEL] = context.run_id
        description["outputFiles"] = self._names
        return description

    def _look(self, job_id: int, doubted_since: float | None) -> list[Event]:
        """See whether the job has ended, and take in what it has left."""
        client = self._context.client
        try:
            active = client.list_jobs(constraint=(WORKER_LABEL, self._context.run_id))
            job = next((job for job in active if job["id"] == job_id), None)
            if job is not None and not has_ended(job) and not is_held(job):
                return [CourierLooked(over=False)]
            jobs = [job for job in client.list_jobs(ids=[job_id], detail=True) if has_ended(job)]
            if not jobs:
                if doubted_since is not None and time.monotonic() > doubted_since + _PATIENCE:
                    return self._give_up(job_id)
                return [CourierLooked(over=False, doubtful=True)]
            addresses = addresses_in(jobs[0])
            if jobs[0]["status"] != "completed" or len(addresses) < len(self._names):
                reason = jobs[0].get("statusReason") or "it has not left all of its places"
                raise JobFailedError(f"the courier ended as {jobs[0]['status']}: {reason}", job_id=job_id)
            message = client.download(addresses[self._names[0]], limit=LONGEST_MESSAGE)
            self._places.open(job_id, message.decode("ascii"), addresses)
        except (ProminenceError, ValueError) as error:
            self._places.fail(error)
        return [CourierLooked(over=True)]

    def _give_up(self, job_id: int) -> list[Event]:
        """Wait no longer for a job that may never end: calls go another way."""
        self._places.fail("the service holds the courier's job, or does not know it")
        events: list[Event] = [CourierLooked(over=True)]
        try:
            with suppress(NotFoundError):
                self._context.client.delete_jobs([job_id])
        except ProminenceError:
            events.append(EndFailed())
        return events
