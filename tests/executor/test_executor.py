"""What a user of concurrent.futures sees: calls go out as jobs, and come back as futures."""

from __future__ import annotations

import contextvars
import math
import os
import pickle
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from calls import Adder

import prominence_executor
from prominence_executor import (
    AuthenticationError,
    BrokenRunError,
    CallCrashedError,
    InvalidRequestError,
    JobDeletedError,
    JobPolicies,
    NotFoundError,
    ProminenceExecutor,
    RemoteTraceback,
    Resources,
    ServiceUnavailableError,
    WalltimeExceededError,
)
from prominence_executor.local import LocalService

Until = Callable[..., None]


def square(x: float) -> float:
    return x * x


class Model:
    def __init__(self, executor: ProminenceExecutor) -> None:
        self.executor = executor

    def step(self) -> int:
        return 1


def test_a_submitted_call_comes_back_as_the_futures_result(executor: ProminenceExecutor) -> None:
    future = executor.submit(pow, 2, 10)
    assert future.result(timeout=30) == 1024
    assert isinstance(future, futures.Future)
    assert isinstance(future.job_id, int)
    assert future.status() == "completed"


def test_a_chunk_is_one_job_with_an_outcome_for_each_call(executor: ProminenceExecutor) -> None:
    before = executor.client.requests_sent["POST /jobs"]
    results = executor.map(math.sqrt, [1, 4, -1, 9], chunksize=4)
    assert next(results) == 1
    assert next(results) == 2
    with pytest.raises(ValueError, match="math domain error|nonnegative"):
        next(results)
    assert executor.client.requests_sent["POST /jobs"] == before + 1


