"""Large arguments and results of warm calls: through the object store, and another way where that fails."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy import FaultProxy, corrupted, status

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.errors import SignatureError
from prominence_executor.local import LocalService
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.payload.pickling import ObjectRef
from prominence_executor.remote.courier import seal, unseal
from prominence_executor.remote.depot import TRIES
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.names import COURIER, worker_name
from prominence_executor.run.options import WORKER_LABEL, Options
from prominence_executor.transports.warm import outcomes
from prominence_executor.transports.warm.events import ChunkSettled, ChunkUnread
from prominence_executor.transports.warm.loads import KEPT, MOST_STORED, load_of, make_room_for, most_stored
from prominence_executor.transports.warm.messages import Ended
from prominence_executor.transports.warm.outcomes import OutcomeSettler, Ran, read_printed
from prominence_executor.transports.warm.places import PLACE, Places, addresses_in
from prominence_executor.transports.warm.state import Worker

MB = 1_000_000
PROGRAM = """
import os, sys, time
from prominence_executor import ProminenceExecutor
url, token, run_id = sys.argv[1:]
with ProminenceExecutor(url, token, run_id=run_id, workers="warm", max_workers=1) as executor:
    for _ in range(2):
        assert executor.submit(lambda content: content, bytes(2_000_000)).result() == bytes(2_000_000)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def warm(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        yield executor


def echo(content: bytes) -> bytes:
    return content


def made(seed: int) -> bytes:
    return random.Random(seed).randbytes(3 * MB)


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


def left_in_places(executor: ProminenceExecutor, run_id: str) -> int:
    """How many bytes lie in the places of a run."""
    jobs = executor.client.list_jobs(all=True, name=worker_name(run_id, COURIER))
    [courier] = [job for job in jobs if job["name"] == worker_name(run_id, COURIER)]
    addresses = addresses_in(executor.client.describe_job(courier["id"]))
    return sum(len(executor.client.download(address)) for address in addresses.values())


def test_a_call_that_is_too_large_for_a_mailbox_waits_for_no_idle_worker(warm: ProminenceExecutor) -> None:
    assert list(warm.map(abs, range(50))) == list(range(50))
    assert warm.submit(len, b"x" * 300_000).result(60) == 300_000
    assert own_jobs(warm) == 0


@pytest.mark.once
def test_the_first_large_call_waits_for_no_idle_worker_where_there_is_one_place() -> None:
    with (
        LocalService(cpus=1, memory=8) as service,
        ProminenceExecutor(service.url, service.token, workers="warm", max_workers=4, idle_timeout=300) as executor,
    ):
        assert executor.submit(len, b"").result(60) == 0
        assert executor.submit(len, b"x" * 2 * MB).result(120) == 2 * MB
        assert own_jobs(executor) == 0


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
    with ProminenceExecutor(service.url, service.token) as other:
        assert left_in_places(other, executor.run_id) < 100  # a byte in each that nobody used
        assert other.client.kv_list("pxwarm") == []


def test_many_calls_of_some_hundred_kilobytes_cost_few_requests(warm: ProminenceExecutor) -> None:
    assert warm.submit(echo, os.urandom(2 * MB)).result(60)
    before = warm.client.requests_sent
    assert sum(warm.map(len, [os.urandom(300_000) for _ in range(40)])) == 40 * 300_000
    sent = warm.client.requests_sent - before
    assert sent["PUT upload"] <= 40
    assert sent["POST /kv"] <= 60
    assert own_jobs(warm) == 0


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: FaultProxy, service: LocalService) -> Iterator[ProminenceExecutor]:
    """Whose addresses to read from are the proxy's, for workers, too; workers write to the service itself."""
    with ProminenceExecutor(proxy.url, service.token, workers="warm", max_workers=2) as executor:
        yield executor


def test_a_message_that_was_tampered_with_is_not_run(behind: ProminenceExecutor, proxy: FaultProxy) -> None:
    assert behind.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
    reads = proxy.inject(corrupted(0), method="GET", path=PLACE)
    content = os.urandom(2 * MB)
    assert behind.submit(len, content).result(60) == 2 * MB
    assert reads.injected == TRIES
    assert own_jobs(behind) == 1


def test_a_batch_that_did_not_arrive_goes_again_with_all_that_was_in_it(
    behind: ProminenceExecutor, proxy: FaultProxy
) -> None:
    """Its function is new to the worker, and so is the message with which it writes results to the object store."""
    assert behind.submit(len, b"x" * 2 * MB).result(60) == 2 * MB
    reads = proxy.inject(corrupted(0), method="GET", path=PLACE)
    content = os.urandom(200_000)
    future = behind.submit(echo, content)
    assert future.result(60) == content
    assert reads.injected == TRIES
    assert future.attempts == 1
    assert own_jobs(behind) == 0


def known_of(executor: ProminenceExecutor) -> list[set[str]]:
    """What its workers are believed to have."""
    assert executor._run.dispatch.pool
    return [worker.known for worker in executor._run.dispatch.pool._scheduler._state.workers.values()]


