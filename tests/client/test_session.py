"""How requests go out: repeats, the token, certificates, threads, the end of a session."""

from __future__ import annotations

import logging
import pickle
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peer import HTML_500, TOKEN, Answer, Peer, a_peer, unused_port

from prominence_executor.client import ProminenceClient
from prominence_executor.client.watching import Watch
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
)

Verb = Callable[[ProminenceClient], Any]
REFUSED = Answer(401, {"error": "Authentication failure"})


def everything_about(error: BaseException) -> str:
    """An exception's text, its causes' texts, and the attributes that a debugger would show."""
    text = ""
    current: BaseException | None = error
    while current is not None:
        text += f"{current!r} {current} {vars(current)}"
        current = current.__cause__ or current.__context__
    return text


# -- retries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Answer(503),
        Answer(502),
        Answer(504),
        Answer(429),
        Answer(500, HTML_500),
        Answer(reset=True),
        Answer(body=b'[{"id"', length=100),
        Answer(body=b'[{"id"'),
    ],
)
def test_a_request_that_may_be_repeated_is_repeated(peer: Peer, client: ProminenceClient, failure: Answer) -> None:
    peer.answer(failure, failure, Answer(body=[{"id": 5, "status": "idle"}]))
    assert client.list_jobs() == [{"id": 5, "status": "idle"}]
    assert len(peer.asked) == 3


@pytest.mark.parametrize(
    "verb",
    [
        lambda c: c.create_job({}),
        lambda c: c.create_workflow({}),
        lambda c: c.clone_job(1),
        lambda c: c.clone_workflow(1),
        lambda c: c.rerun_workflow(1),
        lambda c: c.execute(1, ["ls"]),
        lambda c: c.kv_set("a", "b", prev="c"),
    ],
)
@pytest.mark.parametrize("failure", [Answer(503), Answer(reset=True), Answer(body=b"{", length=100)])
def test_a_request_that_makes_something_is_never_repeated(
    peer: Peer, client: ProminenceClient, verb: Verb, failure: Answer
) -> None:
    peer.answer(failure)
    with pytest.raises(ServiceUnavailableError) as caught:
        verb(client)
    assert len(peer.asked) == 1
    assert caught.value.request_sent


def test_a_refused_connection_says_that_nothing_was_sent() -> None:
    with ProminenceClient(f"http://127.0.0.1:{unused_port()}", TOKEN) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="refused") as caught:
            client.create_job({})
        assert time.monotonic() - began < 2
    assert not caught.value.request_sent
    assert caught.value.__cause__ is not None


def test_an_unknown_host_says_that_nothing_was_sent() -> None:
    with ProminenceClient("http://nosuchhost.invalid/x", TOKEN) as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            client.create_job({})
    assert not caught.value.request_sent


def test_a_silent_service_times_out_and_says_that_the_request_was_sent(peer: Peer) -> None:
    peer.answer(Answer(delay=1.5))
    with ProminenceClient(peer.url, TOKEN, timeout=(2, 0.2)) as client:
        with pytest.raises(ServiceUnavailableError, match="timed out") as caught:
            client.create_job({})
    assert caught.value.request_sent


def test_a_service_that_comes_back_is_waited_for() -> None:
    port = unused_port()
    with ProminenceClient(f"http://127.0.0.1:{port}", TOKEN, retry_for=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError):
            client.list_jobs()
        assert 0.1 < time.monotonic() - began < 3
        assert client.requests_sent["GET /jobs"] > 1


def test_retry_after_is_obeyed_or_passed_on(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(503, headers={"Retry-After": "1"}), Answer(body=[]))
    began = time.monotonic()
    client.list_jobs()
    assert time.monotonic() - began >= 1
    peer.answer(Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(ServiceUnavailableError) as caught:
        client.list_jobs()
    assert caught.value.retry_after == 3600
    assert len(peer.asked) == 1


DAY = 86_400


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Wed, 21 Oct 2099 07:28:00 GMT", DAY),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("Fri, 31 Dec 9999 23:59:59 -0000", DAY),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +1400", None),
        ("9" * 5000, DAY),
        ("\u00b2", None),
        ("-5", None),
        ("1e9", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (" 7 ", 7),
    ],
)
def test_whatever_retry_after_says_it_is_a_sensible_number_or_nothing(
    peer: Peer, said: str, seconds: float | None
) -> None:
    peer.answer(Answer(503, headers={"Retry-After": said}))
    with ProminenceClient(peer.url, TOKEN, retry_for=0) as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            client.list_jobs()
    assert caught.value.retry_after in ({seconds, 0} if said.startswith("Mon") else {seconds})


def test_a_lasting_500_is_reported_soon(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(500, HTML_500))
    with pytest.raises(ServiceError):
        client.list_jobs()
    assert len(peer.asked) == 3


def test_closing_the_client_ends_the_waits_of_other_threads(peer: Peer) -> None:
    peer.answer(Answer(503))
    client = ProminenceClient(peer.url, TOKEN, retry_for=60)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.list_jobs()
        except ProminenceError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 20
    while len(peer.asked) < 4:  # by now it waits most of the time
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.close()
    thread.join(2)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(ServiceUnavailableError, match="closed") as caught:
        client.create_job({})
    assert not caught.value.request_sent


def test_twenty_threads_share_one_client(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[{"id": 5, "status": "idle"}]))
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(client.list_jobs() for _ in range(10))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[{"id": 5, "status": "idle"}]] * 200
    assert client.requests_sent["GET /jobs"] == 200


# -- the token ---------------------------------------------------------------------------------------------------------


