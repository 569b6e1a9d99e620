"""For how long a run waits for its service, and what it says of a job that was lost with it."""

from __future__ import annotations

import logging

import pytest

from prominence_executor.errors import JobFailedError, ProminenceError, ServiceError, ServiceUnavailableError
from prominence_executor.run.connection import ServiceHealth
from prominence_executor.run.diagnosis import job_error
from prominence_executor.service.node.outcome import RESTARTED

REFUSED = ServiceUnavailableError("POST /v1/jobs: connection refused", request_sent=False)
BROKEN_OFF = ServiceUnavailableError("POST /v1/jobs: the answer broke off")
PAGE = ServiceError("POST /v1/jobs: 502 Bad Gateway", 502)


@pytest.mark.parametrize("first", [BROKEN_OFF, PAGE])
def test_an_address_at_which_nobody_has_ever_answered_is_given_up_soon_and_others_not(first: ProminenceError) -> None:
    health = ServiceHealth("run", 900.0, logging.getLogger(), lambda: 0.0)
    health.unanswered(REFUSED)
    assert health.patience() == 10.0
    health.unanswered(first)
    health.unanswered(REFUSED)
    assert health.patience() == 900.0


def test_a_job_that_was_lost_with_its_service_says_so() -> None:
    error = job_error({"id": 5, "status": "failed", "statusReason": RESTARTED})
    assert type(error) is JobFailedError
    assert "the job was lost with the service" in str(error)
