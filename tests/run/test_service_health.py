"""For how long a run waits for its service."""

from __future__ import annotations

import logging

import pytest

from prominence_executor.errors import ProminenceError, ServiceError, ServiceUnavailableError
from prominence_executor.run.connection import ServiceHealth

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
