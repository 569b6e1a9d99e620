"""Whatever an answer looks like, it is believed or is a `ServiceError`, asked for again, and never more than that."""

from __future__ import annotations

import gzip
import io
import json
import resource
from collections.abc import Callable
from typing import Any

import pytest
from peer import Answer, Peer

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import ProminenceError, ServiceError, ServiceUnavailableError, TransferError

JOB = {"id": 5, "status": "idle"}
DEEP = b"[" * 100_000 + b"]" * 100_000
NESTED = b'[{"id": 5, "status": "idle", "x": ' + b"[" * 100 + b"]" * 100 + b"}]"

ODD = [
    [None],
    [{}],
    [[]],
    [5],
    ["job"],
    {},
    None,
    True,
    {"jobs": []},
    [{"id": 5}],
    [{"status": "idle"}],
    [{**JOB, "id": "5"}],
    [{**JOB, "id": -5}],
    [{**JOB, "id": True}],
    [{**JOB, "id": 5.0}],
    [{**JOB, "id": None}],
    [{**JOB, "id": 10**30}],
    [{**JOB, "status": None}],
    [{**JOB, "status": ""}],
    [{**JOB, "status": ["idle"]}],
    [{**JOB, "name": 7}],
    [{**JOB, "statusReason": {}}],
    [{**JOB, "events": []}],
    [{**JOB, "events": {"endTime": "now"}}],
    [{**JOB, "events": {"createTime": 1e300}}],
    [{**JOB, "events": {"createTime": 10**400}}],
    b'[{"id": 5, "status": "idle", "events": {"endTime": -1e999}}]',
    [{**JOB, "outputFiles": {}}],
    [{**JOB, "outputFiles": [None]}],
    [{**JOB, "outputFiles": [{"name": "a", "size": "7"}]}],
    [{**JOB, "outputFiles": [{"name": "a", "url": 7}]}],
    [{**JOB, "execution": {"tasks": [7]}}],
    [{**JOB, "inputs": [{"filename": 7}]}],
    [{**JOB, "artifacts": [{}]}],
    [JOB, None],
    b'[{"id": 5, "status": "idle", "events": {"endTime": NaN}}]',
    b'[{"id": ' + b"9" * 5000 + b', "status": "idle"}]',
    b'["\xff"]',
    b"",
    DEEP,
    NESTED,
]


def spelled(content: Any) -> str:
    return repr(content)[:60]


@pytest.mark.parametrize("odd", ODD, ids=spelled)
def test_an_odd_list_is_asked_for_again_and_if_it_stays_odd_is_a_service_error(
    peer: Peer, client: ProminenceClient, odd: Any
) -> None:
    peer.answer(Answer(body=odd), Answer(body=[JOB]))
    assert client.list_jobs() == [JOB]
    peer.answer(Answer(body=odd), Answer(body=[JOB]))
    assert client.describe_job(5) == JOB
    peer.answer(Answer(body=odd))
    with pytest.raises(ServiceError, match=r"/prominence/v1/jobs: ") as caught:
        client.list_jobs()
    assert type(caught.value) is ServiceError
    assert len(peer.asked) == 3
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        (lambda c: c.create_job({}), {"id": "7"}),
        (lambda c: c.create_job({}), {"id": -7}),
        (lambda c: c.create_workflow({}), {"id": True}),
        (lambda c: c.create_workflow({}), [7]),
        (lambda c: c.describe_workflow(5), [{"id": 5}]),
        (lambda c: c.list_workflows(), [{**JOB, "jobs": [None]}]),
        (lambda c: c.list_data(), [{"name": "a"}]),
        (lambda c: c.list_data(), [{"name": "a", "size": -1}]),
        (lambda c: c.kv_list("a"), [7]),
        (lambda c: c.kv_list("a", values=True), ["a"]),
        (lambda c: c.kv_list("a", values=True), [{"a": None}]),
        (lambda c: c.snapshot_url(5), {"url": None}),
        (lambda c: c.upload("a", b"b"), {"url": "http://x/", "fields": ["a"]}),
        (lambda c: c.resources(), []),
    ],
)
def test_each_verb_minds_what_its_answer_looks_like(
    peer: Peer, client: ProminenceClient, verb: Callable[[ProminenceClient], Any], answer: Any
) -> None:
    peer.answer(Answer(body=answer))
    client.api.retry_for = 0
    with pytest.raises((ServiceError, TransferError), match="the answer is none that the service gives"):
        verb(client)


