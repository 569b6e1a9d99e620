"""Over a connection that stands a request fares as over a new one, where urllib3 does all: results, errors, reuse."""

from __future__ import annotations

import gzip
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from peer import TOKEN
from raw_peer import CLOSE, OK, RawPeer, a_raw_peer

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import ProminenceError

LISTED = b'[{"/a": "1"}, {"/b": "2"}]'
STATUSES = {
    200: b"OK", 201: b"CREATED", 302: b"FOUND", 400: b"BAD REQUEST", 401: b"UNAUTHORIZED", 403: b"FORBIDDEN",
    404: b"NOT FOUND", 409: b"CONFLICT", 412: b"PRECONDITION FAILED", 413: b"TOO LARGE", 429: b"TOO MANY",
    500: b"ERROR", 503: b"AWAY",
}  # fmt: skip


def said(status: int, body: bytes = b"", *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, STATUSES[status]), *headers]
    lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refused(status: int, *headers: bytes) -> list[bytes]:
    return [said(status, b'{"error": "a sentence"}', b"Content-Type: application/json", *headers)]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS: dict[str, tuple[list[bytes], bool]] = {  # and whether the connection can be used again
    "a list": ([said(200, LISTED)], True),
    "a list in two pieces": ([said(200, LISTED[:9], length=len(LISTED)), LISTED[9:]], True),
    "a head in two pieces": ([said(200, LISTED)[:20], said(200, LISTED)[20:]], True),
    "a long list": ([said(200, b"[" + b" " * 300_000 + b"]")], True),
    "in chunks": ([CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(LISTED), LISTED)], True),
    "in chunks one by one": (
        [CHUNKED, b"9\r\n" + LISTED[:9] + b"\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(LISTED) - 9, LISTED[9:])],
        True,
    ),
    "chunks without an end": ([CHUNKED + b"9\r\n" + LISTED[:9] + b"\r\n", CLOSE], False),
    "compressed": ([said(200, gzip.compress(LISTED), b"Content-Encoding: gzip")], True),
    "an interim answer": ([b"HTTP/1.1 100 Continue\r\n\r\n" + said(200, LISTED)], True),
    "the last of its connection": ([said(200, LISTED, b"Connection: close"), CLOSE], False),
    "an older protocol": ([said(200, LISTED).replace(b"HTTP/1.1", b"HTTP/1.0"), CLOSE], False),
    "no length": ([b"HTTP/1.1 200 OK\r\n\r\n" + LISTED, CLOSE], False),
    "folded headers": ([said(200, LISTED, b"X-Long: a\r\n b")], True),
    "cut short": ([said(200, LISTED, length=100), CLOSE], False),
    "nothing": ([CLOSE], False),
    "half a head": ([b"HTTP/1.1 200 OK\r\nContent-", CLOSE], False),
    "no HTTP": ([b"+OK ready\r\n\r\n", CLOSE], False),
    "lengths that differ": ([said(200, LISTED, b"Content-Length: 2"), CLOSE], False),
    "a header without end": ([b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000, CLOSE], False),
    "no JSON": ([said(200, b"[{")], True),
    "a page": ([said(200, b"<html>", b"Content-Type: text/html")], True),
    "an error with status 200": ([said(200, b'{"error": "invalid"}')], True),
    "somewhere else": ([said(302, b"", b"Location: http://elsewhere.example/a?b")], True),
    "refused": (refused(400), True),
    "away for a while": (refused(503, b"Retry-After: 7"), True),
    "too much": (refused(429, b"Retry-After: 3"), True),
    "an error that tells the token": ([said(400, b'{"error": "bad ' + TOKEN.encode() + b'"}')], True),
    "an error cut short": ([said(500, b"ab", length=50), CLOSE], False),
    **{f"status {status}": (refused(status), True) for status in (401, 403, 404, 409, 412, 413, 500)},
    "a value in conflict": ([said(400, b'{"error": "Atomic replacement not successful"}')], True),
}  # fmt: skip


def outcome(client: ProminenceClient, verb: str) -> Any:
    """What comes of a request: a value, or all that an error says of itself."""
    verbs: dict[str, Callable[[], Any]] = {
        "list": lambda: client.kv_list("a", values=True),
        "get": lambda: client.kv_get("a"),
        "set": lambda: client.kv_set("a", "value", prev="other"),
        "delete": lambda: client.kv_delete("a", prefix=True),
    }
    try:
        return verbs[verb]()
    except ProminenceError as error:
        text = re.sub(r"port=\d+|127.0.0.1:\d+|Response ended prematurely|IncompleteRead.*", "", str(error))
        shown = {name: str(value) for name, value in vars(error).items()}
        told = TOKEN in f"{error!r} {error.__cause__!r} {shown}"
        return type(error), text, told, shown.get("status_code"), shown.get("retry_after"), shown.get("request_sent")