def test_a_worker_that_lacks_what_it_is_believed_to_have_gives_the_batch_back(
    warm: ProminenceExecutor, service: LocalService
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as other:
        assert other.submit(echo, b"a").result(60) == b"a"
        [known] = known_of(other)
    assert warm.submit(len, b"").result(60) == 0
    for believed in known_of(warm):
        believed |= known
    future = warm.submit(echo, b"b")
    assert (future.result(60), future.attempts) == (b"b", 1)


def test_a_result_that_was_tampered_with_comes_another_way(behind: ProminenceExecutor, proxy: FaultProxy) -> None:
    assert behind.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
    reads = proxy.inject(corrupted(0), method="GET", path=PLACE)
    assert behind.submit(made, 1).result(60) == made(1)
    assert reads.injected == 1
    assert behind.submit(made, 2).result(60) == made(2)
    assert own_jobs(behind) == 0


def test_where_there_are_no_places_large_calls_go_all_the_same(behind: ProminenceExecutor, proxy: FaultProxy) -> None:
    reads = proxy.inject(corrupted(0), method="GET", path=PLACE)  # what the courier has left, too
    for seed in range(3):
        assert behind.submit(made, seed).result(60) == made(seed)
        boxes = behind.client.kv_list(f"pxwarm/{behind.run_id}/box", values=True)
        assert sum(map(len, boxes.values())) < MB
    assert behind.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
    assert reads.injected == 1
    assert own_jobs(behind) == 1


def test_an_address_that_is_refused_is_asked_for_anew(behind: ProminenceExecutor, proxy: FaultProxy) -> None:
    assert behind.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
    writes = proxy.inject(status(403), method="PUT", path=PLACE, times=1)
    before = proxy.forwarded["POST /data/output"]
    assert behind.submit(len, os.urandom(2 * MB)).result(60) == 2 * MB
    assert writes.injected == 1
    assert proxy.forwarded["POST /data/output"] > before
    assert own_jobs(behind) == 0


@pytest.mark.once
def test_a_worker_that_is_killed_in_the_middle_of_a_large_result_is_replaced(
    warm: ProminenceExecutor, tmp_path: Path
) -> None:
    assert len(warm.submit(echo, os.urandom(2 * MB)).result(60)) == 2 * MB
    assert len(warm.submit(dies_with_a_large_result, str(tmp_path / "marker")).result(100)) in (3 * MB, 30 * MB)


@pytest.mark.once
@pytest.mark.parametrize("way", ["attach", "purge"])
def test_what_a_killed_program_has_left_is_removed(service: LocalService, way: str) -> None:
    run_id = f"run-{uuid.uuid4()}"
    arguments = [service.url, service.token, run_id]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        program.kill()
    with ProminenceExecutor(service.url, service.token) as other:
        assert left_in_places(other, run_id) > 2 * MB
        if way == "attach":
            with ProminenceExecutor.attach(run_id, service.url, service.token, takeover=True):
                pass
        else:
            other.client.delete_jobs(job["id"] for job in other.client.list_jobs(constraint=(WORKER_LABEL, run_id)))
            assert other.purge(older_than=0) == [f"pxwarm/{run_id}/box"]
        assert left_in_places(other, run_id) == 0
        assert other.client.kv_list("pxwarm") == []


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


def test_what_goes_to_a_worker_fits_into_its_memory_a_few_times() -> None:
    assert most_stored(Resources()) == 128 << 20
    assert most_stored(Resources(memory=64)) == MOST_STORED
    assert most_stored(Resources(cpus=2, memory_per_cpu=1)) == 256 << 20
    assert most_stored(Resources(cpus_range=(2, 4), memory_per_cpu=1)) == 128 << 20


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


def test_a_result_that_nobody_can_read_while_its_worker_goes_on_has_its_call_run_again(
    warm: ProminenceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_LOOKS_FOR_STORED", 3)
    future = warm.submit(os.urandom, 10)
    assert future.result(60)
    run = warm._run
    assert run.dispatch.pool is not None
    pool, payload = run.dispatch.pool, Payload(Blob([b"f"]), [Blob([b"a"])])
    calls: list[ProminenceFuture[Any]] = []

    def make(first: int) -> list[Chunk]:
        calls.append(ProminenceFuture(first))
        return [Chunk(warm.run_id, first, calls, Options(), payload, pool)]

    [chunk] = run.registry.admit(1, make)
    [future_of_it] = calls
    settler = OutcomeSettler(run.context, run.registry, run.dispatch._settler, Places(run.context))
    place = {"name": "nowhere", "size": 9, "sha256": "", "at": 0, "length": 9, "printed": 0}
    ended = [(chunk, Ended(0, b"", place))]
    for _ in range(2):
        [event] = settler.settle(Ran(1, future.job_id, 0.0), ended)
        assert isinstance(event, ChunkUnread)
        chunk.lost(event.error)
    assert not chunk.ended
    [event] = settler.settle(Ran(1, future.job_id, 0.0), ended)
    assert isinstance(event, ChunkSettled)
    with pytest.raises(SignatureError):
        future_of_it.result(0)
