"""What each verb of the client asks the service for, and what it refuses to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from peer import TOKEN, Answer, Peer

from prominence_executor.client import KEY_VALUE_LIMIT, ProminenceClient
from prominence_executor.client.validation import BODY_LIMIT
from prominence_executor.errors import NotFoundError

Verb = Callable[[ProminenceClient], Any]
JOB = {"id": 5, "status": "idle"}


@pytest.mark.parametrize(
    ("verb", "answer", "method", "path", "query", "body", "result"),
    [
        (lambda c: c.create_job({"a": 1}), {"id": 5}, "POST", "/jobs", {}, {"a": 1}, 5),
        (lambda c: c.describe_job(5), [JOB], "GET", "/jobs/5", {}, None, JOB),
        (
            lambda c: c.list_jobs(),
            [JOB],
            "GET",
            "/jobs",
            {},
            None,
            [JOB],
        ),
        (lambda c: c.list_jobs(ids=[5, 6]), [], "GET", "/jobs", {"id": ["5,6"]}, None, []),
        (lambda c: c.list_jobs(detail=True), [], "GET", "/jobs", {"detail": ["true"]}, None, []),
        (
            lambda c: c.list_jobs(constraint=("run", "a/1"), all=True),
            [],
            "GET",
            "/jobs",
            {"constraint": ["run=a/1"], "all": ["true"]},
            None,
            [],
        ),
        (
            lambda c: c.list_jobs(completed=True, num=3, name="a b", status="idle"),
            [],
            "GET",
            "/jobs",
            {"completed": ["true"], "num": ["3"], "name": ["a b"], "status": ["idle"]},
            None,
            [],
        ),
        (lambda c: c.list_jobs(workflow_id=7), [], "GET", "/jobs", {"workflow": ["true"], "id": ["7"]}, None, []),
        (lambda c: c.delete_job(5), {}, "DELETE", "/jobs/5", {}, None, None),
        (lambda c: c.delete_jobs([5, 6]), {}, "DELETE", "/jobs", {"id": ["5,6"]}, None, None),
        (lambda c: c.remove_job(5), {}, "PUT", "/jobs/5/remove", {}, None, None),
        (lambda c: c.clone_job(5), {"id": 6}, "PUT", "/jobs/5/clone", {}, None, 6),
        (
            lambda c: c.stdout(5, node=1, offset=2),
            b"\xff\n",
            "GET",
            "/jobs/5/stdout",
            {"node": ["1"], "offset": ["2"]},
            None,
            b"\xff\n",
        ),
        (lambda c: c.stderr(5), b"", "GET", "/jobs/5/stderr", {"node": ["0"], "offset": ["0"]}, None, b""),
        (lambda c: c.execute(5, ["ls", "-la"]), b"x", "POST", "/jobs/5/exec", {"command": ["ls,-la"]}, None, b"x"),
        (lambda c: c.create_snapshot(5, "a/b"), {}, "PUT", "/jobs/5/snapshot", {"path": ["a/b"]}, None, None),
        (lambda c: c.snapshot_url(5), {"url": "u"}, "GET", "/jobs/5/snapshot", {}, None, "u"),
        (lambda c: c.create_workflow({"a": 1}), {"id": 5}, "POST", "/workflows", {}, {"a": 1}, 5),
        (lambda c: c.describe_workflow(5), [JOB], "GET", "/workflows/5", {}, None, JOB),
        (lambda c: c.list_workflows(name="w"), [], "GET", "/workflows", {"name": ["w"]}, None, []),
        (lambda c: c.delete_workflow(5), {}, "DELETE", "/workflows/5", {}, None, None),
        (lambda c: c.clone_workflow(5), {"id": 6}, "PUT", "/workflows/5/clone", {}, None, 6),
        (lambda c: c.rerun_workflow(5), {"id": 6}, "PUT", "/workflows/5", {}, None, 6),
        (lambda c: c.list_data(), [], "GET", "/data", {}, None, []),
        (lambda c: c.list_data("group/x"), [], "GET", "/data/group/x", {}, None, []),
        (lambda c: c.delete_data("a b#.txt"), b"", "DELETE", "/data/a%20b%23.txt", {}, None, None),
        (lambda c: c.job_output_url("o"), {"url": "u"}, "POST", "/data/output", {}, {"name": "o"}, "u"),
        (lambda c: c.kv_set("/a/b", "v"), {}, "POST", "/kv/a/b", {}, b"v", None),
        (lambda c: c.kv_set("a", "é", prev="x y"), {}, "POST", "/kv/a", {"prev": ["x y"]}, "é".encode(), None),
        (lambda c: c.kv_get("a"), "é€".encode(), "GET", "/kv/a", {}, None, "é€"),
        (lambda c: c.kv_list(), ["/a"], "GET", "/kv", {"list": ["true"]}, None, ["/a"]),
        (
            lambda c: c.kv_list("a", values=True),
            [{"/a/b": "v"}, {"/a/c": "w"}],
            "GET",
            "/kv/a",
            {"list": ["true"], "values": ["true"]},
            None,
            {"/a/b": "v", "/a/c": "w"},
        ),
        (lambda c: c.kv_delete("a", prefix=True), {}, "DELETE", "/kv/a", {"prefix": ["true"]}, None, None),
        (lambda c: c.health(), {}, "GET", "/health", {}, None, {}),
        (lambda c: c.resources(), {"existing": []}, "GET", "/resources", {}, None, {"existing": []}),
    ],
)
def test_each_verb_asks_for_what_the_service_knows(
    peer: Peer,
    client: ProminenceClient,
    verb: Verb,
    answer: Any,
    method: str,
    path: str,
    query: dict[str, list[str]],
    body: Any,
    result: Any,
) -> None:
    peer.answer(Answer(201 if method == "POST" else 200, answer))
    assert verb(client) == result
    (asked,) = peer.asked
    assert (asked.method, asked.path, asked.query) == (method, "/prominence/v1" + path, query)
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["User-Agent"].startswith("prominence-executor/")
    if isinstance(body, dict):
        assert json.loads(asked.body) == body
        assert asked.headers["Content-Type"] == "application/json"
    else:
        assert asked.body == (body or b"")


def test_many_ids_are_asked_for_in_urls_that_servers_take(peer: Peer, client: ProminenceClient) -> None:
    ids = list(range(100_000, 102_000))
    peer.answer(Answer(body=[{"id": 1, "status": "idle"}]))
    assert len(client.list_jobs(ids=ids)) == len(peer.asked) > 1
    joined = ",".join(asked.query["id"][0] for asked in peer.asked)
    assert [int(number) for number in joined.split(",")] == ids
    assert max(len(asked.query["id"][0]) for asked in peer.asked) < 4000


def test_no_ids_are_no_request(peer: Peer, client: ProminenceClient) -> None:
    assert client.list_jobs(ids=[]) == []
    client.delete_jobs([])
    assert not peer.asked


def test_deleting_many_is_refused_only_when_none_was_active(peer: Peer, client: ProminenceClient) -> None:
    gone = Answer(400, {"error": "No such job(s)"})
    ids = range(100_000, 101_000)
    peer.answer(gone, Answer(), gone)
    client.delete_jobs(ids)
    assert len(peer.asked) == 2
    peer.answer(gone)
    with pytest.raises(NotFoundError, match="No such job"):
        client.delete_jobs(ids)
    assert len(peer.asked) == 2


@pytest.mark.parametrize(
    "verb",
    [
        lambda c: c.list_jobs(ids=[1], workflow_id=2),
        lambda c: c.list_jobs(constraint=("run", 'a"b')),
        lambda c: c.list_jobs(constraint=("a-b", "c")),
        lambda c: c.describe_job(-1),
        lambda c: c.stdout(1, offset=-5),
        lambda c: c.execute(1, ["a,b"]),
        lambda c: c.execute(1, "ls -la"),
        lambda c: c.execute(1, []),
        lambda c: c.kv_set("a", ""),
        lambda c: c.kv_set("a", "x" * (KEY_VALUE_LIMIT + 1)),
        lambda c: c.kv_set("a", "é" * (KEY_VALUE_LIMIT // 2 + 1)),
        lambda c: c.kv_set("", "v"),
        lambda c: c.kv_get("a//b"),
        lambda c: c.kv_get("../jobs"),
        lambda c: c.delete_data(""),
        lambda c: c.create_job({"x": "y" * BODY_LIMIT}),
        lambda c: c.upload("x", iter([b"a"])),
    ],
)
def test_what_cannot_be_right_is_refused_before_any_request(peer: Peer, client: ProminenceClient, verb: Verb) -> None:
    with pytest.raises(ValueError):
        verb(client)
    assert not client.requests_sent


def test_the_largest_value_is_sent(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201))
    client.kv_set("a", "x" * KEY_VALUE_LIMIT)
    assert len(peer.asked[0].body) == KEY_VALUE_LIMIT


def test_requests_are_counted_by_kind(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(503), Answer(body=[]))
    client.list_jobs()
    peer.answer(Answer(body=b""))
    client.stdout(1)
    client.delete_data("some/where")
    client.kv_delete("some/where")
    client.download(peer.url)
    assert client.requests_sent == {
        "GET /jobs": 2,
        "GET /jobs/id/stdout": 1,
        "DELETE /data": 1,
        "DELETE /kv": 1,
        "GET output": 1,
    }