def test_what_is_unknown_or_null_is_ignored(peer: Peer, client: ProminenceClient) -> None:
    known = {**JOB, "name": None, "events": None, "outputFiles": None, "statusReason": None, "status": "pondering"}
    peer.answer(Answer(body=[{**known, "moon": {"phase": [{"x": 1}]}}]))
    assert client.list_jobs()[0]["status"] == "pondering"
    peer.answer(Answer(201, {"id": 7, "moon": "full"}))
    assert client.create_job({}) == 7


def test_an_address_that_is_none_is_an_error_like_others(peer: Peer, client: ProminenceClient) -> None:
    client.api.retry_for = 0
    for url in ("http://[::1", "file:///etc/passwd", "http://\ud800/", "nowhere", "http://"):
        with pytest.raises(ProminenceError):
            client.download(url)
    peer.answer(Answer(302, headers={"Location": "http://[::1"}))
    with pytest.raises(ProminenceError):
        client.list_jobs()


# -- bytes -------------------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    """What becomes so many bytes when it is unpacked."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        for _ in range(size >> 20):
            file.write(b" " * (1 << 20))
    return buffer.getvalue()


def peak() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


MANY = b"[" * (1 << 20)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    "answer",
    [
        lambda: Answer(body=bomb(1 << 30), headers={"Content-Encoding": "gzip"}),
        lambda: Answer(body=MANY, endless=True),
        lambda: Answer(body=MANY, endless=True, length=1 << 40),
        lambda: Answer(503, body=MANY, endless=True),
    ],
    ids=["gzip bomb", "endless", "announced", "endless error"],
)
def test_no_answer_takes_more_memory_than_is_sensible(
    peer: Peer, client: ProminenceClient, answer: Callable[[], Answer]
) -> None:
    before = peak()
    client.api.retry_for = 0
    peer.answer(answer())
    with pytest.raises(ServiceError, match="HTTP 503|does not end where it should"):
        client.stdout(5)
    assert peak() - before < 700 << 20


def test_more_than_was_announced_is_left_alone(peer: Peer, client: ProminenceClient) -> None:
    whole = json.dumps([JOB]).encode()
    peer.answer(Answer(body=whole + b"and more", length=len(whole)))
    assert client.list_jobs() == [JOB]


def test_a_length_that_is_none_is_none(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[JOB], headers={"Content-Length": "\u00b2"}), Answer(body=[JOB]))
    assert client.list_jobs() == [JOB]


@pytest.mark.parametrize("length", [None, 1 << 40])
def test_a_download_ends_where_it_should(peer: Peer, client: ProminenceClient, length: int | None) -> None:
    client.api.retry_for = 0
    endless = Answer(body=bytes(1 << 16), endless=True, length=length)
    peer.answer(endless)
    file = io.BytesIO()
    with pytest.raises(TransferError, match="does not end after its 100000 bytes"):
        client.download(peer.url, file, limit=100_000)
    assert len(file.getvalue()) <= 100_000
    assert client.download(peer.url, part=(5, 100_000)) == bytes(100_000)
    peer.answer(Answer(body=b"whole"))
    assert client.download(peer.url, limit=5) == b"whole"


def test_the_explanation_of_an_error_is_short_whatever_it_is(peer: Peer, client: ProminenceClient) -> None:
    client.api.retry_for = 0
    for content in (DEEP, b"x" * (1 << 20), json.dumps({"error": "x" * 100_000}).encode()):
        peer.answer(Answer(503, content))
        with pytest.raises(ServiceUnavailableError) as caught:
            client.list_jobs()
        assert len(str(caught.value)) < 3000
