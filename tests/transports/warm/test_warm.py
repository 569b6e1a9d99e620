"""Warm workers: what is different from a job for each call, and what must not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer import unused_port
from proxy import (
    FaultProxy,
    corrupted,
    dripped,
    dropped,
    html,
    late,
    misshapen,
    naming_twice,
    omitting,
    reset_after,
    reset_before,
    shortened,
    status,
    told_to_wait,
    too_deep,
    truncated,
    unknown_status,
)

from prominence_executor import (
    BrokenRunError,
    CallCrashedError,
    JobDeletedError,
    ProminenceExecutor,
    PythonMismatchError,
    WalltimeExceededError,
    WorkerLostError,
)
from prominence_executor.local import LocalService

Until = Callable[..., None]
begun: float  # an initializer sets it, where the calls are run


@pytest.fixture
def warm(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        yield executor


def square(n: int) -> int:
    return n * n


def where(n: int = 0) -> tuple[int, int]:
    return os.getppid(), os.getpid()


def kills_its_worker(marker: str) -> str:
    """The first time it is run."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "survived"
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return "unreachable"


def kills_every_worker() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kills_for_three(n: int) -> int:
    if n == 3:
        kills_every_worker()
    return n


def test_many_calls_need_few_jobs_and_requests(warm: ProminenceExecutor) -> None:
    assert list(warm.map(square, range(1000))) == [n * n for n in range(1000)]
    assert [future.result(30) for future in [warm.submit(square, n) for n in range(500)]] == [n * n for n in range(500)]
    sent = warm.client.requests_sent
    assert sent["POST /jobs"] <= 2
    assert sum(sent.values()) < 300


def test_a_worker_runs_one_call_after_the_other_in_one_process(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert len({executor.submit(where).result(30) for _ in range(5)}) == 1


def test_a_crash_costs_the_call_and_not_the_worker(warm: ProminenceExecutor) -> None:
    supervisors = {warm.submit(where).result(30)[0]}
    with pytest.raises(CallCrashedError, match="exit code 7"):
        warm.submit(os._exit, 7).result(30)
    before, crashing, after = warm.submit(square, 2), warm.submit(os.abort), warm.submit(square, 3)
    assert before.result(30) == 4
    with pytest.raises(CallCrashedError, match="SIGABRT"):
        crashing.result(30)
    assert after.result(30) == 9
    assert {worker.job_id for worker in warm.workers()} <= {1, 2, *[w.job_id for w in warm.workers()]}
    assert supervisors


def test_what_waits_behind_a_long_call_goes_elsewhere(warm: ProminenceExecutor, until: Until) -> None:
    assert list(warm.map(square, range(200)))[-1] == 199**2  # it has learned that calls are short
    until(lambda: len(warm.workers()) >= 1)
    long = warm.submit(time.sleep, 8)
    began = time.monotonic()
    assert [future.result(30) for future in [warm.submit(square, n) for n in range(50)]][-1] == 49**2
    assert time.monotonic() - began < 6
    assert not long.done()
    long.terminate()


def test_the_calls_of_a_lost_worker_go_to_another_one(warm: ProminenceExecutor, tmp_path: Path) -> None:
    victim = warm.submit(kills_its_worker, str(tmp_path / "marker"))
    others = [warm.submit(square, n) for n in range(20)]
    assert victim.result(60) == "survived"
    assert victim.attempts == 2
    assert [future.result(30) for future in others] == [n * n for n in range(20)]


def test_a_call_that_kills_every_worker_is_blamed_by_name(warm: ProminenceExecutor) -> None:
    assert warm.submit(square, 5).result(30) == 25
    culprit = warm.submit(kills_every_worker)
    others = [warm.submit(square, n) for n in range(10)]
    with pytest.raises(WorkerLostError, match="3 workers were lost .* call 1 of the run, test_warm.kills_every"):
        culprit.result(60)
    assert [future.result(60) for future in others] == [n * n for n in range(10)]


def test_the_call_of_a_chunk_that_kills_workers_is_found(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1, max_attempts=2) as executor:
        results = executor.map(kills_for_three, range(6), chunksize=6)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(WorkerLostError, match=r"2 workers were lost while running call 3 of the run.*for_three"):
            next(results)


def test_with_one_attempt_a_call_of_a_lost_worker_is_not_sent_again(service: LocalService, tmp_path: Path) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1, max_attempts=1) as executor:
        victim = executor.submit(kills_its_worker, str(tmp_path / "marker"))
        with pytest.raises(WorkerLostError, match="1 worker was lost"):
            victim.result(60)
        assert victim.attempts == 1


