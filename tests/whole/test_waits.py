"""Every wait ends: at a time that makes sense, at shutdown, and when a part of the run meets what nobody foresaw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from paths import ROOT
from proxy import ODD_PAUSES, FaultProxy, refused_token, status, told_to_wait

from prominence_executor import BrokenRunError, ProminenceClient, ProminenceExecutor
from prominence_executor.executor.run import Run
from prominence_executor.executor.settings import Service, run_settings
from prominence_executor.local import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.once]

Until = Callable[..., None]
CREATING, LISTS, KEYS = r"^/jobs$", r"^/jobs\?constraint=", r"^/kv"


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url, seed=7) as proxy:
        yield proxy


def delete_jobs_of(service: LocalService, run_id: str) -> None:
    with ProminenceClient(service.url, service.token) as client:
        jobs = [job["id"] for label in ("pxrun", "pxworker") for job in client.list_jobs(constraint=(label, run_id))]
        if jobs:
            client.delete_jobs(jobs)


# -- what the service dictates -----------------------------------------------------------------------------------------


def test_a_service_that_asks_for_an_hour_is_asked_again_when_it_makes_sense(
    service: LocalService, proxy: FaultProxy
) -> None:
    rules = [proxy.inject(told_to_wait(), path=path, times=len(ODD_PAUSES)) for path in (CREATING, LISTS)]
    with ProminenceExecutor(proxy.url, service.token, poll_interval=(0.05, 0.5), service_timeout=2.0) as executor:
        executor.client.api.retry_for = 0.1
        warm_up = executor.client.health()  # so that the service has been reached
        assert warm_up == {}
        began = time.monotonic()
        futures = [executor.submit(pow, n, 2) for n in range(7)]
        assert [future.result(60) for future in futures] == [n * n for n in range(7)]
        assert time.monotonic() - began < 40
    assert all(rule.injected for rule in rules)


@pytest.mark.parametrize("workers", [None, "warm"])
def test_shutdown_ends_the_wait_for_such_a_service(
    service: LocalService, proxy: FaultProxy, until: Until, workers: str | None
) -> None:
    rule = proxy.inject(status(503, retry_after=3600), method="POST", path=CREATING)
    executor = ProminenceExecutor(proxy.url, service.token, workers=workers)  # type: ignore[arg-type]
    future = executor.submit(pow, 2, 2)
    until(lambda: rule.injected)
    time.sleep(0.3)  # by now it waits
    began = time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 10
    assert future.cancelled()


# -- a machine that was asleep -----------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from prominence_executor import ProminenceExecutor
url, token, workers = sys.argv[1:]
with ProminenceExecutor(
    url, token, poll_interval=(0.05, 0.3), service_timeout=8.0, workers=workers or None, name="asleep"
) as executor:
    executor.client.api.retry_for = 0.2
    future = executor.submit(time.sleep, 2)
    while not future.running():
        time.sleep(0.02)
    print("running", flush=True)
    print(future.result(60), flush=True)
"""


@pytest.mark.parametrize("workers", ["", "warm"])
def test_a_program_that_was_stopped_while_the_service_was_away_goes_on_waiting(
    service: LocalService, proxy: FaultProxy, workers: str
) -> None:
    arguments = [sys.executable, "-c", PROGRAM, proxy.url, service.token, workers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        with proxy.refusing():
            time.sleep(1.0)  # the first requests fail
            program.send_signal(signal.SIGSTOP)
            time.sleep(10.0)  # longer than it is patient
            program.send_signal(signal.SIGCONT)
            time.sleep(1.0)  # the next ones fail, too
        assert program.stdout.readline() == "None\n"
        assert program.wait(30) == 0


# -- what nobody foresaw -----------------------------------------------------------------------------------------------


class Leaving:
    """A user's callable for the token that ends the program, as it sees it, when it is asked again."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.leaves = False

    def __call__(self) -> str:
        if self.leaves:
            raise SystemExit("no more tokens")
        return self._token


@pytest.mark.parametrize(
    ("path", "workers", "part"),
    [(LISTS, None, "tracker"), (KEYS, "warm", "scheduler of warm workers"), (CREATING, None, "transport of jobs")],
    ids=["tracker", "scheduler", "sender"],
)
def test_a_part_that_fails_unexpectedly_breaks_the_run_by_a_sentence(
    service: LocalService, proxy: FaultProxy, until: Until, path: str, workers: str | None, part: str
) -> None:
    token = Leaving(service.token)
    executor = ProminenceExecutor(proxy.url, token, workers=workers, poll_interval=0.1)  # type: ignore[arg-type]
    future = executor.submit(time.sleep, 60)
    until(future.running)
    token.leaves = True
    proxy.inject(refused_token(), path=path)
    other = executor.submit(pow, 2, 2)
    for outcome in (future, other):
        error = outcome.exception(30)
        assert isinstance(error, BrokenRunError)
        assert "unexpectedly (SystemExit: no more tokens)" in str(error)
        assert f"its {part} failed" in str(error)
        assert executor.run_id in str(error)
    with pytest.raises(BrokenRunError, match="no more tokens"):
        executor.submit(pow, 2, 2)
    proxy.heal()
    executor.shutdown()
    delete_jobs_of(service, executor.run_id)


def test_so_does_the_thread_that_follows_workers_of_another_program(
    service: LocalService, proxy: FaultProxy, until: Until
) -> None:
    token = Leaving(service.token)
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        future = executor.submit(time.sleep, 60)
        until(future.running)
        attached = ProminenceExecutor.attach(executor.run_id, proxy.url, token)
        token.leaves = True
        proxy.inject(refused_token())
        error = attached.futures()[0].exception(30)
        assert isinstance(error, BrokenRunError)
        assert "its follower of the workers failed unexpectedly (SystemExit: no more tokens)" in str(error)
        attached.shutdown()
        future.terminate()


def test_an_end_that_fails_is_an_end(service: LocalService) -> None:
    def stop() -> None:
        raise OSError("it does not stop")

    settings = run_settings(None, 0.1, 10.0, "delete", False, None)
    plugged = Service(lambda: ProminenceClient(service.url, service.token), stop)
    run = Run(plugged, "an-end", bytes(32), settings)
    for _ in range(2):
        run.shutdown(wait=True, cancel=False)
