"""Futures as arguments: calls wait for those, are given their results, and fail with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from calls import Gate
from network_faults import Answer, Fault
from proxy import Exchange, FaultProxy
from traffic import Listener

from prominence_executor import ArtifactError, DependencyError, ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.run.future import stored_result
from prominence_executor.run.stored import told

Until = Callable[..., None]
BIG = 1_500_000  # bytes: more than travels through a client that does not ask for it
OBJECTS = "/prominence-objects/"


@dataclass
class Pair:
    left: Any
    right: Any


@dataclass
class Table:
    """Of a module that travels."""

    content: bytes


@pytest.fixture
def warm(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        yield executor


def total(*numbers: Any, more: Any = 0) -> Any:
    return sum(numbers) + more


def opened(pair: Pair, by_name: dict[str, Any]) -> tuple[int, int, int, bool]:
    return pair.left, pair.right, by_name["list"][0], pair.left is by_name["list"][0]


def table(size: int) -> Table:
    return Table(bytes(size))


def longer(found: Any, by: int) -> Table:
    assert type(found) is Table
    return Table(found.content + bytes(by))


def size_of(found: Any) -> int:
    return len(found.content if isinstance(found, Table) else found)


def fail(text: str) -> None:
    raise ValueError(text)


def is_from_a_job(exchange: Exchange) -> bool:
    return str(exchange.headers.get("User-Agent", "")).startswith("Python-urllib")


# -- what waits, in this process alone ---------------------------------------------------------------------------------


def test_a_call_is_not_sent_before_its_futures_are_done(executor: ProminenceExecutor) -> None:
    gate: Future[int] = Future()
    first = executor.submit(total, gate)
    second = executor.submit(total, [gate][0], more=1)
    assert (first.status(), first.index, second.index) == ("unsent", 0, 1)
    assert not first.done()
    assert not first.running()
    assert not executor.client.requests_sent
    assert [future.index for future in executor.futures()] == [0, 1]
    gate.set_result(3)
    assert (first.result(30), second.result(30)) == (3, 4)


def test_waiting_calls_hold_one_thread_together_and_none_afterwards(executor: ProminenceExecutor, until: Until) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("prominence-depend-")]

    gate: Future[int] = Future()
    futures = [executor.submit(total, gate) for _ in range(1000)]
    found = threads()
    for future in futures:
        assert future.cancel()
    assert len(found) == 1
    until(lambda: not threads())
    assert not executor.client.requests_sent


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_failure_goes_through_a_chain_of_1000_calls(executor: ProminenceExecutor, cancelled: bool) -> None:
    executor = executor.with_options(retries=3)  # which such a failure is not for
    gate: Future[int] = Future()
    last = executor.submit(total, gate)
    for _ in range(999):
        last = executor.submit(total, last)
    cause: BaseException | None = None
    if cancelled:
        assert gate.cancel()
    else:
        cause = ValueError("no")
        gate.set_exception(cause)
    with pytest.raises(DependencyError, match=r"call 999 \(.*total\) was not sent, .*: a future that is no") as caught:
        last.result(60)
    error = caught.value.__cause__
    assert isinstance(error, CancelledError) if cancelled else error is cause
    assert caught.value.call is None
    assert not executor.client.requests_sent


def test_a_waiting_call_can_be_cancelled_and_its_dependents_say_which(executor: ProminenceExecutor) -> None:
    gate: Future[int] = Future()
    first = executor.submit(total, gate)
    second = executor.submit(total, first)
    assert first.cancel()
    with pytest.raises(DependencyError, match="call 1 .* call 0 was cancelled") as caught:
        second.result(30)
    assert caught.value.call == 0
    gate.set_result(1)
    assert not executor.client.requests_sent


def test_shutdown_cancels_what_waits(service: LocalService) -> None:
    gate: Future[int] = Future()
    executor = ProminenceExecutor(service.url, service.token)
    futures = [executor.submit(total, gate) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_shutdown_waits_for_dependents_and_a_forgotten_executor_finishes_them(service: LocalService) -> None:
    gate: Future[int] = Future()
    executor = ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5))
    last = executor.submit(total, executor.submit(total, gate), more=1)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(total, last)
    del executor
    gate.set_result(1)
    assert last.result(60) == 2


def test_elsewhere_a_future_is_refused(executor: ProminenceExecutor) -> None:
    future: Future[int] = Future()
    with pytest.raises(TypeError, match="a future cannot be pickled"):
        executor.scatter([future])
    with pytest.raises(TypeError, match="a future cannot be pickled"):
        executor.submit(lambda: future).result(5)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="the argument 1"):
        executor.submit(total, future, lock).result(5)


# -- what comes of it --------------------------------------------------------------------------------------------------


def test_futures_are_found_wherever_they_stand(warm: ProminenceExecutor) -> None:
    with ThreadPoolExecutor(1) as pool:
        mine, other = warm.submit(total, 1, 1), pool.submit(total, 5)
        found = warm.submit(opened, Pair(mine, other), by_name={"list": [mine]})
        assert found.result(60) == (2, 5, 2, True)
        assert warm.submit(total, mine, other, more=mine).result(60) == 9


def test_arguments_and_results_are_as_they_were_at_submit(warm: ProminenceExecutor) -> None:
    done: Future[list[int]] = Future()
    done.set_result([1])
    gate: Future[int] = Future()
    numbers = [1]
    future: Future[Any] = warm.submit(lambda *values: values, numbers, done, gate)
    numbers.append(2)
    done.result().append(2)
    gate.set_result(3)
    assert future.result(60) == ([1], [1], 3)


def test_a_future_of_another_executor(warm: ProminenceExecutor, executor: ProminenceExecutor) -> None:
    large = executor.submit(table, BIG)
    small = executor.submit(total, 4)
    assert warm.submit(size_of, large).result(60) == BIG  # a job of the one fetches from a job of the other
    assert warm.submit(total, small).result(60) == 4
    with pytest.raises(DependencyError, match=f"call 2 of run {executor.run_id} raised ValueError: no") as caught:
        failing = executor.submit(fail, "no")
        warm.submit(total, failing).result(60)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.slow
@pytest.mark.once
def test_a_chain_and_a_tree_of_1000_calls(warm: ProminenceExecutor) -> None:
    level: list[Any] = [warm.submit(total, n) for n in range(500)]
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [warm.submit(total, *pair) for pair in pairs]
    last = warm.submit(total, 0)
    for _ in range(999):
        last = warm.submit(total, last, more=1)
    assert level[0].result(120) == sum(range(500))
    assert last.result(240) == 999


@pytest.mark.once
def test_calls_that_are_ready_together_share_jobs_and_requests(executor: ProminenceExecutor) -> None:
    gate: Future[int] = Future()
    futures = executor.submit_many(total, [gate] * 40, range(40), chunksize=10)
    gate.set_result(1)
    assert [future.result(60) for future in futures] == [1 + n for n in range(40)]
    assert len({future.job_id for future in futures}) == 4
    assert executor.client.requests_sent["POST /jobs"] == 4


@pytest.mark.slow
@pytest.mark.once
def test_many_single_calls_that_are_ready_together_are_one_array(executor: ProminenceExecutor) -> None:
    gate: Future[int] = Future()
    futures = list(executor.submit_many(total, [gate] * 25, range(25)))
    gate.set_result(1)
    wait(futures, 90)
    assert [future.result() for future in futures] == [1 + n for n in range(25)]
    sent = executor.client.requests_sent
    assert sent["POST /jobs"] + sent["POST /workflows"] <= 4


@pytest.mark.parametrize("chunksize", [3, "auto"])
def test_a_map_with_some_futures(executor: ProminenceExecutor, chunksize: Any) -> None:
    gate: Future[int] = Future()
    results = executor.map(total, [1, 2, gate, 4], chunksize=chunksize)
    gate.set_result(3)
    assert list(results) == [1, 2, 3, 4]


# -- large results -----------------------------------------------------------------------------------------------------


def traffic_of_chain(service: LocalService, size: int) -> tuple[int, int, int, int]:
    """Bytes to and from the client, and its requests to the store, until the last of three results is there."""
    with Listener(service.url) as listener:
        with ProminenceExecutor(listener.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            first = executor.submit(table, size)
            second = executor.submit(longer, first, 1)
            third = executor.submit(longer, second, 1)
            del first, second
            assert size_of(third.result(120)) == size + 2
        requests = [one for method in ("GET", "PUT", "POST") for one in listener.requests(method, ".*")]
        by_jobs = listener.requests("GET", f"{OBJECTS}.*", "worker")
        sent, came = sum(len(one.body) for one in requests), sum(len(one.answer) for one in requests)
        assert sum(len(one.answer) for one in by_jobs) == pytest.approx(2 * size, rel=0.02)
        return sent, came, sum(one.to_the_store for one in requests), len(requests)


@pytest.mark.once
def test_the_client_downloads_the_last_result_of_a_chain_only(service: LocalService) -> None:
    sent, came, to_the_store, _ = traffic_of_chain(service, 10_000_000)
    assert 10_000_000 < came < 15_000_000  # with descriptions of jobs, and the runner in each
    assert sent < 5_000_000
    assert to_the_store <= 12


@pytest.mark.slow
@pytest.mark.once
def test_the_client_downloads_the_last_of_three_50_mb_results_only(service: LocalService) -> None:
    sent, came, _, _ = traffic_of_chain(service, 50_000_000)
    assert 50_000_000 < came < 55_000_000
    assert sent < 5_000_000


def test_a_large_result_comes_when_somebody_asks_for_it(executor: ProminenceExecutor) -> None:
    first = executor.submit(table, BIG)
    assert executor.submit(size_of, first).result(60) == BIG
    result = first.result(30)
    assert size_of(result) == BIG
    assert type(result) is Table
    assert executor.submit(size_of, [first][0]).result(60) == BIG  # from its job again, though it is here


def test_the_results_of_a_service_that_ends_are_kept_for_who_holds_their_futures() -> None:
    with ProminenceExecutor("local") as executor:
        first = executor.submit(table, BIG)
        second = executor.submit(size_of, first)
    assert second.result() == BIG
    assert size_of(first.result()) == BIG


@pytest.mark.once
def test_an_address_that_has_expired_is_asked_for_again(service: LocalService) -> None:
    refused = []

    def act(exchange: Exchange) -> None:
        if is_from_a_job(exchange):
            exchange.read()
            refused.append(exchange.path)
            exchange.answer(Answer(403, [], b"Request has expired"))
        else:
            exchange.answer(exchange.forward())

    with FaultProxy(service.url) as proxy:
        with ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            proxy.inject(Fault("expired", act), method="GET", path=OBJECTS)
            first = executor.submit(table, BIG)
            assert executor.submit(size_of, first).result(60) == BIG
            assert len(refused) == 1  # the job has then asked the service itself
            stored = stored_result(first)
            assert stored is not None
            context = executor._run.context
            before = executor.client.requests_sent.total()
            assert told(context, [stored])[stored.sha256]["url"] == stored.url
            assert executor.client.requests_sent.total() == before
            old = replace(stored, url_since=stored.url_since - 8 * 86400)
            assert told(context, [old])[stored.sha256]["url"].startswith("http")
            assert executor.client.requests_sent.total() == before + 1


@pytest.mark.once
def test_a_result_that_was_changed_on_its_way_is_not_unpickled(service: LocalService) -> None:
    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        if is_from_a_job(exchange):
            middle = len(answer.body) // 2
            answer = Answer(answer.status, answer.headers, answer.body[:middle] + b"!" + answer.body[middle + 1 :])
        exchange.answer(answer)

    with FaultProxy(service.url) as proxy:
        proxy.inject(Fault("changed", act), method="GET", path=OBJECTS)
        with ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            first = executor.submit(table, BIG)
            with pytest.raises(ArtifactError, match="result of call 0 .* could not be fetched: it is not what was sig"):
                executor.submit(size_of, first).result(60)


@pytest.mark.slow
@pytest.mark.once
def test_members_of_an_array_each_fetch_their_own(executor: ProminenceExecutor) -> None:
    first = executor.submit_many(table, [BIG + n for n in range(3)], chunksize=3)
    gate: Future[int] = Future()
    futures = executor.submit_many(lambda found, _: size_of(found), first * 7, [gate] * 21)
    wait(first, 60)
    gate.set_result(0)
    wait(futures, 120)
    assert [future.result() for future in futures] == [BIG + n for n in range(3)] * 7


# -- from another program ----------------------------------------------------------------------------------------------


def test_what_waited_is_in_the_journal_and_goes_on(service: LocalService, tmp_path: Path) -> None:
    gate, journal, outside = Gate(tmp_path), tmp_path / "journal", Future[int]()
    executor = ProminenceExecutor(service.url, service.token, journal=journal, on_interrupt="leave")
    first = executor.submit(gate.hold, "first")
    large = executor.submit(table, BIG)
    executor.submit(lambda text, found: (text, size_of(found)), first, large)
    executor.submit(total, outside)
    executor.submit(total, executor.submit(total, outside))
    wait([large], 60)
    executor._run.interrupt()  # as Ctrl-C in the with block does
    executor.shutdown()
    gate.open()
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, journal=journal) as again:
        futures = again.futures()
        assert futures[2].result(60) == ("first", BIG)
        for future in futures[3:]:
            with pytest.raises(DependencyError, match="has ended with its program"):
                future.result(60)
    assert not journal.exists()
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as third:
        assert [size_of(future.result(30)) for future in third.futures()[:2]] == [5, BIG]
