"""What is said of a service that does not answer: one line for each outage, and one when it answers again."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from peer import TOKEN, Answer, a_peer, unused_port

from prominence_executor.client import ProminenceClient
from prominence_executor.client.outages import Outages, is_outage, why
from prominence_executor.errors import NotFoundError, ServiceError, ServiceUnavailableError, TransferError

PLACE = "http://there:8080/v1"
REFUSED = ServiceUnavailableError(
    "POST /v1/jobs: the service at there:8080 does not answer (connection refused)", request_sent=False
)
BROKEN_OFF = ServiceUnavailableError("GET /v1/jobs: the answer broke off")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.INFO, "prominence_executor")
    kept, log = Kept(), logging.getLogger("prominence_executor")
    log.addHandler(kept)
    yield kept.lines
    log.removeHandler(kept)


def test_an_outage_has_one_line_and_its_end_another(clock: Clock, lines: list[logging.LogRecord]) -> None:
    outages = Outages(lambda: 900.0, clock)
    for _ in range(50):
        outages.unanswered(PLACE, REFUSED, clock.now)
        clock.now += 0.5
    outages.answered(PLACE)
    outages.answered(PLACE)
    assert [(line.levelname, line.getMessage()) for line in lines] == [
        (
            "WARNING",
            f"no answer from {PLACE} (connection refused): asking again for up to 900 s; Ctrl-C ends that",
        ),
        ("INFO", f"{PLACE} answers again, after 25 s"),
    ]
    outages.unanswered(PLACE, REFUSED, clock.now)
    clock.now += 3.0
    outages.unanswered(PLACE, REFUSED, clock.now)
    assert [line.levelname for line in lines] == ["WARNING", "INFO", "WARNING"]  # the next outage has its own


def test_an_answer_that_is_missed_for_a_moment_is_not_worth_a_line(
    clock: Clock, lines: list[logging.LogRecord]
) -> None:
    outages = Outages(lambda: 900.0, clock)
    for _ in range(10):
        outages.unanswered(PLACE, BROKEN_OFF, clock.now - 60.0)  # it may have been cut here after a long wait
        clock.now += 1.9
        outages.answered(PLACE)
        clock.now += 1.0
    assert not lines


def test_a_connection_that_does_not_come_about_counts_from_its_beginning(
    clock: Clock, lines: list[logging.LogRecord]
) -> None:
    outages = Outages(lambda: 900.0, clock)
    outages.answered(PLACE)
    clock.now += 1.0
    outages.unanswered(PLACE, REFUSED, clock.now - 10.0)  # others were answered meanwhile
    assert not lines
    clock.now += 10.0
    outages.unanswered("http://elsewhere", REFUSED, clock.now - 10.0)
    assert [line.levelname for line in lines] == ["WARNING"]


def test_nothing_is_said_where_the_error_itself_comes_in_a_moment(clock: Clock, lines: list[logging.LogRecord]) -> None:
    outages = Outages(lambda: 5.0, clock)
    for _ in range(5):
        outages.unanswered(PLACE, REFUSED, clock.now)
        clock.now += 1.0
    outages.answered(PLACE)
    assert not lines


def test_what_means_an_outage_and_how_it_is_told_in_a_few_words() -> None:
    assert is_outage(REFUSED)
    assert is_outage(ServiceUnavailableError("GET /v1/jobs: HTTP 503", 503))
    assert not is_outage(ServiceUnavailableError("too much to list", 400))
    assert not is_outage(ServiceError("GET /v1/jobs: HTTP 500", 500))
    assert not is_outage(NotFoundError("no such job"))
    assert why(REFUSED) == "connection refused"
    assert why(BROKEN_OFF) == "the answer broke off"
    assert why(ServiceUnavailableError("GET /v1/jobs: \x1b[31mred\nand more")) == "\\x1b[31mred\\nand more"
    assert len(why(ServiceUnavailableError("GET /v1/jobs: " + "x" * 1000))) < 200


def test_a_client_says_that_it_asks_again_and_never_its_token(lines: list[logging.LogRecord]) -> None:
    url = f"http://127.0.0.1:{unused_port()}/v1"
    with ProminenceClient(url, TOKEN, retry_for=6.0) as client:
        with pytest.raises(ServiceUnavailableError):
            client.list_jobs()
    warnings = [line.getMessage() for line in lines if line.levelno >= logging.WARNING]
    assert warnings == [f"no answer from {url} (connection refused): asking again for up to 6 s; Ctrl-C ends that"]
    assert not [line for line in lines if TOKEN in line.getMessage()]


def test_a_store_is_named_without_path_query_or_password_unless_it_is_the_service(
    lines: list[logging.LogRecord],
) -> None:
    port = unused_port()
    store = f"http://127.0.0.1:{port}"
    with ProminenceClient("http://127.0.0.1:9/v1", TOKEN, retry_for=900.0) as client:
        outages = client.api.outages = Outages(lambda: 900.0, clock := Clock())
        for _ in range(3):
            with pytest.raises(TransferError):
                client.api.call_store("GET", f"http://user:secret@127.0.0.1:{port}/name?Signature=secret")
            clock.now += 3.0
        assert not outages.reached
    warnings = [line.getMessage() for line in lines if line.levelno >= logging.WARNING]
    assert warnings == [f"no answer from {store} (connection refused): asking again for up to 900 s; Ctrl-C ends that"]


def test_a_service_that_answers_but_takes_no_files_is_told_too(lines: list[logging.LogRecord]) -> None:
    full = Answer(507, {"error": "no space is left on the service's disk"})
    with a_peer() as peer, ProminenceClient(peer.url, TOKEN) as client:
        client.api.outages = Outages(lambda: 900.0, clock := Clock())
        peer.answers.extend([*[full, Answer(200, [])] * 3, Answer(200, b""), Answer(200, [])])
        for _ in range(3):
            with pytest.raises(TransferError):
                client.api.call_store("PUT", peer.url + "/uploads/name?Signature=secret", b"x")
            clock.now += 1.5
            client.list_jobs()
        client.api.call_store("PUT", peer.url + "/uploads/name", b"x")
    assert [line.getMessage() for line in lines if "for files" in line.getMessage()] == [
        f"no answer from {peer.url} for files (no space is left on the service's disk (HTTP 507)): "
        "asking again for up to 900 s; Ctrl-C ends that",
        f"{peer.url} for files answers again, after 4 s",
    ]