def test_purge_removes_the_mailboxes_of_programs_that_are_no_more(
    warm: ProminenceExecutor, service: LocalService
) -> None:
    assert warm.submit(square, 3).result(30) == 9
    mine = f"pxwarm/{warm.run_id}/box/x"
    warm.client.kv_set(mine, "of a run that goes on")
    warm.client.kv_set("pxwarm/somebody-20200101-000000-abcdef/box/o/00001/0", "left")
    assert "pxwarm/somebody-20200101-000000-abcdef/box" in warm.purge(older_than=0)
    with ProminenceExecutor(service.url, service.token) as other:
        other.purge(older_than=0)
        assert other.client.kv_get(mine) == "of a run that goes on"
    assert warm.submit(square, 4).result(30) == 16


def test_a_worker_whose_job_is_deleted_is_replaced(warm: ProminenceExecutor, until: Until) -> None:
    futures = [warm.submit(time.sleep, 1.5) for _ in range(2)]
    until(lambda: all(future.running() for future in futures))
    warm.client.delete_jobs([worker.job_id or 0 for worker in warm.workers()])
    assert [future.result(60) for future in futures] == [None, None]
    assert {future.attempts for future in futures} == {2}
    for future in futures:
        lost, ran = future.history
        assert (lost.job_id != ran.job_id, ran.end) == (True, "result")
        assert isinstance(lost.error, JobDeletedError | WorkerLostError)
    box = f"pxwarm/{warm.run_id}/box"
    until(lambda: not [key for key in warm.client.kv_list(box) if "/00001/" in key or "/00002/" in key])


@pytest.mark.once
def test_idle_workers_end_and_the_wanted_ones_stay(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=3, min_workers=1, idle_timeout=1.0
    ) as executor:
        futures = [executor.submit(time.sleep, 0.3) for _ in range(6)]
        until(lambda: len(executor.workers()) == 3)
        assert [future.result(30) for future in futures] == [None] * 6
        until(lambda: len(executor.workers()) == 1, 30)
        executor.scale(2)
        until(lambda: [worker.state for worker in executor.workers()] == ["idle", "idle"], 30)
        with pytest.raises(ValueError, match="max_workers"):
            executor.scale(4)
        assert sum(worker.calls for worker in executor.workers()) <= 6


def test_scaled_down_idle_workers_end_at_once(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=3, min_workers=3) as executor:
        assert executor.submit(square, 3).result(30) == 9
        until(lambda: [worker.state for worker in executor.workers()] == ["idle"] * 3, 30)
        executor.scale(1)
        until(lambda: len(executor.workers()) == 1)
        assert executor.submit(square, 4).result(30) == 16


