"""The efficiency of chunks, and what is suggested; a long run of short calls is warned of once, a short try never."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest

from prominence_executor import ProminenceExecutor, ShortCallsWarning
from prominence_executor.executor.warn import warn_of_short_calls
from prominence_executor.local import LocalService
from prominence_executor.run.history import History
from prominence_executor.run.phases import JobSeen, phases_of
from prominence_executor.run.short_calls import Fit, ShortCalls, fit_of

LOG = logging.getLogger("prominence_executor")


def short(number: int = 0, **facts: Any) -> JobSeen:
    """A job of 10 s with one call of 0.1 s."""
    usual = {"started": 1000, "ended": 1010, "task": 10.0, "calls": 0.1, "longest": 0.1, "status": "completed"}
    return JobSeen(**{"job_id": number, "first": number, "size": 1, **usual, **facts})


def test_the_suggestion_says_how_many_calls_to_put_together() -> None:
    fit = Fit(jobs=1200, calls=1200, call=0.1, overhead=1.9)
    assert fit.advice == "1200 calls of 0.1 s in jobs of 2 s: chunksize=170, or workers='warm'"
    assert Fit(1200 // fit.chunksize, 1200, 0.1, 1.9).efficiency > 0.89


@pytest.mark.parametrize(
    "fit",
    [
        Fit(jobs=100, calls=100, call=60.0, overhead=2.0),  # they are long
        Fit(jobs=10, calls=1000, call=0.1, overhead=2.0),  # they go together
        Fit(jobs=1, calls=1, call=0.1, overhead=2.0),
    ],
)
def test_where_there_is_nothing_to_gain_nothing_is_suggested(fit: Fit) -> None:
    assert fit.advice == ""


def test_a_suggestion_never_goes_beyond_the_walltime_or_the_calls() -> None:
    assert Fit(100, 100, call=1.0, overhead=60.0, walltime=60.0, longest=3.0).chunksize == 10
    assert Fit(5, 5, call=0.001, overhead=10.0).chunksize == 5
    assert Fit(1000, 1000, call=0.0, overhead=10.0).chunksize == 1000


def test_jobs_whose_calls_nobody_knows_and_those_that_were_lost_say_nothing() -> None:
    jobs = [short(calls=None), short(status="killed"), short(is_worker=True)]
    assert fit_of(jobs, [phases_of(job) for job in jobs]) is None
    both = [*jobs, short(1), short(2, calls=0.3, task=4.3, ended=1004)]
    fit = fit_of(both, [phases_of(job) for job in both])
    assert fit is not None
    assert (fit.jobs, fit.calls) == (2, 2)
    assert fit.call == pytest.approx(0.2)
    assert fit.overhead == pytest.approx((9.9 + 4.0) / 2)


def test_a_job_with_lost_calls_says_nothing() -> None:
    known, lost = short(calls=1.0, size=2), short(calls=1.0, size=2, lost=1)
    assert fit_of([known, lost], [phases_of(known), phases_of(lost)]) == fit_of([known], [phases_of(known)])


def test_a_long_run_is_warned_of_once() -> None:
    counted = ShortCalls()
    said = [text for number in range(200) if (text := counted.saw(short(number)))]
    assert said == ["50 calls of 0.1 s in jobs of 10 s: chunksize=50, or workers='warm'"]
    assert counted.take() == said[0]
    assert counted.take() is None


@pytest.mark.parametrize(
    "jobs",
    [
        [short(n) for n in range(29)],  # few
        [short(n, task=0.5, ended=1000) for n in range(700)],  # many, that cost five minutes together at most
        [short(n, task=10.0, calls=8.0) for n in range(200)],  # long calls
        [short(n, size=20) for n in range(200)],  # chunks
        [short(n, attempt=2) for n in range(200)],
        [short(n, calls=None) for n in range(200)],
    ],
)
def test_a_short_try_and_other_runs_are_not(jobs: list[JobSeen]) -> None:
    counted = ShortCalls()
    assert not [text for job in jobs if (text := counted.saw(job))]
    assert counted.take() is None


def test_the_warning_has_a_category_of_its_own_and_the_line_of_the_program() -> None:
    history = History("run", LOG)
    for number in range(200):
        history.short_calls.saw(short(number))
    with pytest.warns(ShortCallsWarning, match="run run: 50 calls of 0.1 s in jobs of 10 s: chunksize=50") as seen:
        warn_of_short_calls(history)
    assert [warning.filename for warning in seen] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_short_calls(history)  # once a run


def test_an_executor_warns_in_the_programs_own_thread(service: LocalService) -> None:
    executor = ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5))
    for number in range(200):
        executor._run.context.history.short_calls.saw(short(number))
    with pytest.warns(ShortCallsWarning) as seen:
        future = executor.submit(abs, -3)
    assert [warning.filename for warning in seen] == [__file__]
    assert future.result(60) == 3
    executor.shutdown()