def both_ways(peer: RawPeer, answer: list[bytes], verb: str, until: Any, *, stays: bool) -> list[Any]:
    found = []
    for stands in (False, True):
        with ProminenceClient(peer.url, TOKEN, timeout=(5, 5), retry_for=0) as client:
            peer.script.append(OK if stands else [*OK, CLOSE])
            client.kv_get("first")
            if not stands:
                until(lambda: not peer.serving())
            before = peer.connections
            asked = len(peer.asked)
            peer.script.append(answer)
            found.append(outcome(client, verb))
            assert not peer.script
            assert len({re.sub(rb"(?m)^(Host|User-Agent).*\r\n", b"", each) for each in peer.asked[asked:]}) == 1
            assert peer.connections - before == (0 if stands else 1)
            assert client.kv_get("after") == "fine"
            assert peer.connections - before == (0 if stands else 1) + (0 if stays else 1)
    return found


@pytest.mark.parametrize(
    ("verb", "what"),
    [("list", what) for what in ANSWERS]
    + [("set", what) for what in ("a value in conflict", "a page", "away for a while", "nothing", "cut short")],
)
def test_an_answer_means_the_same_over_a_connection_that_stands(verb: str, what: str, until: Any) -> None:
    answer, stays = ANSWERS[what]
    with a_raw_peer() as peer:
        new, standing = both_ways(peer, answer, verb, until, stays=stays)
    assert new == standing
    assert not (isinstance(new, tuple) and new[2]), "it tells the token"


def test_requests_are_the_same_over_a_connection_that_stands() -> None:
    with a_raw_peer() as peer:
        for verb, answer in (("list", [said(200, LISTED)]), ("get", OK), ("set", [said(201)]), ("delete", [said(200)])):
            sent: list[set[bytes]] = []
            for stands in (False, True):
                with ProminenceClient(peer.url, TOKEN) as client:
                    if stands:
                        client.kv_get("first")
                    peer.script.append(answer)
                    outcome(client, verb)
                head, _, body = peer.asked[-1].partition(b"\r\n\r\n")
                sent.append({body, *(line.lower() for line in head.split(b"\r\n"))})
            assert sent[0] == sent[1]


def test_a_connection_that_the_service_has_closed_meanwhile_is_made_again(until: Any) -> None:
    with a_raw_peer() as peer, ProminenceClient(peer.url, TOKEN, retry_for=0) as client:
        peer.script.append([*OK, CLOSE])
        assert client.kv_get("a") == "fine"
        until(lambda: not peer.serving())
        peer.script.append([said(201)])
        client.kv_set("a", "b", prev="c")  # which must not be repeated
        assert (peer.connections, len(peer.asked)) == (2, 2)


def test_a_connection_that_stands_is_kept_from_being_forgotten_on_its_way() -> None:
    """By a NAT or firewall that says nothing of it: a request over it would have no answer."""
    seconds: list[int] = []

    def look(made: socket.socket, _host: str, _port: int) -> None:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        seconds.append(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    with a_raw_peer() as peer, ProminenceClient(peer.url, TOKEN) as client:
        client.api.known_by(look)
        assert client.kv_get("a") == "fine"
        assert client.download(f"{peer.url}/an-object") == b"fine"
    assert len(seconds) == 2
    assert max(seconds) <= 60


def test_an_answer_that_does_not_come_in_time_is_waited_for_no_longer() -> None:
    with a_raw_peer() as peer, ProminenceClient(peer.url, TOKEN, timeout=(5, 0.3), retry_for=0) as client:
        client.kv_get("first")
        for pieces in ([b""] * 12 + OK, [said(200, b"fi", length=4), *[b""] * 12, CLOSE]):
            peer.script.append(pieces)
            with pytest.raises(ProminenceError, match="(?i)timed out"):
                client.kv_get("a")
        assert client.kv_get("b") == "fine"
        assert peer.connections == 3


@pytest.mark.parametrize("key", ["a b", "ü", "100%", "a?b", "a#b", "a\r\nb", "a\u2028", "[a]", '"', "a+b"])
def test_names_arrive_as_they_are_over_a_connection_that_stands(key: str) -> None:
    with a_raw_peer() as peer, ProminenceClient(peer.url, TOKEN) as client:
        client.kv_get(key)
        client.kv_get(key)
        assert peer.asked[0].split(b"\r\n")[0] == peer.asked[1].split(b"\r\n")[0]
