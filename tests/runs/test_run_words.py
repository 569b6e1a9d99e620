"""How runs, calls and functions are read from names and commands; what is cancelled, and shown of a description."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.client.validation import check_labels
from prominence_executor.run.names import (
    ArrayRange,
    CallRange,
    array_name,
    function_word,
    job_name,
    run_of,
    worker_name,
)
from prominence_executor.runs import JobInfo, RunState, cancelling, described
from prominence_executor.runs.cancelling import jobs_to_delete, unmade_calls
from prominence_executor.runs.listing import ArrayInfo, job_info, summary
from prominence_executor.runs.state import _between

pytestmark = pytest.mark.once
RUNS = st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["__main__.simulate"], "simulate"),
        (["pack.age.fit"], "pack.age.fit"),
        (["__main__.<lambda>"], "lambda"),
        (["__main__.fit.<locals>.<lambda>"], "fit.lambda"),
        (["__main__.größe"], "grosse".replace("ss", "_")),
        (["builtins.pow"], "pow"),
        (["a.b; rm -rf $HOME"], "a.b_rm_rf_HOME"),
        (["a.f", "a.f"], "a.f"),
        (["a.f", "a.g"], "a.f-and-1-other"),
        (["a.f", "a.g", "a.h", "a.f"], "a.f-and-2-others"),
        (["", ""], ""),
        ([], ""),
    ],
)
def test_a_function_has_a_word_that_people_can_read(names: list[str], word: str) -> None:
    assert function_word(names) == word


@given(st.lists(st.text(max_size=200), max_size=3))
def test_whatever_a_function_is_called_the_service_takes_the_word(names: list[str]) -> None:
    word = function_word(names)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{0,100}", word)
    if word:
        check_labels({"pxfunction": word})


@given(RUNS, st.integers(0, 10**6), st.integers(1, 500), st.integers(1, 4))
def test_the_run_is_found_in_every_form_of_a_name(run_id: str, first: int, size: int, attempt: int) -> None:
    span = ArrayRange(first, first + 10 * size - 1, size, attempt)
    names = [job_name(run_id, CallRange(first, size, attempt)), worker_name(run_id, first), array_name(run_id, span)]
    assert {run_of(name) for name in [*names, f"{names[2]}/pxcall/3"]} == {run_id}


@pytest.mark.parametrize("name", ["", "simulation", "a b/c", "run/x", "/7", ".w3", "run.check", "run/pxcall/3"])
def test_other_names_belong_to_no_run(name: str) -> None:
    assert run_of(name) is None


def listed(name: str, command: str = "python3 pxrun.py", status: str = "running", number: int = 1) -> JobInfo:
    times = {"createTime": 100, "startTime": 110, **({"endTime": 130} if status == "completed" else {})}
    task = {"cmd": command, "image": "any"}
    return job_info({"id": number, "name": name, "status": status, "events": times, "tasks": [task]})


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("python3 pxrun.py", ""),
        ("python3 pxrun.py fit", "fit"),
        ("python3 pxrun.py ${pxindex}", ""),
        ("python3 pxrun.py ${pxindex} fit-and-2-others", "fit-and-2-others"),
        ("python3 pxrun.py 17", ""),
        ("python3 pxrun.py 17 fit", "fit"),
    ],
)
def test_the_function_is_read_from_the_command(command: str, function: str) -> None:
    job = listed("r/3-5.2", command)
    assert (job.run_id, job.calls, job.attempt, job.function) == ("r", range(3, 6), 2, function)


def test_another_programs_job_is_of_no_run_whatever_its_name() -> None:
    job = listed("r/3", "python3 mine.py fit")
    assert (job.run_id, job.calls, job.function) == (None, range(0), "")
    assert listed("r/0-999999999999").run_id is None  # a run cannot have so many calls


def test_a_job_that_is_held_has_not_ended() -> None:
    job = job_info({"id": 1, "name": "r/0", "status": "failed", "events": {}, "tasks": [{"cmd": "python3 pxrun.py"}]})
    assert (job.status, job.active) == ("held", True)


def test_a_run_is_summed_up() -> None:
    span = ArrayRange(10, 29, 5, 1)
    array = ArrayInfo(9, array_name("r", span), span, True)
    jobs = [
        listed("r/0", "python3 pxrun.py fit", "completed"),
        listed("r/0.2", "python3 pxrun.py fit", number=2),
        listed("r.10-29.5.1/pxcall/0", "python3 pxrun.py ${pxindex} draw", number=3),
        listed("r.w1", number=4),
    ]
    info = summary("r", jobs, [array])
    assert info.active
    assert info.jobs == {"completed": 1, "running": 3, "not made yet": 3}
    assert (info.calls, info.functions, info.workers, info.created, info.ended) == (21, ("fit", "draw"), 1, 100, None)


def test_what_arrays_have_made_is_counted_once_and_in_no_time_of_many_jobs() -> None:
    spans = [ArrayRange(first, first + 499, 1, 1) for first in range(0, 50_000, 500)]
    arrays = [ArrayInfo(span.first, array_name("r", span), span, True) for span in spans]
    jobs = [
        JobInfo(number, f"{array.name}/pxcall/{at}", "completed", calls=range(array.id + at, array.id + at + 1))
        for number, (array, at) in enumerate((array, at) for array in arrays for at in [*range(499), 0])
    ]
    began = time.thread_time()
    info = summary("r", jobs, arrays)
    assert time.thread_time() - began < 1.5
    assert info.jobs == {"completed": 50_000, "not made yet": 100}


def test_many_jobs_of_which_some_have_just_begun_are_deleted_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, deleted = time.time(), list[list[int]]()
    begun = [JobInfo(n, f"r/{n}", "running", started=now, calls=range(n, n + 1), active=True) for n in range(500)]
    waiting = [JobInfo(n, f"r/{n}", "idle", calls=range(n, n + 1), active=True) for n in range(500, 20_000)]
    client: Any = SimpleNamespace(delete_jobs=deleted.append)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    began = time.thread_time()
    assert len(cancelling._delete(client, [*begun, *waiting])) == 20_000
    assert time.thread_time() - began < 1
    assert [len(ids) for ids in deleted] == [19_500, 500]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12))
def test_each_call_counts_once_however_often_it_was_sent(spans: list[tuple[int, int]]) -> None:
    jobs = [listed(job_name("r", CallRange(first, size, 1)), number=at) for at, (first, size) in enumerate(spans)]
    assert summary("r", jobs, []).calls == len({number for job in jobs for number in job.calls})


def test_the_last_attempt_of_a_call_is_the_one_that_counts() -> None:
    jobs = (listed("r/0-1", status="completed"), listed("r/1.2", number=2), listed("r/1.2", status="deleted", number=3))
    state = RunState("r", jobs, ())
    assert {call: job and job.id for call, job in state.calls().items()} == {0: 1, 1: 2}
    assert [job.id for job in state.jobs_of(1)] == [1, 2, 3]


def test_who_cancels_a_call_learns_which_others_would_end() -> None:
    state = RunState("r", (listed("r/0-2"), listed("r/3", number=2), listed("r/4", status="completed", number=3)), ())
    jobs, others = jobs_to_delete(state, [1, 3, 4])
    assert ([job.id for job in jobs], others) == ([1, 2], [0, 2])


def test_a_call_whose_array_has_not_made_its_job_is_told_apart() -> None:
    span = ArrayRange(10, 29, 5, 1)
    array = ArrayInfo(9, array_name("r", span), span, True)
    jobs = (listed("r/0", status="completed"), listed("r.10-29.5.1/pxcall/0", "python3 pxrun.py ${pxindex} f"))
    assert list(jobs[1].calls) == [10, 11, 12, 13, 14]
    assert unmade_calls(RunState("r", jobs, (array,)), [0, 10, 20, 40]) == [20]
    assert unmade_calls(RunState("r", jobs, (replace(array, active=False),)), [20]) == []


def test_a_run_of_warm_workers_that_has_ended_still_says_so() -> None:
    info = summary("r", [listed("r.w1", status="completed"), listed("r.w2", status="completed", number=2)], [])
    assert (info.active, info.workers, info.all_workers) == (False, 0, 2)


def test_all_jobs_are_looked_at_seldom_while_some_are_active() -> None:
    assert [_between(took, is_idle=False) for took in (0.1, 5.0)] == [10.0, 45.0]
    assert [_between(took, is_idle=True) for took in (0.0, 5.0)] == [0.0, 45.0]


def test_a_description_shows_no_secret() -> None:
    shown = described(
        {
            "id": 3, "name": "r/0", "status": "completed",
            "labels": {"pxrun": "r", "pxfunction": "fit"},
            "tasks": [{"cmd": "python3 pxrun.py fit", "image": "any", "env": {"PASSWORD": "secret"}}],
            "execution": {"tasks": [{"exitCode": 3}]},
            "inputs": [{"filename": "pxjob.json", "content": "c2VjcmV0"}],
            "artifacts": [{"url": "http://store/thing?signature=secret"}],
            "outputFiles": [{"name": "pxoutcome", "url": "http://store/x?signature=secret", "size": 7}, {"name": "o"}],
        }
    )  # fmt: skip
    assert "secret" not in repr(shown)
    assert "c2VjcmV0" not in repr(shown)
    assert (shown["function"], shown["calls"], shown["tasks"][0]["exitCode"]) == ("fit", range(1), 3)
    assert shown["outputs"] == ["pxoutcome (7 bytes)", "o (not there)"]