@pytest.mark.once
def test_a_new_worker_after_all_have_ended(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", idle_timeout=0.3) as executor:
        assert executor.submit(square, 3).result(30) == 9
        until(lambda: executor.workers() == [], 30)
        assert executor.submit(square, 4).result(30) == 16


def test_nothing_is_left_at_the_service(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        assert list(executor.map(square, range(30), chunksize=3)) == [n * n for n in range(30)]
        jobs = [worker.job_id for worker in executor.workers()]
    with ProminenceExecutor(service.url, service.token) as other:
        assert other.client.kv_list("pxwarm") == []
        assert not {job["id"] for job in other.client.list_jobs()} & set(jobs)


def test_large_outcomes_and_payloads_travel(warm: ProminenceExecutor) -> None:
    content = os.urandom(100_000)  # several values
    assert warm.submit(bytes.upper, content).result(30) == content.upper()
    large = os.urandom(600_000)  # through the object store
    assert warm.submit(len, large).result(30) == 600_000
    assert warm.submit(os.urandom, 3_000_000).result(30).__len__() == 3_000_000  # likewise
    shared = np.arange(300_000.0)
    assert list(warm.map(np.sum, [shared] * 4)) == [shared.sum()] * 4
    many = list(warm.map(os.urandom, [40_000] * 60))
    assert {len(value) for value in many} == {40_000}


def test_functions_and_modules_travel_once(warm: ProminenceExecutor) -> None:
    table = os.urandom(60_000)
    before = warm.client.requests_sent
    assert list(warm.map(lambda n: table[n], range(300))) == list(table[:300])
    assert [warm.submit(square, n).result(30) for n in range(10)] == [n * n for n in range(10)]
    assert (warm.client.requests_sent - before)["POST /kv"] < 40


def test_shared_objects_travel_once_to_each_worker(warm: ProminenceExecutor) -> None:
    table = np.random.default_rng(1).random(130_000)  # does not get smaller; 1 MB
    scattered = warm.scatter(table)
    before = warm.client.requests_sent
    assert [warm.submit(np.ndarray.item, scattered, n).result(30) for n in range(5)] == table[:5].tolist()
    assert list(warm.map(lambda n: float(scattered[n]), range(300))) == table[:300].tolist()
    sent = warm.client.requests_sent - before
    workers = max(worker.number for worker in warm.workers())
    assert sent["POST /jobs"] == workers + 1  # the courier: no call had one of its own
    assert sent["PUT upload"] <= workers
    with pytest.raises(CallCrashedError):
        warm.submit(lambda: os._exit(int(scattered[0]))).result(30)
    assert warm.submit(np.sum, scattered).result(30) == table.sum()  # in another process of the worker


def test_a_large_argument_of_several_calls_is_a_copy_of_each(warm: ProminenceExecutor) -> None:
    def spoil(table: Any) -> float:
        first = float(table[0])
        table[0] = 9.0
        return first

    ones = np.ones(140_000)
    assert list(warm.map(spoil, [ones] * 20)) == [1.0] * 20
    assert [warm.submit(spoil, ones).result(30) for _ in range(3)] == [1.0] * 3


def test_what_a_call_prints_is_its_own(warm: ProminenceExecutor) -> None:
    futures = [warm.submit(print, "call", n) for n in range(5)]
    assert [future.result(30) for future in futures] == [None] * 5
    assert [future.stdout() for future in futures] == [f"call {n}\n" for n in range(5)]


def test_an_initializer_runs_once_for_each_worker(service: LocalService, tmp_path: Path) -> None:
    def begin(path: str) -> None:
        global begun
        begun = time.time()
        Path(path, str(os.getpid())).touch()

    def when() -> float:
        return begun

    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=1, initializer=begin, initargs=(str(tmp_path),)
    ) as executor:
        assert len({executor.submit(when).result(30) for _ in range(4)}) >= 1
    assert len(list(tmp_path.iterdir())) == 1


def test_options_have_workers_of_their_own(warm: ProminenceExecutor) -> None:
    other = warm.with_options(env={"KIND": "other"})
    assert other.submit(os.getenv, "KIND").result(30) == "other"
    assert warm.submit(os.getenv, "KIND").result(30) is None
    assert len(warm.workers()) == 2
    third = warm.with_options(env={"KIND": "third"})
    assert third.submit(os.getenv, "KIND").result(30) == "third"
    assert len(warm.workers()) == 2


def test_the_wanted_workers_are_as_the_calls_want_them(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=3, min_workers=3, env={"KIND": "ours"}
    ) as executor:
        assert executor.submit(os.getenv, "KIND").result(30) == "ours"
        until(lambda: [worker.state for worker in executor.workers()] == ["idle"] * 3, 30)
        futures = [executor.submit(time.sleep, 1.5) for _ in range(3)]
        until(lambda: all(future.running() for future in futures), 30)  # at the same time
        assert {worker.number for worker in executor.workers()} == {1, 2, 3}


def test_terminate_ends_the_call_and_not_the_worker(warm: ProminenceExecutor, until: Until) -> None:
    future = warm.submit(time.sleep, 60)
    until(future.running)
    assert future.terminate()
    with pytest.raises(JobDeletedError, match="terminate"):
        future.result(20)
    assert warm.submit(square, 3).result(30) == 9
    assert warm.workers()[0].number == 1


def test_a_cancelled_call_does_not_run(service: LocalService, tmp_path: Path, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        busy = executor.submit(time.sleep, 1.0)
        until(busy.running)
        waiting = [executor.submit(Path.touch, tmp_path / str(n)) for n in range(3)]
        assert waiting[1].cancel()
        assert [waiting[0].result(30), waiting[2].result(30)] == [None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


@pytest.mark.slow
def test_a_call_that_begins_late_in_a_workers_walltime_begins_again_on_another(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_worker = "prominence_executor.transports.warm.describe.runner_seconds"
    monkeypatch.setattr(of_worker, lambda options: 8.0)  # walltimes are minutes
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        first = executor.submit(time.sleep, 4)
        late = executor.submit(time.sleep, 4.5)
        assert [first.result(60), late.result(60)] == [None, None]
        assert (first.attempts, late.attempts) == (1, 2)
        assert first.job_id != late.job_id
        endless = executor.submit(time.sleep, 30)
        with pytest.raises(WalltimeExceededError):
            endless.result(60)
        monkeypatch.setattr(of_worker, lambda options: 60.0)
        assert executor.submit(square, 3).result(60) == 9


@pytest.mark.once
def test_an_idle_worker_ends_before_its_walltime_and_is_replaced(
    service: LocalService, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr("prominence_executor.transports.warm.describe.runner_seconds", lambda options: 8.0)
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(square, 3).result(30) == 9
        until(lambda: executor.workers() == [], 30)
        assert executor.submit(square, 4).result(30) == 16


@pytest.mark.once
@pytest.mark.parametrize(
    "fault",
    [
        reset_before(), reset_after(), dropped(), late(0.3), html(), status(429), status(500), status(503),
        status(500, forwarded=True), truncated(), shortened(), corrupted(), dripped(0.1), omitting(), naming_twice(),
        unknown_status(), misshapen(), too_deep(), told_to_wait(),
    ],
    ids=lambda fault: fault.name,
)  # fmt: skip
def test_faults_of_the_service_cost_time_only(service: LocalService, fault: Any) -> None:
    with (
        FaultProxy(service.url, seed=3) as proxy,
        ProminenceExecutor(proxy.url, service.token, workers="warm", max_workers=2) as executor,
    ):
        proxy.inject(fault, probability=0.1)
        futures = [executor.submit(square, n) for n in range(300)]
        assert [future.result(60) for future in futures] == [n * n for n in range(300)]
        proxy.heal()


@pytest.mark.once
@pytest.mark.parametrize("fault", [html(), corrupted(), truncated(), status(503)], ids=lambda fault: fault.name)
def test_faults_between_workers_and_service_cost_time_only(fault: Any) -> None:
    port = unused_port()
    with (
        FaultProxy(f"http://127.0.0.1:{port}/prominence/v1", seed=3) as proxy,
        LocalService(port=port, url_for_jobs=proxy.url) as own,
        ProminenceExecutor(own.url, own.token, workers="warm", max_workers=2) as executor,
    ):
        assert executor.submit(os.getenv, "PROMINENCE_URL").result(30) == proxy.url
        proxy.inject(fault, probability=0.1)
        futures = [executor.submit(square, n) for n in range(300)]
        assert [future.result(60) for future in futures] == [n * n for n in range(300)]
        assert all(future.attempts == 1 for future in futures)
        proxy.heal()


@pytest.mark.once
@pytest.mark.parametrize("fault", [html(), corrupted()], ids=lambda fault: fault.name)
def test_what_comes_damaged_to_a_worker_that_waits_to_hear_of_an_end_costs_no_worker(fault: Any, until: Until) -> None:
    port = unused_port()
    with (
        FaultProxy(f"http://127.0.0.1:{port}/prominence/v1", seed=3) as proxy,
        LocalService(port=port, url_for_jobs=proxy.url) as own,
        ProminenceExecutor(own.url, own.token, workers="warm", max_workers=1) as executor,
    ):
        first = executor.submit(os.getenv, "PROMINENCE_JOB_ID")
        assert first.result(30)
        rule = proxy.inject(fault, path="/c/", times=3)
        ended = executor.submit(time.sleep, 60)
        until(ended.running)
        ended.terminate()
        assert isinstance(ended.exception(30), JobDeletedError)
        assert executor.submit(os.getenv, "PROMINENCE_JOB_ID").result(30) == first.result()
        assert rule.injected


@pytest.mark.once
def test_a_store_of_keys_that_is_away_for_a_while(service: LocalService, until: Until) -> None:
    with (
        FaultProxy(service.url, seed=3) as proxy,
        ProminenceExecutor(proxy.url, service.token, workers="warm", max_workers=2) as executor,
    ):
        assert executor.submit(square, 3).result(30) == 9
        proxy.inject(status(400, body='{"error": "Unable to access key-value store"}'), path="/kv")
        future = executor.submit(square, 4)
        time.sleep(1.0)
        assert not future.done()
        proxy.heal()
        assert future.result(60) == 16


@pytest.mark.once
def test_a_service_that_goes_away_for_a_while(service: LocalService) -> None:
    with (
        FaultProxy(service.url, seed=3) as proxy,
        ProminenceExecutor(proxy.url, service.token, workers="warm", max_workers=2) as executor,
    ):
        assert executor.submit(square, 3).result(30) == 9
        proxy.refuse(2.0)
        assert [future.result(60) for future in [executor.submit(square, n) for n in range(5)]] == [0, 1, 4, 9, 16]


def test_what_is_not_signed_breaks_the_run_and_is_not_unpickled(service: LocalService, until: Until) -> None:
    executor = ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1)
    future = executor.submit(time.sleep, 20)
    until(future.running)
    executor.client.kv_set(f"pxwarm/{executor.run_id}/box/o/00001/0", "99:1:" + "QUJD" * 30)
    with pytest.raises(BrokenRunError, match="not signed"):
        future.result(30)
    executor.shutdown()


def test_an_image_with_another_python_is_said(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prominence_executor.payload.instructions.PYTHON", "2.7")
    with ProminenceExecutor(service.url, service.token, workers="warm") as executor:
        with pytest.raises(PythonMismatchError):
            executor.submit(square, 3).result(60)


def test_a_job_that_fits_nowhere_is_said(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", image="nosuch.sif") as executor:
        with pytest.raises(Exception, match="nosuch.sif"):
            executor.submit(square, 3).result(60)


@pytest.mark.once
def test_requests_are_bounded(service: LocalService) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers="warm", max_workers=2, max_requests_per_second=30
    ) as executor:
        assert executor.submit(square, 3).result(30) == 9

        def made() -> int:
            kinds = executor.client.requests_sent
            ours = sum(number for kind, number in kinds.items() if "/kv" in kind)
            return ours + sum(worker.requests for worker in executor.workers())

        time.sleep(1.5)
        executor.submit(square, 3).result(30)
        before, began = made(), time.monotonic()
        while time.monotonic() < began + 5:
            assert list(executor.map(square, range(2))) == [0, 1]
        assert made() - before <= 30 * (time.monotonic() - began + 1) * 1.1


WRONG = [
    ({"workers": "cold"}, "workers must be .*'cold'"),
    ({"min_workers": 3, "max_workers": 2}, "min_workers must be 0 to max_workers, 2, not 3"),
    ({"idle_timeout": 0}, "idle_timeout must be above 0, not 0"),
    ({"max_requests_per_second": 0}, "max_requests_per_second must be above 0, not 0"),
    ({"max_attempts": 0}, "max_attempts, .*not 0"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_wrong_options_are_said(service: LocalService, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProminenceExecutor(service.url, service.token, **{"workers": "warm", **wrong})


def test_without_warm_workers_there_is_nothing_to_scale(executor: ProminenceExecutor) -> None:
    assert executor.workers() == []
    with pytest.raises(RuntimeError, match="warm"):
        executor.scale(1)


def keeps_printing(seconds: float) -> None:
    """Leave a thread and a process behind that print."""

    def prints() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            os.write(1, b"some words that are no outcome\n" * 10)
            time.sleep(0.0001)

    threading.Thread(target=prints, daemon=True).start()
    script = (
        f"import os, time\nuntil = time.monotonic() + {seconds}\nwhile time.monotonic() < until:\n os.write(1, b'x')"
    )
    subprocess.Popen([sys.executable, "-S", "-c", script])


def test_a_large_result_is_found_while_others_print(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        executor.submit(keeps_printing, 4.0).result(30)
        for number in range(8):
            assert executor.submit(bytes, 3_000_000 + number).result(30) == bytes(3_000_000 + number)


def crashes_beside_a_child(seconds: float) -> None:
    """Leave a child behind that holds all that this process has open."""
    if not os.fork():
        time.sleep(seconds)
        os._exit(0)
    os._exit(7)


def test_a_crash_is_noticed_though_a_child_of_the_call_lives(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(square, 3).result(30) == 9
        began = time.monotonic()
        with pytest.raises(CallCrashedError, match="exit code 7"):
            executor.submit(crashes_beside_a_child, 20.0).result(30)
        assert time.monotonic() - began < 10
        assert executor.submit(square, 4).result(30) == 16


def service_in_environment() -> tuple[str, str]:
    return os.environ["PROMINENCE_URL"], os.environ["PROMINENCE_TOKEN"]


def test_a_worker_keeps_its_own_service_apart_from_the_one_that_calls_are_told(service: LocalService) -> None:
    env = {"PROMINENCE_URL": "http://127.0.0.1:9/prominence/v1", "PROMINENCE_TOKEN": "another", "KIND": "x"}
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1, env=env) as executor:
        assert executor.submit(service_in_environment).result(30) == (env["PROMINENCE_URL"], "another")
        assert executor.submit(os.getenv, "KIND").result(30) == "x"
