"""Large arguments and results of warm calls: through the object store, and another way where that fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.payload.pickling import ObjectRef
from prominence_executor.remote.courier import seal, unseal
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.options import Options
from prominence_executor.transports.warm.loads import KEPT, load_of, make_room_for
from prominence_executor.transports.warm.printed import read_printed
from prominence_executor.transports.warm.state import Worker

Until = Callable[..., None]
MB = 1_000_000


@pytest.fixture
def warm(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        yield executor


def echo(content: bytes) -> bytes:
    return content


def dies_with_a_large_result(marker: str) -> bytes:
    """The first time it is run, its worker is killed while the result is on its way."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return bytes(3 * MB)
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.05)
        os.kill(int(Path(marker + ".worker").read_text()), signal.SIGKILL)
        os._exit(0)
    Path(marker + ".worker").write_text(str(os.getppid()))
    return os.urandom(30 * MB)


def own_jobs(executor: ProminenceExecutor) -> int:
    """How many jobs were created that are neither workers nor the courier."""
    names = [str(job["name"]) for job in executor.client.list_jobs(all=True)]
    return sum(name.startswith(executor.run_id) and ".w" not in name for name in names)


def test_a_call_that_is_too_large_for_a_mailbox_waits_for_no_idle_worker(warm: ProminenceExecutor) -> None:
    assert list(warm.map(abs, range(50))) == list(range(50))
    assert warm.submit(len, b"x" * 300_000).result(60) == 300_000
    assert own_jobs(warm) == 0


def test_large_calls_go_through_the_object_store(warm: ProminenceExecutor, service: LocalService) -> None:
    contents = [os.urandom(3 * MB), os.urandom(50_000), os.urandom(200_000), os.urandom(9 * MB)]
    for _ in range(2):
        assert list(warm.map(echo, contents)) == contents
    before = warm.client.requests_sent
    assert warm.submit(echo, contents[3]).result(60) == contents[3]
    sent = warm.client.requests_sent - before
    assert not sent["GET /jobs/id/stdout"]
    assert sent["POST /kv"] <= 3
    assert own_jobs(warm) == 0


def test_many_large_calls_need_no_jobs_of_their_own(warm: ProminenceExecutor) -> None:
    assert {len(result) for result in warm.map(os.urandom, [MB] * 30)} == {MB}
    assert sum(warm.map(len, [os.urandom(MB)] * 30)) == 30 * MB
    assert own_jobs(warm) == 0


def test_no_large_message_is_left_behind(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        content = os.urandom(2 * MB)
        assert executor.submit(echo, content).result(60) == content
        assert executor.submit(echo, content).result(60) == content
        client = executor.client
        courier = next(job for job in client.list_jobs(all=True) if job["name"] == f"{executor.run_id}.w0")
    with ProminenceExecutor(service.url, service.token) as other:
        places = other.client.describe_job(courier["id"])["outputFiles"]
        sizes = [len(other.client.download(place["url"])) for place in places if place["url"]]
        assert sum(sizes) < 4096
        assert other.client.kv_list("pxwarm") == []


def test_what_somebody_puts_in_the_place_of_a_message_is_not_run(
    warm: ProminenceExecutor, service: LocalService, until: Until
) -> None:
    content = os.urandom(2 * MB)
    assert warm.submit(echo, content).result(60) == content
    places = warm._run._pool._places  # type: ignore[union-attr]
    put = places.put

    def tampered(name: str, body: bytes) -> object:
        stored = put(name, body)
        put(name, b"evil" * 1000)
        return stored

    places.put = tampered  # type: ignore[method-assign]
    content = os.urandom(2 * MB)
    assert warm.submit(echo, content).result(60) == content  # as a job of its own
    assert not places.ready


def test_a_result_that_was_tampered_with_comes_another_way(warm: ProminenceExecutor) -> None:
    assert len(warm.submit(echo, os.urandom(2 * MB)).result(60)) == 2 * MB
    places = warm._run._pool._places  # type: ignore[union-attr]
    fetch = places.fetch

    def tampered(stored: dict[str, object]) -> bytes:
        places.put(str(stored["name"]), b"evil" * 1000)
        return fetch(stored)

    places.fetch = tampered  # type: ignore[method-assign]
    assert len(warm.submit(os.urandom, 2 * MB).result(60)) == 2 * MB


@pytest.mark.once
def test_a_worker_that_is_killed_in_the_middle_of_a_large_result_is_replaced(
    warm: ProminenceExecutor, tmp_path: Path
) -> None:
    assert len(warm.submit(echo, os.urandom(2 * MB)).result(60)) == 2 * MB
    assert len(warm.submit(dies_with_a_large_result, str(tmp_path / "marker")).result(100)) in (3 * MB, 30 * MB)


def test_attach_finds_large_results(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        for _ in range(2):
            assert len(executor.submit(os.urandom, 2 * MB).result(60)) == 2 * MB
            assert executor.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
        with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as other:
            results = [future.result(60) for future in other.futures()]
        assert [value if isinstance(value, int) else len(value) for value in results] == [2 * MB] * 4


def test_an_outcome_is_found_in_the_standard_output_though_nobody_can_say_where(warm: ProminenceExecutor) -> None:
    """As where that is a pipe, and its worker does not know what calls have printed before."""
    future = warm.submit(os.urandom, 2 * MB)
    result = future.result(60)
    calls: list[ProminenceFuture[Any]] = [ProminenceFuture(future.index)]
    chunk = Chunk(warm.run_id, future.index, calls, Options(), None, None)  # type: ignore[arg-type]
    assert result in read_printed(warm._run.context, chunk, future.job_id, 0, 0)


def test_a_token_is_sealed_with_the_key_of_the_run() -> None:
    key, token = os.urandom(32), "header." + "payload" * 60 + ".signature"
    message = seal(token, key)
    assert unseal(message, key) == token
    assert message != seal(token, key)
    with pytest.raises(ValueError, match="not signed"):
        unseal(message, os.urandom(32))
    assert "payload" not in message


def test_a_worker_lets_go_of_what_no_call_needs() -> None:
    worker = Worker(1, Options(), began=0.0)
    payloads = [
        Payload(Blob([b"f"]), [Blob([b"a"])], objects=frozenset([ObjectRef(f"{n}", KEPT // 2 - 1, False)]))
        for n in range(4)
    ]
    assert load_of(payloads[0]) > KEPT // 2
    assert load_of(payloads[0], {"0"}) < 1000
    assert make_room_for(worker, payloads[:2]) == []
    assert make_room_for(worker, payloads[:1]) == []
    assert make_room_for(worker, payloads[2:3]) == ["1"]
    assert make_room_for(worker, payloads) == []  # what is needed now stays, however large


def fill(executor: ProminenceExecutor, run_id: str) -> None:
    """Leave more under a run's mailboxes than the service lists."""
    for part in range(200):
        executor.client.kv_set(f"pxwarm/{run_id}/box/i/00001/1/{part}", "x" * 15_900)


def test_purge_copes_with_more_than_the_service_lists_and_says_what_it_cannot_see(
    service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm") as executor:
        assert executor.submit(abs, -1).result(60) == 1
    with ProminenceExecutor(service.url, service.token) as other:
        fill(other, executor.run_id)
        assert other.purge(older_than=0) == [f"pxwarm/{executor.run_id}/box"]
        assert other.client.kv_list("pxwarm") == []
        assert not caplog.records
        fill(other, "somebody-20200101-000000-abcdef")
        assert other.purge(older_than=0) == []
        assert "cannot list the keys below pxwarm/" in caplog.text
        other.client.kv_delete("pxwarm", prefix=True)
