"""What the network and the service do to a run: every call still ends once, with its own result or a true reason."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from proxy import (
    ODD_SHAPES,
    Fault,
    FaultProxy,
    away,
    bomb,
    corrupted,
    dripped,
    dropped,
    endless,
    hang,
    html,
    late,
    misshapen,
    naming_twice,
    omitting,
    refused_token,
    reset_after,
    reset_before,
    rewritten,
    shortened,
    status,
    too_deep,
    truncated,
    unknown_status,
)

from prominence_executor import (
    BrokenRunError,
    CallCrashedError,
    JobDeletedError,
    JobError,
    ProminenceError,
    ProminenceExecutor,
    Resources,
    ServiceUnavailableError,
    SignatureError,
)
from prominence_executor.client.client import ProminenceClient
from prominence_executor.local import LocalService

CREATING = r"^/jobs$"
LISTS = r"^/jobs\?constraint="  # of the run's active jobs
DETAILS = r"^/jobs\?detail="  # of those that have left them
LOOK_UPS = r"^/jobs\?all="  # of a job whose POST had no answer
OUTCOMES = r"^/prominence-objects/"

Until = Callable[..., None]


class Lines:
    """A file to which each call writes a line as it runs, so that executions can be counted."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        path.touch()

    def square(self, seconds: float = 0.0) -> Callable[[int], int]:
        """A call that leaves its line, takes some time, and has a result that can be checked."""
        path = self._path

        def noted(n: int) -> int:
            with open(path, "ab", buffering=0) as file:  # one write in append mode: lines do not mix
                file.write(b"%d\n" % n)
            time.sleep(seconds)
            return n * n

        return noted

    def count(self) -> Counter[int]:
        return Counter(map(int, Path(self._path).read_text().split()))


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path / "lines")


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url, seed=7) as proxy:
        yield proxy


@contextmanager
def through(
    proxy: FaultProxy, token: Any, *, patience: float | None = None, **more: Any
) -> Iterator[ProminenceExecutor]:
    """An executor on the proxy; with ``patience``, its client waits and repeats no longer than so many seconds."""
    with ProminenceExecutor(proxy.url, token, poll_interval=(0.05, 0.5), **more) as executor:
        if patience is not None:
            executor.client.api.timeout = (patience, patience)
            executor.client.api.retry_for = patience
        yield executor


@pytest.fixture
def executor(service: LocalService, proxy: FaultProxy) -> Iterator[ProminenceExecutor]:
    with through(proxy, service.token) as executor:
        yield executor


@pytest.fixture
def one_by_one(proxy: FaultProxy) -> None:
    """A service without workflows, which gets a request for each job."""
    proxy.inject(status(404, body='{"error": "no workflows here"}'), path="^/workflows")


slow = pytest.mark.slow
pytestmark = slow  # none of it depends on Python's version, and waiting takes its time


def names_of(fault: Fault) -> str:
    return fault.name.replace(" ", "-")


# -- each fault alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        reset_before(),
        reset_after(),
        dropped(),
        hang(0.3),
        status(500),
        status(500, forwarded=True),
        status(502),
        status(503, forwarded=True),
        status(503, retry_after=1),
        status(429, retry_after=1),
        truncated(),
        shortened(),
        corrupted(),
        html(),
        html(forwarded=True),
        dripped(0.5),
        misshapen(),
        too_deep(),
    ],
    ids=names_of,
)
def test_whatever_becomes_of_an_answer_all_results_are_right_and_each_call_runs_once(
    proxy: FaultProxy, executor: ProminenceExecutor, one_by_one: None, lines: Lines, fault: Fault
) -> None:
    rules = [
        proxy.inject(fault, method="POST", path=CREATING, every=3, times=3),  # the repeated ones come after those
        proxy.inject(fault, method="GET", path=LISTS, every=2, times=4),
        proxy.inject(fault, method="GET", path=DETAILS, times=2),
        proxy.inject(fault, method="GET", path=OUTCOMES, every=3, times_each=2),  # four times alike would be believed
    ]
    assert list(executor.map(lines.square(), range(20), chunksize=2)) == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))
    assert sum(rule.injected > 0 for rule in rules) >= 3  # when all jobs end at once there may be one list


