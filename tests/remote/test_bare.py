"""The bare connection, as a warm worker asks by it: ordinary answers and others, and what a request may hold."""

from __future__ import annotations

import gc
import http.client
import socket
import sys

import pytest
from peer import TOKEN
from raw_peer import CLOSE, OK, a_raw_peer

from prominence_executor.remote import bare
from prominence_executor.remote.key_value import Service

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "stays"),
    [
        (OK, True),
        ([OK[0][:30], OK[0][30:]], True),
        ([OK[0][:-2], OK[0][-2:]], True),
        ([CHUNKED], True),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK[0]], True),
        ([OK[0].replace(b"Content-Type", b"Connection: close\r\nContent-Type"), CLOSE], False),
        ([b"HTTP/1.1 200 OK\r\n\r\nfine", CLOSE], False),
        ([OK[0] + b"more"], False),
    ],
)
def test_a_worker_reads_answers_of_all_kinds(answer: list[bytes], stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_raw_peer() as peer:
        monkeypatch.setenv("PROMINENCE_URL", peer.url)
        monkeypatch.setenv("PROMINENCE_TOKEN", TOKEN)
        service = Service(1000.0)
        peer.script.extend([answer, OK])
        assert service.call("GET", "a b") == b"fine"
        assert service.call("POST", "key", b"value") == b"fine"
        assert peer.connections == (1 if stays else 2)
        assert peer.asked[0].startswith(b"GET /prominence/v1/kv/a%20b HTTP/1.1\r\nHost: 127.0.0.1:")
        assert peer.asked[1].endswith(b"Content-Length: 5\r\nvalue")
        service.close()


@pytest.mark.parametrize("answer", [[CLOSE], [b"+OK\r\n\r\n", CLOSE], [b"HTTP/1.1 503 A\r\nContent-Length: 0\r\n\r\n"]])
def test_a_worker_asks_again_after_what_is_no_answer(answer: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with a_raw_peer() as peer:
        monkeypatch.setenv("PROMINENCE_URL", peer.url)
        monkeypatch.setenv("PROMINENCE_TOKEN", TOKEN)
        service = Service(1000.0)
        peer.script.extend([answer, OK])
        assert service.call("POST", "key", b"value") == b"fine"
        assert len(peer.asked) == 2
        assert peer.asked[0] == peer.asked[1]
        service.close()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/a", {"X": "a\r\nY: b"}),
        ("/a", {"X": "a\nb"}),
        ("/a", {"X\r": "a"}),
        ("/\u2028", {}),
    ],
)
def test_nothing_gets_a_line_of_its_own_in_the_head_of_a_request(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError) as caught:
        bare.request("GET", target, "host", {**headers, "Authorization": "Bearer " + TOKEN})
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("host", 80, "host"),
        ("host", 8080, "host:8080"),
        ("::1", 80, "[::1]"),
        ("::1", 8, "[::1]:8"),
        ("é", 80, "xn--9ca"),
    ],
)
def test_a_host_is_named_as_others_name_it(host: str, port: int, said: str) -> None:
    assert bare.host_of(host, port, 80) == said


@pytest.mark.parametrize("begun", [b"", b"+OK\r\n\r\n", CHUNKED[:-10], OK[0][:-2]])
def test_an_answer_that_ends_early_leaves_nothing_that_complains_when_it_is_collected(begun: bytes) -> None:
    complaints: list[object] = []
    here, there = socket.socketpair()
    with here, there, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", complaints.append)
        there.sendall(begun)
        there.shutdown(socket.SHUT_WR)
        with pytest.raises((http.client.HTTPException, OSError)) as caught:
            bare.answer(here, "GET").read()
        around: list[object] = [caught.value]
        around.append(around)  # so that what reads is collected in any order
        del around, caught
        gc.collect()
    assert complaints == []
