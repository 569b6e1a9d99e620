"""What an answer of the service means, and which exception an error becomes."""

from __future__ import annotations

import time

import pytest
from peer import HTML_500, Answer, Peer

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import (
    InvalidRequestError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (Answer(400, {"error": "cmd must be a string"}), InvalidRequestError, "cmd must be a string"),
        (Answer(403, {"error": "Not authorized to access this job"}), PermissionDeniedError, "Not authorized"),
        (Answer(404, {"error": "No such key"}), NotFoundError, "No such key"),
        (Answer(400, {"error": "No such job(s)"}), NotFoundError, "No such job"),
        (Answer(400, {"error": "No such workflow(s)"}), NotFoundError, "No such workflow"),
        (Answer(400, {"error": "Atomic replacement not successful"}), KeyValueConflictError, "Atomic"),
        (Answer(413, b"<html><head><title>413 Request Entity Too Large</title>"), InvalidRequestError, "Too Large"),
        (Answer(405, b"<title>405 Method Not Allowed</title>"), InvalidRequestError, "Method Not Allowed"),
        (Answer(500, HTML_500), ServiceError, "Internal Server Error"),
        (Answer(502, b""), ServiceUnavailableError, "502"),
        (Answer(200, {"error": "invalid status specified"}), InvalidRequestError, "invalid status specified"),
        (Answer(200, b"<html>login</html>"), InvalidRequestError, "is a web page"),
        (Answer(200, {"id": 1}), ServiceError, "not a list"),
    ],
)
def test_each_kind_of_failure_has_its_exception(
    peer: Peer, client: ProminenceClient, answer: Answer, kind: type[Exception], sentence: str
) -> None:
    peer.answer(answer)
    client.api.retry_for = 0.5
    with pytest.raises(ProminenceError, match=sentence) as caught:
        client.list_jobs()
    assert type(caught.value) is kind
    assert caught.value.status_code == answer.status
    assert "GET /prominence/v1/jobs" in str(caught.value)
    assert "<" not in str(caught.value)  # no page


def test_an_empty_list_is_a_job_that_does_not_exist(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[]))
    with pytest.raises(NotFoundError):
        client.describe_job(5)


def test_a_job_missing_from_one_answer_is_asked_for_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[]), Answer(body=[{"id": 5, "status": "idle"}]))
    assert client.describe_job(5) == {"id": 5, "status": "idle"}


def test_output_of_a_job_that_is_just_ending_is_asked_for_again(peer: Peer, client: ProminenceClient) -> None:
    missing = Answer(400, {"error": "Job does not exist"})
    peer.answer(missing, missing, missing, Answer(body=b"hi\n"))
    assert client.stdout(5) == b"hi\n"
    peer.answer(missing)
    began = time.monotonic()
    with pytest.raises(NotFoundError, match="Job does not exist"):
        client.stdout(5)
    assert 1 < time.monotonic() - began < 6


def test_an_unhealthy_service_is_described_not_raised(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(409, {"errors": "HTCONDOR_SCHEDD"}))
    assert client.health() == {"errors": "HTCONDOR_SCHEDD"}