@pytest.mark.parametrize("fault", [endless(), bomb()], ids=names_of)
def test_an_answer_without_an_end_costs_time_only(
    proxy: FaultProxy, executor: ProminenceExecutor, one_by_one: None, lines: Lines, fault: Fault
) -> None:
    rules = [proxy.inject(fault, path=path, times=1) for path in (CREATING, LISTS, DETAILS, LOOK_UPS, OUTCOMES)]
    assert list(executor.map(lines.square(), range(4))) == [0, 1, 4, 9]
    assert lines.count() == Counter(range(4))
    assert all(rule.injected for rule in rules)


@pytest.mark.parametrize("kind", ODD_SHAPES)
def test_one_odd_list_or_description_harms_no_run(
    proxy: FaultProxy, executor: ProminenceExecutor, one_by_one: None, lines: Lines, kind: str
) -> None:
    proxy.inject(dropped(), method="POST", path=CREATING, times=1)
    rules = [
        proxy.inject(misshapen(kind), path=path, times=1) for path in (LISTS, DETAILS, LOOK_UPS, CREATING) for _ in "ab"
    ]
    assert list(executor.map(lines.square(), range(3))) == [0, 1, 4]
    assert lines.count() == Counter(range(3))
    assert all(rule.injected for rule in rules)


@pytest.mark.parametrize("fault", [omitting(), naming_twice(), unknown_status()], ids=names_of)
@pytest.mark.parametrize("every", [1, 2])
def test_whatever_lists_say_all_results_are_right_and_each_call_runs_once(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines, fault: Fault, every: int
) -> None:
    rules = [
        proxy.inject(fault, method="GET", path=LISTS, every=every),
        proxy.inject(fault, method="GET", path=DETAILS, times=3),  # when all jobs end at once there may be one
    ]
    assert list(executor.map(lines.square(), range(20))) == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))
    assert all(rule.injected for rule in rules)


@pytest.mark.parametrize(
    "fault",
    [
        reset_before(),
        reset_after(),
        dropped(),
        status(500),
        status(500, forwarded=True),
        status(503, forwarded=True),
        status(429, retry_after=1),
        truncated(),
        shortened(),
        html(),
        html(forwarded=True),
    ],
    ids=names_of,
)
def test_whatever_becomes_of_an_arrays_creation_each_call_runs_once(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines, fault: Fault
) -> None:
    rules = [
        proxy.inject(fault, method="POST", path="^/data/upload$", times=1),
        proxy.inject(fault, method="POST", path="^/workflows$", times=1),
        proxy.inject(fault, method="GET", path="^/workflows", times=1),  # a look-up, if there is one
    ]
    assert list(executor.map(lines.square(), range(20))) == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))
    assert all(rule.injected for rule in rules[:2])


def test_a_hanging_service_costs_the_clients_timeout_and_no_call(
    service: LocalService, proxy: FaultProxy, one_by_one: None, lines: Lines
) -> None:
    with through(proxy, service.token, patience=1.0) as executor:
        rules = [proxy.inject(hang(), path=path, every=4, times=3) for path in (CREATING, OUTCOMES)]
        rules += [proxy.inject(hang(), path=path, times=2) for path in (LISTS, DETAILS)]  # there may be no more
        assert list(executor.map(lines.square(), range(20))) == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))
    assert all(rule.injected for rule in rules)


@pytest.mark.parametrize("path", ["^/data/upload$", OUTCOMES], ids=["asking", "putting"])
def test_large_payloads_arrive_through_failing_uploads(
    proxy: FaultProxy, executor: ProminenceExecutor, path: str
) -> None:
    """More than one request holds goes to the object store, by a URL asked for at the service."""
    kinds = [reset_before(), reset_after(), dropped(), status(503), status(500), truncated(), html()]
    if path != OUTCOMES:
        kinds += [shortened(), corrupted()]  # the object store's own answer is empty
    rules = [proxy.inject(fault, method="PUT" if path == OUTCOMES else "POST", path=path, times=1) for fault in kinds]
    contents = [os.urandom(1_000_000) for _ in range(8)]
    assert list(executor.map(len, contents)) == [1_000_000] * 8
    assert all(rule.injected for rule in rules)