def test_nothing_is_needed_until_the_first_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("PROMINENCE_TOKEN", raising=False)
    with ProminenceClient("http://127.0.0.1:1") as client:
        with pytest.raises(AuthenticationError, match="PROMINENCE_TOKEN"):
            client.list_jobs()
        assert not client.requests_sent


def test_a_refused_token_is_looked_up_once_more(peer: Peer) -> None:
    tokens = iter(["old", "new"])
    peer.answer(REFUSED, Answer(201, {"id": 5}))
    with ProminenceClient(peer.url, lambda: next(tokens)) as client:
        assert client.create_job({}) == 5
    assert [asked.headers["Authorization"] for asked in peer.asked] == ["Bearer old", "Bearer new"]


def test_a_token_refused_twice_is_an_authentication_error(peer: Peer) -> None:
    tokens = iter(["old", "new", "newer"])
    peer.answer(REFUSED)
    with ProminenceClient(peer.url, lambda: next(tokens)) as client:
        with pytest.raises(AuthenticationError, match="Authentication failure"):
            client.list_jobs()
    assert len(peer.asked) == 2


def test_a_token_of_which_there_is_no_other_is_not_sent_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(REFUSED)
    with pytest.raises(AuthenticationError):
        client.list_jobs()
    assert len(peer.asked) == 1


def test_the_token_is_not_sent_where_a_redirect_leads(peer: Peer, client: ProminenceClient) -> None:
    with a_peer() as other:
        other.answer(Answer(body=[]))
        peer.answer(Answer(302, headers={"Location": other.url.replace("127.0.0.1", "localhost") + "/jobs"}))
        with pytest.raises(ServiceError, match="redirected to http://localhost, which is not followed"):
            client.list_jobs()
        assert not other.asked


def test_credentials_of_netrc_are_not_used(
    peer: Peer, client: ProminenceClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer.answer(Answer(body=[]))
    client.list_jobs()
    assert peer.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    peer.answer(Answer(302, headers={"Location": peer.url + "/moved"}), Answer(body=b"x"))
    assert client.download(peer.url) == b"x"
    assert ["Authorization" in asked.headers for asked in peer.asked] == [False, False]


@pytest.mark.parametrize(
    "answer", [REFUSED, Answer(500, HTML_500), Answer(400, {"error": f"bad header Bearer {TOKEN}"}), Answer(reset=True)]
)
def test_the_token_shows_nowhere(
    peer: Peer, client: ProminenceClient, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG)
    client.api.retry_for = 1
    peer.answer(answer)
    with pytest.raises(ProminenceError) as caught:
        client.list_jobs()
    assert TOKEN not in everything_about(caught.value)
    assert TOKEN not in repr(client)
    assert TOKEN not in caplog.text
    assert any(record.name == "prominence_executor" for record in caplog.records)
    assert TOKEN.encode() not in pickle.dumps(caught.value)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client)


def test_a_service_is_not_asked_to_wait_for_less_than_a_second(peer: Peer) -> None:
    peer.answer(Answer(body=[], headers={"Preference-Applied": "wait"}), Answer(body=[]))
    seen = Watch()
    with ProminenceClient(peer.url, TOKEN, timeout=(10, 4)) as client:
        client.list_jobs(wait=50, since=seen)
        assert seen.waits
        client.api.timeout = (10, 1.5)
        seen.interrupt()
        for _ in range(2):
            client.list_jobs(wait=50, since=seen)
            assert not seen.waits
    assert [asked.headers.get("Prefer") for asked in peer.asked] == ["wait=2", None, None]


def test_a_request_that_does_not_wait_is_answered_though_it_is_interrupted(peer: Peer) -> None:
    """It is as late as the service is, and would only have to be made again."""
    peer.answer(Answer(body=[], delay=1), Answer(body=[]), Answer(body=[]))
    seen = Watch()
    with ProminenceClient(peer.url, TOKEN) as client:
        ending = threading.Timer(0.2, seen.interrupt)
        ending.start()
        assert client.list_jobs(since=seen) == []
        ending.join()
        assert len(peer.asked) == 1
        assert client.list_jobs(wait=50, since=seen) == []
        assert client.list_jobs(wait=25, since=seen) == []
    assert [asked.headers.get("Prefer") for asked in peer.asked] == ["wait=0", "wait=0", "wait=25"]


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_certificates_are_verified_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PROMINENCE_SSL_VERIFY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with a_peer(tls) as peer:
        peer.answer(Answer(body=[]))
        with ProminenceClient(peer.url, TOKEN) as client, pytest.raises(InvalidRequestError, match="TLS failed"):
            client.list_jobs()
        assert not peer.asked
        with ProminenceClient(peer.url, TOKEN, verify=certificate) as client:
            assert client.list_jobs() == []
        for variable in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as environment, ProminenceClient(peer.url, TOKEN) as client:
                environment.setenv(variable, str(certificate))
                assert client.list_jobs() == []
        with ProminenceClient(peer.url, TOKEN, verify=certificate, timeout=(10, 100)) as client:
            peer.answer(Answer(body=[], delay=3))  # it comes, unless it is not waited for
            seen = Watch()
            ending = threading.Timer(0.2, seen.interrupt)
            ending.start()
            with pytest.raises(ServiceUnavailableError):
                client.list_jobs(wait=50, since=seen)
            ending.join()
        peer.answer(Answer(body=[]))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(key))  # requests would let it overrule verify=False
        with ProminenceClient(peer.url, TOKEN, verify=False) as client:
            with pytest.warns(match="Unverified HTTPS request"):
                assert client.list_jobs() == []
