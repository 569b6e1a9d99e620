"""The key-value store as a worker asks it, of a peer whose certificate no system knows."""

from __future__ import annotations

import select
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peer import TOKEN, Answer, Peer, a_peer
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from prominence_executor import ProminenceClient
from prominence_executor.client.certificates import trust_elsewhere
from prominence_executor.remote import key_value
from prominence_executor.remote.key_value import Service

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    words = [*make.split(), "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "certificate.pem"


@pytest.fixture
def peer(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    for variable in ("PROMINENCE_SSL_VERIFY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.parent / "key.pem")
    with a_peer(tls) as peer:
        monkeypatch.setenv("PROMINENCE_URL", peer.url)
        monkeypatch.setenv("PROMINENCE_TOKEN", TOKEN)
        peer.answer(Answer(body=b"value"))
        yield peer


def told(**options: Any) -> dict[str, Any]:
    """What a worker is told by a client with these options."""
    with ProminenceClient(token=TOKEN, **options) as client:
        return trust_elsewhere(client.api.verify)


@pytest.mark.parametrize("how", ["argument", "variable", "bundle", "directory", "off"])
def test_a_worker_trusts_what_its_client_trusts(
    how: str, peer: Peer, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if how == "argument":
        tls = told(verify=certificate)
    elif how == "variable":
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", str(certificate))
        tls = told()
    elif how == "bundle":
        bundle = tmp_path / "bundle.pem"
        bundle.write_text(Path(DEFAULT_CA_BUNDLE_PATH).read_text("utf-8") + certificate.read_text())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        tls = told()
        assert len(tls["certificates"]) < 2000  # the public ones stay where they are
    elif how == "directory":
        shutil.copy(certificate, tmp_path / "private.pem")
        tls = told(verify=tmp_path)
    else:
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", "False")
        tls = told()
        assert tls == {"verify": False}
    service = Service(1000.0, tls)
    assert service.call("GET", "key") == b"value"
    service.close()


def test_without_being_told_a_worker_trusts_no_private_certificate(peer: Peer) -> None:
    assert told() == {}
    service = Service(1000.0, {})
    with pytest.raises(ssl.SSLCertVerificationError):
        service.connection.request("GET", "/")
    service.close()
    assert not peer.asked


def test_a_request_that_stands_is_answered_beside_others_and_rests_after_one_that_cannot_wait(
    peer: Peer, certificate: Path, until: Callable[..., None]
) -> None:
    waits = {"Preference-Applied": "wait", "X-Revision": "7"}
    peer.answer(
        Answer(404, headers=waits, delay=0.3), Answer(body=b"other"), Answer(body=b"value", headers=waits), Answer()
    )
    service = Service(1000.0, told(verify=certificate))
    heard: list[bytes | None] = []
    watch = service.watch
    for _ in range(3):
        watch.ask("key")
        while watch.stands():
            if not heard:
                until(lambda: peer.asked)
                assert service.call("GET", "another") == b"other"
            select.select([watch], [], [], 10.0)
            heard.append(watch.answer())  # None as well while TLS has something to say for itself
    assert [value for value in heard if value is not None] == [b"value", b"{}"]
    assert [asked.query.get("since") for asked in peer.asked if asked.path.endswith("/key")] == [None, ["7"], ["7"]]
    assert {asked.headers.get("Prefer") for asked in peer.asked if asked.path.endswith("/key")} == {"wait=50"}
    watch.ask("key")
    assert not watch.stands()
    service.close()


def test_a_request_whose_connection_is_dead_does_not_stand_for_ever(
    peer: Peer, certificate: Path, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answer(Answer(delay=1.0))
    service = Service(1000.0, told(verify=certificate))
    service.watch.ask("key")
    service.watch.end_if_late()
    assert service.watch.stands()
    monkeypatch.setattr(key_value, "WAIT", -key_value.LATE)
    service.watch.end_if_late()
    assert not service.watch.stands()
    service.watch.ask("key")
    assert not service.watch.stands()
    until(lambda: len(peer.asked) == 1)
    service.close()


def test_a_request_that_was_cut_or_refused_while_it_waited_does_not_wait_again(peer: Peer, certificate: Path) -> None:
    waits = {"Preference-Applied": "wait"}
    peer.answer(Answer(404, headers=waits), Answer(504), Answer(reset=True), Answer(body=b"value"))
    service = Service(1000.0, told(verify=certificate))
    assert service.call("GET", "key", wait=50) is None
    assert service.call("GET", "key", wait=50) == b"value"
    assert [asked.headers.get("Prefer") for asked in peer.asked] == ["wait=50", "wait=50", None, None]
    assert not service.waits  # says the 504
    service.close()


def test_a_worker_without_a_token_says_where_the_service_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMINENCE_URL", "http://127.0.0.1:1/prominence/v1")
    monkeypatch.setenv("PROMINENCE_TOKEN", "")
    with pytest.raises(SystemExit, match=r"listens on 127\.0\.0\.1 of another machine.*--bind ADDRESS"):
        Service(10.0)


@pytest.mark.parametrize("first", [Answer(500), Answer(reset=True), Answer(body=b"<html>")], ids=["500", "cut", "page"])
def test_a_request_that_was_left_is_made_again_if_nothing_came_of_it(
    first: Answer, peer: Peer, certificate: Path
) -> None:
    peer.answer(first, Answer(), Answer(body=b"value"))
    service = Service(1000.0, told(verify=certificate))
    service.leave("DELETE", "key")
    assert service.call("GET", "other") == b"value"
    service.close()
    asked = [(asked.method, asked.path.rpartition("/")[2]) for asked in peer.asked]
    assert asked[-1] == ("GET", "other")
    assert set(asked[:-1]) == {("DELETE", "key")}


def test_the_answer_to_a_request_that_was_left_is_no_others(peer: Peer, certificate: Path) -> None:
    deleted = Answer(headers={"Connection": "close"})
    peer.answer(Answer(404), Answer(body=b"value"), deleted, Answer(body=b"deleted"), Answer(body=b"another"))
    service = Service(1000.0, told(verify=certificate))
    service.leave("DELETE", "key")
    assert service.call("GET", "other") == b"value"
    service.leave("DELETE", "key")
    service.leave("DELETE", "key2")
    assert service.call("GET", "other") == b"another"
    service.close()
    assert [asked.method for asked in peer.asked] == ["DELETE", "GET", "DELETE", "DELETE", "GET"]