def test_a_download_that_was_cut_short_goes_on_where_it_was(proxy: FaultProxy, executor: ProminenceExecutor) -> None:
    rule = proxy.inject(truncated(), method="GET", path=OUTCOMES, times=1)
    assert len(executor.submit(os.urandom, 4_000_000).result(30)) == 4_000_000
    assert rule.injected == 1
    assert proxy.bytes_received < 4_300_000


# -- exactly once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [30, 120])  # of the latter, one detailed request does not hold all
def test_with_every_third_answer_of_a_creation_dropped_each_call_runs_exactly_once(
    proxy: FaultProxy, executor: ProminenceExecutor, one_by_one: None, lines: Lines, calls: int
) -> None:
    proxy.inject(dropped(), method="POST", path=CREATING, every=3)
    assert list(executor.map(lines.square(), range(calls))) == [n * n for n in range(calls)]
    assert lines.count() == Counter(range(calls))
    assert proxy.injected["dropped"] >= calls // 3


def test_a_creation_that_arrives_while_it_is_looked_up_is_not_repeated(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines
) -> None:
    proxy.inject(late(1.5), method="POST", path=CREATING, every=2)
    assert list(executor.map(lines.square(), range(6))) == [n * n for n in range(6)]
    assert lines.count() == Counter(range(6))


@pytest.mark.parametrize("fault", [omitting(), naming_twice(), unknown_status()], ids=names_of)
def test_whatever_a_look_up_says_the_job_is_found_and_left_alone(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines, fault: Fault
) -> None:
    proxy.inject(dropped(), method="POST", path=CREATING, times=1)
    rule = proxy.inject(fault, path=LOOK_UPS, times=1)
    assert list(executor.map(lines.square(0.5), range(3))) == [0, 1, 4]
    assert lines.count() == Counter(range(3))
    assert rule.injected == 1


def test_of_two_jobs_that_have_both_ended_one_counts(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines, until: Until
) -> None:
    """The job of a dropped answer is missing from both look-ups, and the answer of its repetition is dropped, too.

    No list comes before both have run: the second would be deleted as a twin.
    """
    proxy.inject(dropped(), method="POST", path=CREATING, times=2)
    rule = proxy.inject(omitting(), path=LOOK_UPS, times=2)
    early = proxy.inject(status(503), method="GET", path=r"^/jobs\?")
    future = executor.submit(lines.square(), 3)
    until(lambda: sum(lines.count().values()) == 2)
    proxy.heal(early)
    assert future.result(30) == 9
    assert rule.injected == 2
    assert lines.count() == {3: 2}  # nothing could have told that it had run


@pytest.mark.parametrize("seconds", [4.5, 7.0])
def test_of_two_jobs_that_came_of_one_attempt_one_counts_and_the_later_is_deleted(
    service: LocalService, proxy: FaultProxy, lines: Lines, until: Until, seconds: float
) -> None:
    proxy.inject(late(seconds), method="POST", path=CREATING, times=1)
    with ProminenceClient(service.url, service.token) as client:
        with through(proxy, service.token) as executor:
            results = [executor.submit(lines.square(seconds=8), n) for n in range(3)]

            def statuses() -> list[str]:
                jobs = client.list_jobs(all=True, constraint=("pxrun", executor.run_id))
                named = Counter(job["name"] for job in jobs)
                twins = sorted((job["id"], job["status"]) for job in jobs if named[job["name"]] == 2)
                return [status for _, status in twins]

            # A list may lack a job that ends at that moment. One that was not deleted would say that it was completed.
            until(lambda: statuses()[1:] == ["deleted"])
            assert [future.result(30) for future in results] == [0, 1, 4]
            assert statuses() == ["completed", "deleted"]
        assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []


# -- the service is away -----------------------------------------------------------------------------------------------


def test_futures_wait_out_a_service_that_is_away(
    proxy: FaultProxy, executor: ProminenceExecutor, lines: Lines, until: Until
) -> None:
    results = [executor.submit(lines.square(0.2), n) for n in range(20)]
    until(lambda: sum(future.done() for future in results) >= 3)
    proxy.refuse(4)
    assert [future.result(60) for future in results] == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))


def test_short_absences_again_and_again_harm_no_call(
    proxy: FaultProxy, executor: ProminenceExecutor, one_by_one: None, lines: Lines
) -> None:
    rule = proxy.inject(away(0.5), every=12, times=4)
    assert list(executor.map(lines.square(), range(20))) == [n * n for n in range(20)]
    assert lines.count() == Counter(range(20))
    assert rule.injected == 4