def test_map_checks_its_arguments_at_once(executor: ProminenceExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_maps_timeout_is_from_the_call_of_map(executor: ProminenceExecutor) -> None:
    results = executor.map(time.sleep, [0, 60], timeout=0.3)
    with pytest.raises(futures.TimeoutError):
        list(results)
    executor.shutdown(wait=False, cancel_futures=True)
    for job in executor.client.list_jobs(constraint=("pxrun", executor.run_id)):
        with suppress(NotFoundError):  # it has ended meanwhile
            executor.client.delete_job(job["id"])


def test_lambdas_closures_methods_partials_and_callables_work(executor: ProminenceExecutor) -> None:
    import functools

    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def add(self, x: int) -> int:
            return x + self.n

        __call__ = add

    n = 5
    calls: list[Callable[[int], int]] = [lambda x: x + n, Adder(5).add, Adder(5), functools.partial(pow, exp=1)]
    results = [future.result() for future in [executor.submit(call, 1) for call in calls]]
    assert results == [6, 6, 6, 1]


def test_a_function_of_a_module_beside_the_script_travels_with_its_siblings(executor: ProminenceExecutor) -> None:
    # The module of the tests' calls is such a module: the remote side has it only if it was sent.
    def report() -> tuple[str | None, int]:
        return sys.modules[Adder.__module__].__file__, Adder(3).add(4)

    where, seven = executor.submit(report).result()
    assert seven == 7
    assert "pxmodules-" in str(where)


def test_an_exception_comes_back_as_itself_with_the_remote_traceback(executor: ProminenceExecutor) -> None:
    class Melted(Exception):
        def __init__(self, kelvin: float, where: str) -> None:
            super().__init__(f"{where} at {kelvin} K")
            self.kelvin = kelvin

    def heat() -> None:
        raise Melted(3695.0, "wall")

    future = executor.submit(heat)
    with pytest.raises(Melted, match="wall at 3695") as caught:
        future.result()
    assert caught.value.kelvin == 3695.0
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in heat" in str(caught.value.__cause__)
    assert f"job {future.job_id}" in str(caught.value.__cause__)


def test_a_crash_is_told_with_job_and_exit_code(executor: ProminenceExecutor) -> None:
    future = executor.submit(os._exit, 3)
    with pytest.raises(CallCrashedError, match="exit code 3") as caught:
        future.result()
    assert caught.value.job_id == future.job_id
    assert pickle.loads(pickle.dumps(caught.value)).job_id == future.job_id


def test_in_a_chunk_the_outcomes_before_a_crash_stand(executor: ProminenceExecutor) -> None:
    def call(x: int) -> int:
        if x == 2:
            print("about to crash", file=sys.stderr, flush=True)
            os.abort()
        return x

    results = list(executor.map(lambda x: x, [0]))
    assert results == [0]
    iterator = executor.map(call, range(4), chunksize=4)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(CallCrashedError, match="SIGABRT") as caught:
        next(iterator)
    assert "about to crash" in str(caught.value)


NAMED = contextvars.ContextVar[int]("NAMED")


def uses_global() -> int:
    return NAMED.get()


uses_global.__module__ = "__main__"  # so that it is pickled as a script's function is


def test_what_cannot_be_pickled_is_the_futures_exception(executor: ProminenceExecutor) -> None:
    lock: Any = threading.Lock()
    for future, where in (
        (executor.submit(lambda: lock), "the enclosed variable 'lock' of the function '<lambda>'$"),
        (executor.submit(uses_global), "the global variable 'NAMED' of the function 'uses_global'$"),
        (executor.submit(square, lock), "the argument 0"),
        (executor.submit(dict, key={"a": [lock]}), "the item 0 of a list in the item 'a' of a dict in the argument"),
    ):
        with pytest.raises(TypeError, match=f"cannot pickle '.*' object: it is {where}"):
            future.result(timeout=5)
    with pytest.raises(TypeError, match="it is the argument 0"):
        list(executor.map(lambda x: x, [1, lock], chunksize=2))


def test_the_traceback_of_what_cannot_be_pickled_does_not_grow_with_a_map(executor: ProminenceExecutor) -> None:
    lock = threading.Lock()
    errors = [call.exception(timeout=5) for call in executor.submit_many(lambda _: lock, range(100))]
    for error in errors:
        assert error is not None
        assert len(traceback.extract_tb(error.__traceback__)) < 20


def test_a_future_is_pending_then_running_then_done(executor: ProminenceExecutor, until: Until, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait_for_gate() -> str:
        print("waiting", flush=True)
        print("complaining", file=sys.stderr, flush=True)
        while not gate.exists():
            time.sleep(0.02)
        return "through"

    future = executor.submit(wait_for_gate)
    assert not future.done()
    until(future.running)
    assert future.cancel() is False
    assert future.status() == "running"
    until(lambda: "waiting" in future.stdout())  # live: the job is still running
    assert "complaining" in future.stderr()
    gate.touch()
    assert future.result(timeout=20) == "through"


def test_a_cancelled_call_is_deleted_at_the_service(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, resources=Resources(cpus=100)) as executor:
        future = executor.submit(square, 1)  # no slot is that large: the job stays idle
        until(lambda: future.job_id)
        told = threading.Event()
        future.add_done_callback(lambda f: told.set())
        assert future.cancel()
        assert told.wait(5)
        assert futures.wait([future], timeout=5).done == {future}
    assert future.cancelled()
    assert future.job_id is not None
    client = prominence_executor.ProminenceClient(service.url, service.token)
    with client:
        assert client.describe_job(future.job_id)["status"] == "deleted"


def test_shutdown_with_cancel_futures_ends_what_has_not_started(service: LocalService, until: Until) -> None:
    executor = ProminenceExecutor(service.url, service.token, resources=Resources(cpus=100))
    waiting = [executor.submit(square, x) for x in range(3)]
    until(lambda: all(future.job_id for future in waiting))
    executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    with prominence_executor.ProminenceClient(service.url, service.token) as client:
        assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []


def test_after_shutdown_nothing_is_taken_and_the_threads_are_gone(service: LocalService) -> None:
    executor = ProminenceExecutor(service.url, service.token)
    future = executor.submit(square, 2)
    executor.shutdown()
    assert future.result(timeout=0) == 4
    for take in (lambda: executor.submit(square, 1), lambda: executor.map(square, [1])):
        with pytest.raises(RuntimeError, match="after shutdown"):
            take()
    assert not [t.name for t in threading.enumerate() if executor.run_id in t.name]
    assert "completed" in future.status()
    executor.shutdown()  # again: no harm


def test_a_view_has_other_options_and_the_same_run(executor: ProminenceExecutor) -> None:
    view = executor.with_options(
        resources=Resources(cpus=2, memory=3, walltime=5),
        env={"FLAVOUR": "view"},
        labels={"kind": "view"},
        policies=JobPolicies(priority=2),
    )
    future = view.submit(lambda: os.environ.get("FLAVOUR"))
    assert future.result() == "view"
    assert executor.submit(lambda: os.environ.get("FLAVOUR")).result() is None
    assert view.run_id == executor.run_id
    assert future.job_id is not None
    job = executor.client.describe_job(future.job_id)
    assert (job["resources"]["cpus"], job["resources"]["memory"]) == (2, 3)
    assert job["labels"].pop("pxfunction").endswith(".test_a_view_has_other_options_and_the_same_run.lambda")
    assert job["labels"] == {"kind": "view", "pxrun": executor.run_id}
    assert job["policies"] == {"priority": 2}
    assert job["name"].startswith(executor.run_id + "/")


def test_shutdown_of_a_view_acts_on_the_executor(service: LocalService) -> None:
    executor = ProminenceExecutor(service.url, service.token)
    with executor.with_options(labels={"a": "b"}) as view:
        future = view.submit(square, 4)
    assert future.done()
    with pytest.raises(RuntimeError):
        executor.submit(square, 1)


def test_max_workers_bounds_the_jobs_at_the_service(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, max_workers=2, poll_interval=0.05) as executor:
        assert executor._max_workers == 2
        submitted = [executor.submit(time.sleep, 0.2) for _ in range(6)]
        most = 0
        while not all(future.done() for future in submitted):
            most = max(most, len(executor.client.list_jobs(constraint=("pxrun", executor.run_id))))
        assert 1 <= most <= 2


def test_a_payload_over_the_limit_of_a_request_goes_through_the_data_api(
    service: LocalService, executor: ProminenceExecutor
) -> None:
    content = os.urandom(2_000_000)
    future = executor.submit(lambda data: data[::-1], content)
    assert future.result(timeout=60) == content[::-1]
    assert executor.client.requests_sent["PUT upload"] == 1
    executor.shutdown()
    with prominence_executor.ProminenceClient(service.url, service.token) as client:
        assert [item for item in client.list_data() if executor.run_id in item["name"]] == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_arguments_just_around_the_limit_all_arrive(executor: ProminenceExecutor, chunksize: int) -> None:
    sizes = [0, 1, 200_000, 600_000, 700_000, 720_000, 740_000, 786_432]
    assert list(executor.map(len, [bytes(size) for size in sizes], chunksize=chunksize)) == sizes


def test_a_token_or_url_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PROMINENCE_TOKEN", raising=False)
    monkeypatch.delenv("PROMINENCE_URL", raising=False)
    with pytest.raises(AuthenticationError, match="PROMINENCE_TOKEN"):
        ProminenceExecutor("http://127.0.0.1:1/prominence/v1")
    with pytest.raises(ValueError, match="PROMINENCE_URL"):
        ProminenceExecutor(token="abc")


def test_an_expired_token_is_said_at_once(service: LocalService) -> None:
    token = jwt.encode({"username": "a", "exp": int(time.time()) - 60}, "x" * 32, algorithm="HS256")
    with pytest.raises(AuthenticationError, match="expired"):
        ProminenceExecutor(service.url, token)


def test_a_refused_token_breaks_the_executor_quickly(service: LocalService) -> None:
    executor = ProminenceExecutor(service.url, "not-a-token")
    future = executor.submit(square, 1)
    with pytest.raises(BrokenRunError) as caught:
        future.result(timeout=10)
    assert executor.run_id in str(caught.value)
    assert isinstance(caught.value, futures.BrokenExecutor)
    assert isinstance(caught.value.__cause__, AuthenticationError)
    context = executor._run.context
    assert "not-a-token" not in str(caught.value) + repr(executor) + repr(context)
    assert repr(context.key) not in repr(context)
    assert "attach" not in str(caught.value)  # there is nothing to be found
    with pytest.raises(BrokenRunError):
        executor.submit(square, 2)
    executor.shutdown()


@pytest.mark.slow
def test_an_unreachable_service_is_a_clear_exception(unused_port: int) -> None:
    with ProminenceExecutor(f"http://127.0.0.1:{unused_port}/prominence/v1", "token") as executor:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match=str(unused_port) + "|refused"):
            executor.submit(square, 1).result(timeout=60)
        assert time.monotonic() - began < 30


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"image": ""}, "image"),
        ({"runtime": "docker"}, "runtime"),
        ({"resources": Resources(nodes=0)}, "nodes"),
        ({"labels": {"a-b": "c"}}, "labels"),
        ({"labels": {"pxrun": "mine"}}, "labels"),
        ({"max_workers": 0}, "max_workers"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"name": "a b"}, "name"),
    ],
)
def test_a_wrong_option_is_a_value_error_that_names_it(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ProminenceExecutor("http://127.0.0.1:1/prominence/v1", "token", **options)


def test_what_the_service_refuses_is_the_futures_exception(executor: ProminenceExecutor) -> None:
    future = executor.with_options(image="nosuch.sif").submit(square, 1)
    with pytest.raises(InvalidRequestError, match="Image nosuch.sif does not exist"):
        future.result(timeout=20)
    assert future.status() == "refused"
    assert executor.submit(square, 2).result() == 4


def test_executors_and_futures_do_not_pickle(executor: ProminenceExecutor) -> None:
    future = executor.submit(square, 1)
    with pytest.raises(TypeError, match="cannot pickle 'ProminenceExecutor' object"):
        pickle.dumps(executor)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(future)
    with pytest.raises(TypeError, match="'ProminenceExecutor'.*: it is the enclosed variable 'executor' of the"):
        executor.submit(lambda: executor).result(timeout=5)
    model = Model(executor)
    with pytest.raises(TypeError, match="'ProminenceExecutor'.*: it is the attribute 'executor' of a Model in the"):
        executor.submit(model.step).result(timeout=5)


@pytest.mark.slow
def test_a_job_over_its_walltime_is_told_as_such() -> None:
    with (
        LocalService(seconds_per_minute=3) as service,
        ProminenceExecutor(service.url, service.token, resources=Resources(walltime=1)) as executor,
    ):
        future = executor.submit(time.sleep, 60)
        with pytest.raises(WalltimeExceededError) as caught:
            future.result(timeout=30)
        assert (caught.value.status, caught.value.reason) == ("killed", "Walltime limit exceeded")
        assert caught.value.job_id == future.job_id


def test_terminate_deletes_a_running_job(executor: ProminenceExecutor, until: Until) -> None:
    futures_of_chunk: list[Any] = []
    with_two = executor.with_options(labels={"kind": "chunk"})
    single = executor.submit(time.sleep, 60)
    futures_of_chunk = with_two._submit(with_two._function(time.sleep), [((60,), {}), ((61,), {})])
    until(lambda: single.running() and futures_of_chunk[0].running())
    assert single.terminate()
    assert futures_of_chunk[1].terminate()
    with pytest.raises(JobDeletedError, match=r"terminate\(\)"):
        single.result(timeout=20)
    assert repr(single.exception()) == "JobDeletedError('the job was deleted by terminate()')"
    for future in futures_of_chunk:
        with pytest.raises(JobDeletedError, match="ended with it"):
            future.result(timeout=20)
    assert single.terminate() is False
    assert executor.submit(square, 3).result() == 9


def test_stdout_of_a_call_in_a_chunk_is_its_own_part(executor: ProminenceExecutor) -> None:
    def say(x: int) -> int:
        print("saying", x)
        return x

    said = executor._submit(executor._function(say), [((1,), {}), ((2,), {})])
    assert [future.result() for future in said] == [1, 2]
    assert [future.stdout() for future in said] == ["saying 1\n", "saying 2\n"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_leaving_the_block_by_an_interruption_deletes_what_is_outstanding(
    service: LocalService, until: Until, interruption: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(interruption), ProminenceExecutor(service.url, service.token) as executor:
        running = executor.submit(time.sleep, 60)
        until(running.running)
        waiting = executor.with_options(resources=Resources(cpus=100)).submit(square, 1)
        raise interruption
    assert time.monotonic() - began < 20
    assert isinstance(running.exception(timeout=0), JobDeletedError)
    assert waiting.cancelled()
    assert executor.run_id in capsys.readouterr().err
    with prominence_executor.ProminenceClient(service.url, service.token) as client:
        assert client.list_jobs(constraint=("pxrun", executor.run_id)) == []


def test_on_interrupt_leave_leaves_the_jobs_and_says_their_run(
    service: LocalService, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ProminenceExecutor(service.url, service.token, on_interrupt="leave") as executor,
    ):
        future = executor.submit(time.sleep, 60)
        until(future.running)
        raise KeyboardInterrupt
    assert executor.run_id in capsys.readouterr().err
    assert isinstance(future.exception(timeout=0), BrokenRunError)
    with prominence_executor.ProminenceClient(service.url, service.token) as client:
        left = client.list_jobs(constraint=("pxrun", executor.run_id))
        assert [job["id"] for job in left] == [future.job_id]
        client.delete_jobs([job["id"] for job in left])


def test_a_forked_child_is_told_to_make_its_own(executor: ProminenceExecutor) -> None:
    future = executor.submit(square, 6)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of threads
        pid = os.fork()
    if pid == 0:
        try:
            executor.submit(square, 1)
        except RuntimeError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert "forked child" in answer.read()
    os.waitpid(pid, 0)
    assert future.result(timeout=30) == 36
