"""The client on the real embedded service: jobs, keys, objects, and other people's."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prominence_executor.client import KEY_VALUE_LIMIT, ProminenceClient
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
)
from prominence_executor.local import LocalService


@pytest.fixture
def real(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def a_description(command: str, label: str) -> dict[str, Any]:
    return {
        "name": f"{label}-job",
        "tasks": [{"image": "python:3-slim", "runtime": "singularity", "cmd": command}],
        "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
        "labels": {"clienttest": label},
    }


def test_keys_and_values_on_the_service(real: ProminenceClient) -> None:
    real.kv_set("t/a", "é€")
    real.kv_set("/t/b", "x" * KEY_VALUE_LIMIT)
    assert real.kv_get("t/a") == "é€"
    assert real.kv_list("t") == ["/t/a", "/t/b"]
    assert real.kv_list("t", values=True) == {"/t/a": "é€", "/t/b": "x" * KEY_VALUE_LIMIT}
    real.kv_set("t/a", "new", prev="é€")
    with pytest.raises(KeyValueConflictError):
        real.kv_set("t/a", "newer", prev="é€")
    with pytest.raises(KeyValueConflictError):
        real.kv_set("t/none", "newer", prev="")
    real.kv_delete("t/a")
    with pytest.raises(NotFoundError, match="No such key"):
        real.kv_get("t/a")
    real.kv_delete("t", prefix=True)
    assert real.kv_list("t") == []


def test_listing_and_deleting_jobs_on_the_service(real: ProminenceClient, until: Callable[..., None]) -> None:
    ids = [real.create_job(a_description("sleep 60", "many")) for _ in range(3)]
    again = real.clone_job(ids[0])

    def active() -> set[int]:
        return {job["id"] for job in real.list_jobs(constraint=("clienttest", "many"))}

    assert active() == {*ids, again}
    assert {job["id"] for job in real.list_jobs(name="many-job")} == {*ids, again}
    assert [job["id"] for job in real.list_jobs(ids=[ids[1], 999_999])] == [ids[1]]
    real.delete_job(again)
    real.delete_jobs([*ids, again])
    until(lambda: not active())
    with pytest.raises(NotFoundError):
        real.delete_jobs(ids)
    ended = real.list_jobs(constraint=("clienttest", "many"), all=True, detail=True)
    assert {job["status"] for job in ended} == {"deleted"}
    with pytest.raises(InvalidRequestError, match="invalid status"):
        real.list_jobs(status="completed")


def test_another_user_sees_nothing_and_may_nothing(service: LocalService, real: ProminenceClient) -> None:
    number = real.create_job(a_description("sleep 60", "mine"))
    with ProminenceClient(service.url, service.token_for("somebody-else")) as other:
        assert other.list_jobs(all=True) == []
        with pytest.raises(NotFoundError):
            other.describe_job(number)
        with pytest.raises(NotFoundError):
            other.delete_job(number)
        with pytest.raises(PermissionDeniedError):
            other.stdout(number)
        assert other.kv_list() == []
    real.delete_job(number)


def test_tokens_that_the_service_refuses(service: LocalService) -> None:
    with ProminenceClient(service.url, "garbage") as client, pytest.raises(AuthenticationError):
        client.list_jobs()
    with ProminenceClient(service.url, service.token_for("u", expires_in=-10)) as client:
        with pytest.raises(AuthenticationError, match="expired on"):
            client.list_jobs()
        assert not client.requests_sent


def test_no_more_is_fetched_of_an_output_than_is_wanted(real: ProminenceClient, until: Callable[..., None]) -> None:
    number = real.create_job(a_description("seq 1000 1199", "talks"))
    until(lambda: real.describe_job(number)["status"] == "completed")
    assert len(real.stdout(number)) == len(real.stdout(number, limit=1000)) == 1000
    with pytest.raises(ServiceError, match="there are 1000 bytes"):
        real.stdout(number, limit=999)


def test_a_large_upload_is_not_held_in_memory(real: ProminenceClient) -> None:
    block, blocks = os.urandom(1 << 20), 64
    tracemalloc.start()
    try:
        real.upload("large.bin", (block for _ in range(blocks)), size=blocks << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    (stored,) = (item for item in real.list_data() if item["name"] == "large.bin")
    assert stored["size"] == blocks << 20
    real.delete_data("large.bin")