@pytest.mark.parametrize("silence", ["refused", "hang"])
def test_a_service_that_stays_away_ends_the_futures_with_the_runs_id(
    service: LocalService, proxy: FaultProxy, until: Until, silence: str
) -> None:
    with through(proxy, service.token, service_timeout=2.0, max_workers=6) as executor:
        if silence == "hang":
            executor.client.api.timeout = (1.0, 1.0)  # else each of its requests takes a minute to fail
        accepted = [executor.submit(time.sleep, 60) for _ in range(3)]
        until(lambda: all(future.running() for future in accepted))
        if silence == "refused":
            proxy.refuse()
        else:
            proxy.inject(hang())
        began = time.monotonic()
        unsent = [executor.submit(time.sleep, 0) for _ in range(6)]  # three of them have room, three have not
        done, waiting = futures.wait([*accepted, *unsent], timeout=20)
        assert not waiting
        for future in done:
            with pytest.raises(ServiceUnavailableError, match=executor.run_id):
                future.result()
        executor.shutdown()
        assert time.monotonic() - began < 10
    delete_jobs_of(service, executor.run_id)


def test_shutdown_in_the_middle_of_an_absence_does_not_hang(
    service: LocalService, proxy: FaultProxy, until: Until
) -> None:
    with through(proxy, service.token) as executor:
        calls = [executor.submit(time.sleep, 60) for _ in range(12)]  # the service has room for 8
        until(lambda: sum(future.running() for future in calls) == 8)
        running = [future for future in calls if future.running()]
        with proxy.refusing():
            executor.shutdown(wait=False, cancel_futures=True)
            assert sum(future.cancelled() for future in calls) == 4
        delete_jobs_of(service, executor.run_id)
        for future in running:
            assert isinstance(future.exception(20), JobDeletedError)


def delete_jobs_of(service: LocalService, run_id: str) -> None:
    with ProminenceClient(service.url, service.token) as client:
        client.delete_jobs(job["id"] for job in client.list_jobs(constraint=("pxrun", run_id)))


