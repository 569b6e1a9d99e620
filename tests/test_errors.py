"""What each kind of error says to a program that must decide whether to try again."""

from __future__ import annotations

import pickle

import pytest

from prominence_executor import errors
from prominence_executor.errors import (
    AuthenticationError,
    BrokenRunError,
    InvalidRequestError,
    JobFailedError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    TransferError,
)


@pytest.mark.parametrize(
    ("error", "may_have_arrived"),
    [
        (ServiceUnavailableError("read timed out"), True),
        (ServiceUnavailableError("busy", 503), True),
        (ServiceUnavailableError("connection refused", request_sent=False), False),
        (ServiceError("Internal Server Error", 500), True),
        (ServiceError("the answer is not JSON", 200), True),
        (TransferError("the store hung up"), False),  # a file is sent again; no job came of it
        (InvalidRequestError("refused", 400), False),
        (NotFoundError("no such job", 400), False),
        (KeyValueConflictError("another value", 400), False),
        (AuthenticationError("expired"), False),
        (PermissionDeniedError("somebody else's"), False),
        (BrokenRunError("no token"), False),
    ],
)
def test_an_error_says_whether_the_request_may_have_been_carried_out(
    error: ProminenceError, may_have_arrived: bool
) -> None:
    assert error.may_have_arrived is may_have_arrived


def test_only_a_500_is_the_servers_fault() -> None:
    assert ServiceError("Internal Server Error", 500).is_server_fault
    for error in (
        ServiceError("not JSON", 200),
        ServiceUnavailableError("bad gateway", 502),
        ServiceUnavailableError("no answer"),
        InvalidRequestError("refused", 400),
        TransferError("cut short"),
    ):
        assert not error.is_server_fault


def test_every_error_has_a_status_and_a_time_to_wait_or_none() -> None:
    assert ServiceUnavailableError("later", 429, retry_after=3.0).retry_after == 3.0
    assert InvalidRequestError("refused", 413).status_code == 413
    for error in (TransferError("x"), AuthenticationError("x"), JobFailedError("x"), ServiceUnavailableError("x")):
        assert error.status_code is None
        assert error.retry_after is None


def test_a_message_that_is_completed_later_shows_everywhere() -> None:
    error = JobFailedError("the job was deleted", job_id=3)
    error.message += " by terminate()"
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert repr(one) == "JobFailedError('the job was deleted by terminate()')"
        assert str(one) == "the job was deleted by terminate() (job 3)"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_prominence_error_and_survives_a_pickle(name: str) -> None:
    error = getattr(errors, name)("why")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ProminenceError if name.endswith("Error") else UserWarning)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_an_error_says_of_its_request_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(ServiceUnavailableError("x", 503, request_sent=False, retry_after=2.0)))
    assert (error.status_code, error.retry_after, error.may_have_arrived) == (503, 2.0, False)
