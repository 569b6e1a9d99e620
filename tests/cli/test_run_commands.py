"""The commands about runs, calls and jobs, against the service: what they print, and how they end."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calls import Gate, square
from proxy import FaultProxy, corrupted

from prominence_executor import ProminenceClient, ProminenceExecutor, Resources, RunNotFoundError, load
from prominence_executor.cli import main
from prominence_executor.local import LocalService
from prominence_executor.runs import cancel_run, run_state, watch_run

pytestmark = pytest.mark.once

Until = Callable[..., None]
ESCAPE = "\x1b[31m<b>red</b>\x1b[0m"


def printing(x: int) -> int:
    import sys

    print(f"out {x} {ESCAPE}")
    print(f"err {x}", file=sys.stderr)
    if x == 3:
        raise ValueError(f"no {ESCAPE}\ud800")
    with open("made.txt", "w") as file:
        file.write(f"made by {x}")
    return x * x


@pytest.fixture(scope="module")
def ended(service: LocalService) -> str:
    """A run that has ended: calls 0 to 3 by themselves (the last one raises), 4 and 5 together, 6 a lambda."""
    run_id = f"run-{uuid.uuid4()}"
    options: dict[str, object] = {"run_id": run_id, "outputs": ["*.txt"], "poll_interval": (0.05, 0.5)}
    with ProminenceExecutor(service.url, service.token, **options) as executor:  # type: ignore[arg-type]
        futures = [executor.submit(printing, x) for x in range(4)]
        list(executor.map(square, (4, 5), chunksize=2))
        futures.append(executor.submit(lambda: 7))
        for future in futures:
            future.exception(60)
    return run_id


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture
def stuck(service: LocalService) -> Iterator[ProminenceExecutor]:
    """Its jobs wait: no slot is as large as they want."""
    executor = ProminenceExecutor(service.url, service.token, resources=Resources(cpus=1000), poll_interval=(0.05, 0.5))
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture(autouse=True)
def variables(service: LocalService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", service.token)


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns its status, output, and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


Said = Callable[..., tuple[int, str, str]]


def test_a_run_that_has_ended_is_listed_when_all_are(said: Said, ended: str) -> None:
    status, shown, _ = said("runs", "--json")
    assert status == 0
    assert ended not in {run["run_id"] for run in json.loads(shown)}
    _, shown, _ = said("runs", "--all")
    line = next(line for line in shown.splitlines() if line.startswith(ended))
    assert "ended" in line
    assert "6 completed" in line
    _, shown, _ = said("runs", "--all", "--json")
    run = next(run for run in json.loads(shown) if run["run_id"] == ended)
    assert (run["calls"], run["active"], run["jobs"]) == (7, False, {"completed": 6})
    assert sorted(run["functions"]) == [
        "calls.square", "test_run_commands.ended.lambda", "test_run_commands.printing"
    ]  # fmt: skip


def test_show_says_what_each_job_runs(said: Said, ended: str) -> None:
    status, shown, _ = said("show", ended)
    lines = shown.splitlines()
    assert status == 0
    assert lines[0].startswith(f"run {ended}, ended ")
    assert "7 calls of " in lines[0]
    assert lines[2].split() == ["CALLS", "JOB", "STATUS", "FUNCTION", "STARTED", "TIME", "REASON"]
    assert any(line.startswith("4-5 ") and "calls.square" in line for line in lines)
    _, shown, _ = said("show", ended, "--json", "--status", "completed")
    jobs = json.loads(shown)["jobs"]
    assert {"first": 4, "last": 5} in [job["calls"] for job in jobs]
    assert json.loads(said("show", ended, "--json", "--status", "failed")[1])["jobs"] == []


def test_show_says_which_calls_have_failed(said: Said, ended: str) -> None:
    status, shown, errors = said("show", ended)
    assert (status, errors) == (0, "")
    assert shown.splitlines()[0].endswith("; jobs: 6 completed; calls: 6 with a result, 1 raised")
    line = next(line for line in shown.splitlines() if line.startswith("3 "))
    assert line.endswith(r"  ValueError: no \x1b[31m<b>red</b>\x1b[0m\ud800")
    found = json.loads(said("show", ended, "--json")[1])
    assert found["ends_missing"] == 0
    assert [end["call"] for end in found["ends"]] == list(range(7))
    assert [end["kind"] for end in found["ends"]] == ["result"] * 3 + ["error"] + ["result"] * 3
    found = json.loads(said("show", ended, "--json", "--outcomes", "none")[1])
    assert (found["ends"], found["ends_missing"]) == ([], 6)
    assert "--outcomes all" in said("show", ended, "--outcomes", "none")[2]


def test_a_run_that_is_not_there_is_one_sentence(said: Said) -> None:
    for verb in (["show"], ["report"], ["watch"], ["logs"], ["cancel"], ["results", "-o", "x"]):
        status, shown, errors = said(*verb, "no-such-run")
        assert (status, shown, errors.count("\n")) == (1, "", 1)
        assert errors == f"prominence-executor {verb[0]}: the service has no jobs of a run 'no-such-run'\n"


def test_logs_come_as_they_are_into_a_pipe(ended: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["logs", ended, "2"]) == 0
    shown = capfdbinary.readouterr()
    assert shown.out == f"out 2 {ESCAPE}\n".encode()
    assert shown.err == b"err 2\n"
    assert main(["logs", ended, "--stream", "stdout", "1", "2"]) == 0
    shown = capfdbinary.readouterr()
    assert sorted(shown.out.splitlines()) == [f"out {x} {ESCAPE}".encode() for x in (1, 2)]
    assert b"==> call 1 (job " in shown.err
    assert main(["logs", ended, "99"]) == 1


def test_results_are_files_that_load_reads(said: Said, ended: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    status, shown, _ = said("results", ended, "-o", str(folder), "--json")
    outcomes = {outcome["call"]: outcome for outcome in json.loads(shown)}
    assert status == 1  # call 3 has raised
    assert {call: outcome["kind"] for call, outcome in outcomes.items()} == {
        **dict.fromkeys((0, 1, 2, 4, 5, 6), "result"), 3: "error"
    }  # fmt: skip
    assert [load(folder / f"{call}.result") for call in (0, 1, 2, 4, 5, 6)] == [0, 1, 4, 16, 25, 7]
    assert (folder / "2" / "made.txt").read_text() == "made by 2"
    assert outcomes[3]["message"] == f"ValueError: no {ESCAPE}\ud800"
    assert "in printing" in (folder / "3.error.txt").read_text("utf-8")
    assert (folder / "3.error.txt").read_text("utf-8").endswith("\\ud800\n")
    status, shown, _ = said("results", ended, "2", "3", "-o", str(folder))
    assert "\x1b" not in shown
    assert r"ValueError: no \x1b[31m<b>red</b>\x1b[0m\ud800" in shown
    assert said("results", ended, "2", "-o", str(folder))[0] == 0
    assert said("results", ended, "99", "-o", str(folder))[2] == "nothing is known of call 99\n"


def test_a_report_is_text_json_or_a_page(said: Said, ended: str, tmp_path: Path) -> None:
    status, shown, _ = said("report", ended)
    assert status == 0
    assert ended in shown
    assert json.loads(said("report", ended, "--json")[1])
    assert said("report", ended, "--html", str(tmp_path / "run.html")) == (0, "", "")
    assert ended in (tmp_path / "run.html").read_text()


def test_nothing_is_unpickled_and_what_is_not_signed_is_lost(
    ended: str, service: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    from prominence_executor.payload import loading

    def never(*arguments: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(loading._Unpickler, "load", never)
    assert said("results", ended, "2", "-o", str(tmp_path))[0] == 0
    with FaultProxy(service.url) as proxy:
        proxy.inject(corrupted(), path=r"pxoutcome")
        monkeypatch.setenv("PROMINENCE_URL", proxy.url)
        status, shown, _ = said("results", ended, "1", "-o", str(tmp_path / "bad"), "--json")
    assert status == 1
    assert [outcome["kind"] for outcome in json.loads(shown)] == ["lost"]
    assert not list((tmp_path / "bad").iterdir())


def test_outcomes_of_warm_workers_are_found(service: LocalService, said: Said, tmp_path: Path, until: Until) -> None:
    run_id = f"run-{uuid.uuid4()}"
    executor = ProminenceExecutor(
        service.url, service.token, run_id=run_id, workers="warm", max_workers=1, poll_interval=(0.05, 0.5)
    )
    with executor:
        assert executor.submit(printing, 2).result(60) == 4
        # A worker has told what came of a call a moment before it writes that into its own output.
        until(lambda: "calls: 1 with a result" in said("show", run_id)[1])
        assert "worker 1" in said("show", run_id)[1]
        assert "warm workers do not show" in said("show", run_id, "--outcomes", "none")[1]
        assert said("results", run_id, "-o", str(tmp_path / "out"))[0] == 0
        assert load(tmp_path / "out" / "0.result") == 4
        status, shown, errors = said("logs", run_id)
        assert (status, shown) == (0, f"out 2 {ESCAPE}\n")
        assert said("cancel", run_id)[1] == "1 job deleted\n"


def test_jobs_are_listed_by_run_function_and_label(said: Said, ended: str) -> None:
    _, shown, _ = said("list", "--all", "--run", ended)
    assert len(shown.splitlines()) == 7
    _, shown, _ = said("list", "--all", "--run", ended, "--function", "calls.square", "--json")
    assert [job["name"] for job in json.loads(shown)] == [f"{ended}/4-5"]
    _, shown, _ = said("list", "--all", "--label", f"pxrun={ended}", "--json")
    assert len(json.loads(shown)) == 6
    status, shown, errors = said("list", "--run", ended)
    assert (status, shown, errors) == (0, "", "no such job is active; --all lists all\n")


def test_a_listing_costs_the_same_whatever_there_is(
    service: LocalService, ended: str, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    with FaultProxy(service.url) as proxy:
        monkeypatch.setenv("PROMINENCE_URL", proxy.url)
        for arguments, requests in (
            (["runs"], {"GET /jobs": 1, "GET /workflows": 1}),
            (["runs", "--all"], {"GET /jobs": 1, "GET /workflows": 1}),
            (["show", ended, "--outcomes", "none"], {"GET /jobs": 1, "GET /workflows": 1}),
            (["list", "--all"], {"GET /jobs": 1}),
        ):
            before = dict(proxy.forwarded)
            said(*arguments)
            sent = {kind: count - before.get(kind, 0) for kind, count in proxy.forwarded.items()}
            assert {kind: count for kind, count in sent.items() if count} == requests


def test_a_description_has_no_key(said: Said, ended: str, service: LocalService) -> None:
    number = json.loads(said("list", "--all", "--run", ended, "--json")[1])[0]["id"]
    status, shown, _ = said("describe", str(number))
    assert status == 0
    assert "function: test_run_commands.printing" in shown
    assert "pxrun: " in shown
    assert "signature" not in shown.lower()
    facts = json.loads(said("describe", str(number), "--json")[1])
    assert facts["run_id"] == ended
    assert said("describe", "987654321")[0] == 1


def test_an_array_of_several_functions_says_so(
    stuck: ProminenceExecutor, client: ProminenceClient, said: Said, until: Until
) -> None:
    futures = [stuck.submit(square if x % 2 else abs, x) for x in range(24)]
    until(lambda: client.list_jobs(constraint=("pxrun", stuck.run_id)))
    until(lambda: run_state(client, stuck.run_id).info.calls == 24)
    status, shown, _ = said("show", stuck.run_id)
    assert status == 0
    assert "-and-1-other" in shown or {"abs", "calls.square"} <= set(shown.replace(",", "").replace(";", "").split())
    assert said("cancel", stuck.run_id)[0] == 0
    for state in watch_run(client, stuck.run_id, 0.1):
        assert state.run_id == stuck.run_id
    assert all(future.exception(60) is not None for future in futures)


def test_some_calls_are_cancelled_and_those_they_share_a_job_with_are_asked_for(
    stuck: ProminenceExecutor, client: ProminenceClient, said: Said, until: Until
) -> None:
    futures = [stuck.submit(square, 1), *stuck.submit_many(square, [2, 3], chunksize=2)]
    until(lambda: all(future.job_id for future in futures))
    assert said("cancel", stuck.run_id, "0") == (0, "1 job deleted\n", "")
    status, shown, errors = said("cancel", stuck.run_id, "1")
    assert (status, shown) == (1, "")
    assert "calls that share a job with these would end, too: 2; name them as well" in errors
    assert "(--together)" in errors
    assert said("cancel", stuck.run_id, "1", "--together")[0] == 0
    assert said("cancel", stuck.run_id, "1")[2] == "no active job: call 1\n"
    assert [type(future.exception(60)).__name__ for future in futures] == ["JobDeletedError"] * 3
    with pytest.raises(RunNotFoundError):
        cancel_run(client, "no-such-run")


def test_logs_are_followed_and_watch_ends_with_the_run(
    service: LocalService, gate: Gate, until: Until, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run_id = f"run-{uuid.uuid4()}"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, poll_interval=(0.05, 0.5)) as executor:
        future = executor.submit(gate.hold, "a")
        until(gate.begun)
        assert main(["runs"]) == 0
        assert run_id.encode() in capfdbinary.readouterr().out
        opener = threading.Timer(1.0, gate.open)
        opener.start()
        assert main(["logs", run_id, "0", "--follow"]) == 0
        assert future.result(60) == "a"
        opener.join()
        assert main(["watch", run_id, "--interval", "0.1"]) == 0
        assert f"run {run_id}, ended".encode() in capfdbinary.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["watch", "--interval", "0.1"], ["logs", "--follow"]], ids=["watch", "logs"])
def test_who_follows_a_run_waits_for_a_service_that_is_away(
    service: LocalService, gate: Gate, until: Until, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    run_id = f"run-{uuid.uuid4()}"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, poll_interval=(0.05, 0.5)) as executor:
        future = executor.submit(gate.hold, "a")
        until(gate.begun)
        with FaultProxy(service.url) as proxy:
            monkeypatch.setenv("PROMINENCE_URL", proxy.url)
            leaver = threading.Timer(1.5, proxy.refuse, [7.0])
            opener = threading.Timer(3.0, gate.open)
            leaver.start()
            opener.start()
            assert main([command[0], run_id, *command[1:]]) == 0
            leaver.join()
            opener.join()
        assert future.result(60) == "a"


def test_jobs_are_deleted_and_those_that_are_not_there_are_named(
    stuck: ProminenceExecutor, said: Said, until: Until
) -> None:
    future = stuck.submit(square, 1)
    until(lambda: future.job_id)
    assert said("delete", str(future.job_id)) == (0, "1 job deleted\n", "")
    status, shown, errors = said("delete", str(future.job_id), "987654321")
    assert (status, shown) == (1, "0 jobs deleted\n")
    assert f"job {future.job_id}: it has ended already (deleted)\n" in errors
    assert "job 987654321: there is no such job\n" in errors
    assert future.exception(60) is not None


def test_purge_spares_what_is_young(client: ProminenceClient, said: Said) -> None:
    client.upload("px-0123456789", b"x")
    assert said("purge", "--older-than", "1d") == (0, "", "0 deleted\n")
    assert "px-0123456789" in {item["name"] for item in client.list_data()}
    client.delete_data("px-0123456789")


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["logs", "r", "x"], ["watch", "r", "--interval", "0"], ["list", "--label", "x"], ["delete", "x"],
     ["logs", "r", "-f", "x"], ["logs", "r", "--bad", "1"], ["purge"], ["purge", "--older-than", "1"], ["results", "r"],
     ["completion", "fish"], ["describe", "-1"]],
)  # fmt: skip
def test_what_is_not_understood_is_status_2_and_asks_nobody(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