class Service:
    """The embedded service as a program of its own, in a directory and on a port that outlast it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = "0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "prominence_executor.local", "--quiet", "--cpus", "4", "--memory", "16"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder), "--port", self._port],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip().partition("=")[2]
        assert self._process.stdout.readline()
        self._port = self.url.rpartition(":")[2].partition("/")[0]
        self.token = (self._folder / "token").read_text()

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.communicate()


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_service_that_is_killed_and_started_again_loses_only_what_was_running(
    tmp_path: Path, lines: Lines, until: Until, seconds: float
) -> None:
    service = Service(tmp_path / "service")
    try:
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            calls = [executor.submit(lines.square(0.2), n) for n in range(40)]
            until(lambda: sum(future.done() for future in calls) >= 6)
            service.end(signal.SIGKILL)
            time.sleep(seconds)  # nothing to wait for: this is how long it is away
            service.start()
            done, waiting = futures.wait(calls, timeout=60)
            assert not waiting
            jobs = {job["id"]: job for job in executor.client.list_jobs(all=True, completed=True, num=-1)}
            lost = 0
            for n, future in enumerate(calls):
                job = jobs[future.job_id]
                if job["status"] == "completed":
                    assert future.result() == n * n
                else:
                    lost += 1
                    with pytest.raises(JobError, match="restarted"):
                        future.result()
            assert lost <= 4
            assert len(jobs) == 40
    finally:
        service.end(signal.SIGTERM)
    assert all(count == 1 for count in lines.count().values())


# -- the token ---------------------------------------------------------------------------------------------------------


def test_a_token_that_expires_is_asked_for_again_and_no_call_notices(
    service: LocalService, proxy: FaultProxy, lines: Lines, until: Until
) -> None:
    old, new = service.token_for("local", 3000), service.token_for("local", 4000)
    given: list[str] = []

    def token() -> str:
        given.append(new if given else old)
        return given[-1]

    with through(proxy, token) as executor:
        calls = [executor.submit(lines.square(0.2), n) for n in range(20)]
        until(lambda: any(future.done() for future in calls))
        rule = proxy.inject(refused_token(old))
        assert [future.result(30) for future in calls] == [n * n for n in range(20)]
    assert rule.injected
    assert given == [old, new]
    assert lines.count() == Counter(range(20))


def test_a_token_file_is_read_again(
    service: LocalService, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    old, new = service.token_for("local", 3000), service.token_for("local", 4000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PROMINENCE_TOKEN", raising=False)
    (tmp_path / ".prominence").mkdir()
    file = tmp_path / ".prominence" / "token"
    file.write_text(old)
    with through(proxy, None) as executor:
        calls = [executor.submit(pow, n, 2) for n in range(20)]
        until(lambda: any(future.done() for future in calls))
        file.write_text(new)
        proxy.inject(refused_token(old))
        assert [future.result(30) for future in calls] == [n * n for n in range(20)]


def test_a_token_that_stays_refused_breaks_the_executor_within_seconds(
    service: LocalService, proxy: FaultProxy, until: Until
) -> None:
    with through(proxy, lambda: service.token, max_workers=12) as executor:
        calls = [executor.submit(time.sleep, 60) for _ in range(16)]  # running, idle, and not sent
        until(lambda: sum(future.running() for future in calls) == 8)
        began = time.monotonic()
        proxy.inject(refused_token())
        for future in calls:
            error = future.exception(10)
            assert isinstance(error, BrokenExecutor)
            assert executor.run_id in str(error)
            assert "Authentication failure" in str(error)
            assert f"with a new one ProminenceExecutor.attach({executor.run_id!r}) finds its jobs" in str(error)
        with pytest.raises(BrokenRunError, match=executor.run_id):
            executor.submit(pow, 2, 2)
        executor.shutdown()
        assert time.monotonic() - began < 10
    delete_jobs_of(service, executor.run_id)


# -- one job ----------------------------------------------------------------------------------------------------------


def test_jobs_that_are_deleted_from_elsewhere_break_no_others_future(service: LocalService, until: Until) -> None:
    with (
        ProminenceClient(service.url, service.token) as elsewhere,
        ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor,
    ):
        idle = executor.with_options(resources=Resources(cpus=100)).submit(pow, 2, 2)
        running = executor.submit(time.sleep, 60)
        others = [executor.submit(pow, n, 2) for n in range(6)]
        until(lambda: running.running() and idle.job_id is not None)
        elsewhere.delete_jobs([future.job_id for future in (idle, running) if future.job_id])
        for future in (idle, running):
            with pytest.raises(JobDeletedError) as caught:
                future.result(30)
            assert caught.value.job_id == future.job_id
        assert [future.result(30) for future in others] == [n * n for n in range(6)]


# -- outcomes that are not what the call left behind -------------------------------------------------------------------

MAGIC = b"PXOUT1\n"
PREFIX = struct.Struct(">QI32s")  # length of the body, length of the header, HMAC of the header


class Canary:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> Any:
        return open, (self._path, "w")


@dataclass
class Record:
    """One record of an outcome file: the pickled outcome of a call, what is said of it, and the signature of that."""

    body: bytes
    header: bytes
    mac: bytes

    def about(self, **changes: Any) -> Record:
        return replace(self, header=json.dumps({**json.loads(self.header), **changes}).encode())


def records_of(file: bytes) -> list[Record]:
    records, at = [], len(MAGIC)
    while at < len(file):
        size, length, mac = PREFIX.unpack_from(file, at)
        at += PREFIX.size
        records.append(Record(file[at : at + size], file[at + size : at + size + length], mac))
        at += size + length
    return records


def file_of(records: list[Record]) -> bytes:
    return MAGIC + b"".join(PREFIX.pack(len(r.body), len(r.header), r.mac) + r.body + r.header for r in records)


def in_place(record: Record, canary: bytes) -> Record:
    return replace(record, body=canary.ljust(len(record.body), b"."))


def with_its_length(record: Record, canary: bytes) -> Record:
    return replace(record, body=canary)


def described(record: Record, canary: bytes) -> Record:
    return replace(record, body=canary).about(size=len(canary), sha256=hashlib.sha256(canary).hexdigest())


def signed_with_another_key(record: Record, canary: bytes) -> Record:
    forged = described(record, canary)
    return replace(forged, mac=hmac.new(bytes(32), forged.header, hashlib.sha256).digest())


@pytest.mark.parametrize("forge", [in_place, with_its_length, described, signed_with_another_key])
def test_a_tampered_outcome_is_never_unpickled(
    proxy: FaultProxy, executor: ProminenceExecutor, tmp_path: Path, forge: Callable[[Record, bytes], Record]
) -> None:
    canary = pickle.dumps(Canary(tmp_path / "sang"))

    def change(file: bytes) -> bytes:
        *before, last = [record for record in records_of(file) if record.body]
        return file_of([*before, forge(last, canary)])

    rule = proxy.inject(rewritten("tampered", change), method="GET", path=OUTCOMES)
    for call in (executor.submit(bytes, 1000), executor.submit(int, "x" * 1000)):  # a result, and an exception
        with pytest.raises(SignatureError):
            call.result(30)
    assert rule.injected
    assert not (tmp_path / "sang").exists()
    pickle.loads(canary).close()
    assert (tmp_path / "sang").exists()  # it can sing


@pytest.mark.parametrize("kind", ["pickle", "noise", "nothing"])
def test_what_is_no_outcome_file_is_never_unpickled(
    proxy: FaultProxy, executor: ProminenceExecutor, tmp_path: Path, kind: str
) -> None:
    content = {"pickle": pickle.dumps(Canary(tmp_path / "sang")), "noise": os.urandom(1000), "nothing": b""}[kind]
    proxy.inject(rewritten(kind, lambda file: content), method="GET", path=OUTCOMES)
    with pytest.raises(SignatureError):
        executor.submit(pow, 2, 2).result(30)
    assert not (tmp_path / "sang").exists()


def test_the_outcome_of_another_job_or_run_is_not_taken(
    service: LocalService, proxy: FaultProxy, executor: ProminenceExecutor
) -> None:
    files: list[bytes] = []

    def first(file: bytes) -> bytes:
        files.append(file)
        return files[0]

    proxy.inject(rewritten("swapped", first), method="GET", path=OUTCOMES)
    assert executor.submit(pow, 2, 2).result(30) == 4
    with pytest.raises(SignatureError):
        executor.submit(pow, 2, 3).result(30)
    with through(proxy, service.token) as another, pytest.raises(SignatureError):
        another.submit(pow, 2, 2).result(30)


def test_in_a_chunk_the_outcome_of_another_call_is_not_taken(proxy: FaultProxy, executor: ProminenceExecutor) -> None:
    def swap(file: bytes) -> bytes:
        records = records_of(file)
        first, second = [record for record in records if record.body]
        first.body, second.body = second.body, first.body
        return file_of(records)

    proxy.inject(rewritten("swapped", swap), method="GET", path=OUTCOMES)
    results = executor.map(pow, [2, 3], [2, 2], chunksize=2)
    with pytest.raises(SignatureError):
        next(results)


@pytest.mark.parametrize("place", [0, 4, 8], ids=["by far", "of the body", "of the header"])
def test_an_outcome_whose_length_was_damaged_on_its_way_is_fetched_again(
    proxy: FaultProxy, executor: ProminenceExecutor, place: int
) -> None:
    def change(file: bytes) -> bytes:
        records = records_of(file)
        at = len(file_of(records[: next(n for n, record in enumerate(records) if record.body)])) + place
        return file[:at] + bytes([file[at] ^ 0x80]) + file[at + 1 :]

    rule = proxy.inject(rewritten("damaged", change), method="GET", path=OUTCOMES, times=1)
    assert executor.submit(pow, 2, 2).result(30) == 4
    assert rule.injected == 1


@pytest.mark.parametrize(
    "fault",
    [truncated(), shortened(), corrupted(0), html(), status(503)],
    ids=names_of,
)
def test_an_outcome_that_never_arrives_whole_is_a_lost_one_and_no_crash(
    service: LocalService, proxy: FaultProxy, fault: Fault
) -> None:
    with through(proxy, service.token, patience=0.3, service_timeout=3.0) as executor:
        calls = [executor.submit(pow, n, 2) for n in range(2)]
        proxy.inject(fault, method="GET", path=OUTCOMES)
        for future in calls:
            error = future.exception(30)
            assert isinstance(error, SignatureError if fault.name in ("corrupted", "html 200") else ProminenceError)
            assert not isinstance(error, CallCrashedError)
            assert "outcome" in str(error)
        proxy.heal()
        assert executor.submit(pow, 2, 2).result(30) == 4
