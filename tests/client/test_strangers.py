"""What is said where something else answers than the service: a web page, a proxy, another port, TLS that is none."""

from __future__ import annotations

import pytest
from peer import TOKEN, Answer, Peer, unused_port

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    ProminenceError,
    ServiceError,
)
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in, please</title></head><body>...</body></html>"


def said(peer: Peer, answer: Answer) -> ProminenceError:
    peer.answer(answer)
    with ProminenceClient(peer.url, TOKEN, retry_for=0.2) as client, pytest.raises(ProminenceError) as caught:
        client.list_jobs()
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_a_web_page_is_no_answer_of_a_service_that_never_was_there(peer: Peer) -> None:
    error = said(peer, Answer(200, PAGE))
    assert isinstance(error, InvalidRequestError)  # nobody waits for it as for a service that is away
    assert "the answer is a web page ('Log in, please'), none of the service's: is the URL right" in str(error)


def test_a_service_that_has_answered_may_come_back_behind_a_web_page(peer: Peer) -> None:
    with ProminenceClient(peer.url, TOKEN, retry_for=0.2) as client:
        peer.answer(Answer(200, []))
        assert client.list_jobs() == []
        peer.answer(Answer(200, PAGE))
        with pytest.raises(ServiceError, match="web page"):
            client.list_jobs()


def test_what_may_have_made_something_says_so(peer: Peer) -> None:
    peer.answer(Answer(200, PAGE))
    with ProminenceClient(peer.url, TOKEN) as client, pytest.raises(ServiceError) as caught:
        client.create_job({})
    assert caught.value.may_have_arrived


def test_an_address_that_the_service_does_not_have_is_doubted(peer: Peer) -> None:
    for answer in (
        Answer(404, PAGE),
        Answer(404, {"error": "404 Not Found: The requested URL was not found on the s."}),
    ):
        error = said(peer, answer)
        assert isinstance(error, NotFoundError)
        assert str(error).endswith("is the service's URL right? it is like https://host/prominence/v1")
    assert "URL" not in str(said(peer, Answer(404, {"error": "No such key"})))


def test_a_proxy_that_lets_nothing_pass_is_named(peer: Peer) -> None:
    assert "HTTPS_PROXY" in str(said(peer, Answer(407, PAGE)))


def test_a_token_that_is_refused_is_named_by_where_it_came_from(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMINENCE_TOKEN", "not-the-one")
    with ProminenceClient(service.url) as client, pytest.raises(AuthenticationError) as caught:
        client.list_jobs()
    assert str(caught.value).endswith(
        f"{service.url} does not take the token from the environment variable PROMINENCE_TOKEN"
    )
    assert "not-the-one" not in str(caught.value)


def test_https_that_is_none_is_said_at_once(service: LocalService) -> None:
    address = service.url.replace("http:", "https:")
    with ProminenceClient(address, service.token) as client:
        for verb in (client.list_jobs, lambda: client.create_job({})):
            with pytest.raises(InvalidRequestError, match=r"does the service speak http, not https\?"):
                verb()


def test_a_port_that_is_forwarded_under_another_number_is_said_at_once() -> None:
    here, there = unused_port(), unused_port()
    with LocalService(port=here, public_url=f"http://127.0.0.1:{there}/prominence/v1") as service:
        address = f"http://127.0.0.1:{here}/prominence/v1"
        with ProminenceClient(address, service.token, retry_for=60.0) as client:
            assert client.list_jobs() == []
            with pytest.raises(InvalidRequestError, match="forward that port under the same number"):
                client.upload("large", b"x" * 100)
            assert client.requests_sent["POST upload"] + client.requests_sent["PUT upload"] == 1


def test_a_prefix_may_end_with_a_slash(service: LocalService) -> None:
    with ProminenceClient(service.url, service.token) as client:
        for key in ("stranger/a", "stranger/b", "stranger2"):
            client.kv_set(key, "1")
        assert client.kv_list("stranger/") == ["/stranger/a", "/stranger/b"]
        assert client.kv_list("stranger/", values=True) == {"/stranger/a": "1", "/stranger/b": "1"}
        client.kv_delete("stranger/", prefix=True)
        assert client.kv_list("stranger") == ["/stranger2"]
        client.kv_delete("stranger2")
        for wrong in ("a//", "//", "../"):
            with pytest.raises(InvalidRequestError):
                client.kv_list(wrong)
        with pytest.raises(InvalidRequestError):
            client.kv_delete("stranger/")
