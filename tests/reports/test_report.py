"""Reports of runs on the embedded service: sums that must be right, however slow the machine is."""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxy import FaultProxy, corrupted
from tags import Tags
from traffic import Listener

from prominence_executor import (
    NotFoundError,
    ProminenceClient,
    ProminenceExecutor,
    Report,
    Resources,
    RunNotFoundError,
    report_of,
)
from prominence_executor.local import LocalService
from prominence_executor.reports.report import make_report
from prominence_executor.run.context import LOG
from prominence_executor.run.history import History, Seen
from prominence_executor.run.phases import ON_SLOT, PHASES, JobSeen, Sums
from prominence_executor.runs.report import _spread

Until = Callable[..., None]


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def odd(number: int) -> int:
    if number == 1:
        raise ValueError("a secret")
    if number == 2:
        os._exit(3)
    return number


@pytest.fixture
def client(service: LocalService) -> Any:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def executor_of(service: LocalService, **options: Any) -> ProminenceExecutor:
    return ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options)


def test_the_phases_of_a_run_add_up_to_the_life_of_its_jobs(service: LocalService) -> None:
    with executor_of(service, resources=Resources(cpus=2, memory=1, walltime=10)) as executor:
        futures = executor.submit_many(nap, [0.1] * 6, chunksize=2)
        futures.append(executor.submit(nap, 0.3))
        assert sum(future.result(60) for future in futures) == pytest.approx(0.9)
        report = executor.report()
    assert (report.jobs, report.calls, report.failed_calls, report.lost_jobs, report.workers) == (4, 7, 0, 0, 0)
    assert report.waiting == {}
    assert 0.9 <= report.phases["call"] < sum(report.phases.values())
    rows = report.rows()
    assert [(row["first_call"], row["calls"], row["function"], row["cpus"]) for row in rows] == [
        (0, 2, f"{__name__}.nap", 2), (2, 2, f"{__name__}.nap", 2), (4, 2, f"{__name__}.nap", 2),
        (6, 1, f"{__name__}.nap", 2),
    ]  # fmt: skip
    for name in PHASES:
        assert report.phases[name] == pytest.approx(sum(row[name] for row in rows))
    for row in rows:
        whole = row["settled"] - row["began"]
        assert sum(row[name] for name in PHASES) == pytest.approx(whole, abs=1e-3)
    on_slots = sum(report.phases[name] for name in ON_SLOT)
    assert report.cpu_hours_asked == pytest.approx(2 * on_slots / 3600)
    assert report.cpu_hours_used is not None
    assert 0 < report.cpu_hours_used <= report.cpu_hours_asked
    assert report.efficiency == pytest.approx(report.phases["call"] / on_slots)
    assert [future.history[-1].seconds for future in futures][-1] == pytest.approx(rows[-1]["call"])


def test_a_report_makes_no_request_and_follows_the_run(service: LocalService, until: Until) -> None:
    with Listener(service.url) as listener:
        with ProminenceExecutor(listener.url, service.token, poll_interval=(0.05, 0.5), max_workers=1) as executor:
            first, second = executor.submit(nap, 0), executor.submit(nap, 60)
            first.result(60)
            until(second.running)
            third = executor.submit(nap, 0)
            report = executor.report()
            assert (report.jobs, report.calls, report.waiting) == (1, 1, {"running": 1, "unsent": 1})
            assert "not ended: 1 running, 1 unsent" in report.text()
            before = len(listener.requests("GET", "/jobs.*"))
            for _ in range(20):
                executor.report().html()
            assert len(listener.requests("GET", "/jobs.*")) - before < 150  # polls
            third.cancel()
            second.terminate()
        report = executor.report()
        assert report.lost_jobs == 1
        assert report.waiting == {}
        assert f"lost: 1 job: job {second.job_id} deleted" in report.text()


def test_what_has_failed_and_was_sent_again_is_counted(service: LocalService, client: ProminenceClient) -> None:
    with executor_of(service, retries=1) as executor:
        futures = executor.submit_many(odd, range(4))
        assert [future.exception(60) is None for future in futures] == [True, False, False, True]
    report = executor.report()
    assert (report.jobs, report.calls, report.failed_calls, report.repeated_jobs) == (5, 4, 2, 1)
    elsewhere = report_of(client, executor.run_id)
    assert (elsewhere.jobs, elsewhere.calls, elsewhere.failed_calls, elsewhere.repeated_jobs) == (5, 4, 2, 1)
    ends = {(row["first_call"], row["attempt"]): row["reason"] for row in report.rows()}
    assert ends[1, 1] == "1 of 1 calls failed (ValueError)"
    assert ends[2, 1] == "1 to be sent again"
    assert ends[2, 2] == "1 of 1 calls failed (CallCrashedError)"
    assert "a secret" not in report.html() + report.text() + json.dumps(report.to_json())


def test_cancelled_calls_are_no_losses(service: LocalService, until: Until) -> None:
    with executor_of(service, max_workers=1) as executor:
        blocking, waiting = executor.submit(nap, 60), executor.submit(nap, 0)
        until(blocking.running)
        assert waiting.cancel()
        blocking.terminate()
    report = executor.report()
    assert (report.jobs, report.lost_jobs) == (1, 1)


def test_warm_workers_have_a_line_each(service: LocalService) -> None:
    with executor_of(service, workers="warm", max_workers=2) as executor:
        assert sum(executor.map(nap, [0.01] * 20)) == pytest.approx(0.2)
        running = executor.report()
    report = executor.report()
    assert running.calls == report.calls == 20
    assert (report.jobs, report.lost_jobs, report.suggestion) == (0, 0, "")
    assert 1 <= report.workers <= 2
    assert report.phases["call"] >= 0.2
    assert sum(report.phases[name] for name in ("call", "idle")) == pytest.approx(report.cpu_hours_asked * 3600)
    assert "warm worker" in report.title()


def test_a_report_from_elsewhere_knows_functions_and_what_warm_workers_ran(
    service: LocalService, client: ProminenceClient
) -> None:
    with executor_of(service, workers="warm", max_workers=1, max_attempts=1) as executor:
        assert sum(executor.map(nap, [0.2] * 4)) == pytest.approx(0.8)
        assert executor.submit(odd, 1).exception(60) is not None
        assert executor.submit(odd, 2).exception(60) is not None  # its process has ended
        single = executor.with_options(resources=Resources(cpus=1, memory=2)).submit(nap, 0.1)
        single.result(60)
        own = executor.report()
    report = report_of(client, executor.run_id)
    assert (report.jobs, report.calls, report.failed_calls) == (own.jobs, own.calls, own.failed_calls)
    assert report.failed_calls == 2
    assert report.phases["call"] >= 0.8
    assert report.efficiency is not None
    assert not any("warm workers" in note for note in report.notes)
    for one in (own, report):
        functions = {row["function"] for row in one.rows()}
        assert f"{__name__}.nap-and-1-other" in functions
        assert functions <= {f"{__name__}.nap-and-1-other", f"{__name__}.nap"}
    unread = report_of(client, executor.run_id, sample=0)
    assert any("1 of 1 warm workers" in note for note in unread.notes) or own.workers > 1


def test_a_report_from_elsewhere_names_functions(service: LocalService, client: ProminenceClient) -> None:
    with executor_of(service, retries=1) as executor:
        list(executor.map(nap, [0.01, 0.01], chunksize=2))
        executor.submit(odd, 2).exception(60)
    report = report_of(client, executor.run_id)
    assert [row["function"] for row in report.rows()] == [f"{__name__}.nap"] + [f"{__name__}.odd"] * 2
    assert report.calls == 3
    crashed = report.rows()[1:]
    assert all(row["call"] == 0.0 and row["other"] > 0.0 for row in crashed)  # nobody knows what its call had of it
    assert report.suggestion == ""


def test_a_warm_worker_that_was_lost_is_a_loss() -> None:
    history = History("run", LOG)
    for number, reason in ((1, ""), (2, "it was silent"), (3, "it could not start: JobFailedError")):
        history.worker_began(number, cpus=2)
        if number < 3:
            history.worker_spoke(number, job_id=10 + number)
        history.worker_ended(number, reason)
        history.worker_ended(number, "a second time")
    history.worker_began(4, cpus=2)
    report = make_report("run", history.seen())
    assert (report.workers, report.lost_jobs) == (4, 2)
    assert "lost: 2 jobs: job 12 lost (it was silent), worker 3 lost" in report.text().replace("\n  ", " ")
    history.all_workers_ended()
    assert [row["status"] for row in make_report("run", history.seen()).rows()][-1] == "completed"


def test_attached_programs_report_what_the_service_tells(service: LocalService, client: ProminenceClient) -> None:
    with executor_of(service) as executor:
        executor.submit_many(nap, [0.05] * 4, chunksize=2)
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as again:
        assert [future.result(60) for future in again.futures()] == [0.05] * 4
    report = again.report()
    assert (report.jobs, report.calls) == (2, 4)
    assert report.phases["client"] == 0.0
    assert report.phases["call"] == pytest.approx(executor.report().phases["call"])


def test_a_report_from_elsewhere_makes_few_requests(service: LocalService, client: ProminenceClient) -> None:
    with executor_of(service) as executor:
        futures = executor.submit_many(nap, [0.05] * 24)
        futures += executor.submit_many(nap, [0.05] * 6, chunksize=2)
        for future in futures:
            future.result(60)
    own = executor.report()
    with Listener(service.url) as listener, ProminenceClient(listener.url, service.token) as heard:
        report = report_of(heard, executor.run_id, sample=10)
        requests = listener.requests("GET", ".*")
    assert len([one for one in requests if not one.to_the_store]) == 2
    assert len([one for one in requests if one.to_the_store]) <= 10
    assert (report.jobs, report.calls, report.failed_calls) == (own.jobs, own.calls, 0)
    assert report.phases["client"] == 0.0
    assert 0.05 * 6 < report.phases["call"] < 60.0
    assert report.efficiency is not None
    assert report.cpu_hours_asked > 0
    assert any("10 of 27 jobs were described in detail" in note for note in report.notes)
    whole = report_of(client, executor.run_id)
    assert sum(whole.phases[name] for name in ON_SLOT) == pytest.approx(
        sum(own.phases[name] for name in ON_SLOT), abs=0.5
    )


def test_a_report_from_elsewhere_without_details(service: LocalService, client: ProminenceClient) -> None:
    with executor_of(service) as executor:
        executor.submit(nap, 0).result(60)
    report = report_of(client, executor.run_id, sample=0)
    assert (report.jobs, report.calls, report.efficiency, report.suggestion) == (1, 1, None, "")
    assert report.cpu_hours_used is None
    assert "nobody tells" in report.text()


def test_a_journal_tells_what_has_not_been_accepted(
    service: LocalService, client: ProminenceClient, tmp_path: Path, until: Until
) -> None:
    journal = tmp_path / "journal"
    executor = executor_of(service, journal=journal, max_workers=1)
    blocking, waiting = executor.submit(nap, 60), executor.submit(nap, 0)
    until(blocking.running)
    report = report_of(client, executor.run_id, journal=journal)
    assert report.waiting == {"running": 1}
    assert any("goes on, and holds the journal" in note for note in report.notes)
    copy = tmp_path / "copy"
    for suffix in ("", "-wal"):
        if (tmp_path / f"journal{suffix}").exists():
            (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"journal{suffix}").read_bytes())
    report = report_of(client, executor.run_id, journal=copy)
    assert report.waiting == {"running": 1, "unsent": 1}
    assert copy.exists()
    with pytest.raises(ValueError, match="is one of run"):
        report_of(client, "another", journal=copy)
    waiting.cancel()
    blocking.terminate()
    executor.shutdown()


def test_a_run_that_is_not_there(client: ProminenceClient, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError) as caught:
        report_of(client, "no-such-run", journal=tmp_path / "none")
    assert isinstance(caught.value, NotFoundError)


def test_an_outcome_that_the_run_has_not_signed_is_not_believed(service: LocalService) -> None:
    with executor_of(service) as executor:
        executor.submit(nap, 0).result(60)
    with FaultProxy(service.url) as proxy, ProminenceClient(proxy.url, service.token) as client:
        assert report_of(client, executor.run_id).efficiency is not None
        rule = proxy.inject(corrupted(), path=".*pxoutcome.*")
        report = report_of(client, executor.run_id)
        assert rule.injected
    assert (report.jobs, report.efficiency) == (1, None)


def job_of(number: int, status: str = "completed", **known: Any) -> JobSeen:
    return JobSeen(job_id=number, first=number, size=1, status=status, created=0, started=0, ended=100, **known)


def test_who_knows_a_part_of_the_jobs_says_so() -> None:
    jobs = (job_of(0, cpus=1, task=100.0, calls=90.0, cpu=50.0, failed=1), job_of(1, cpus=1, task=100.0, calls=90.0))
    report = make_report("run", Seen(jobs, (), Sums(), 0.0), failures_known=False)
    assert "2 calls ended, at least 1 failed" in report.title()
    assert report.cpu_hours_used == pytest.approx(100 / 3600)
    assert "about 0.0278 used (50%, estimated)" in report.cpu_sentence()
    assert report.to_json()["cpu_hours_used_is_estimated"] is True
    whole = make_report("run", Seen(jobs[:1], (), Sums(), 0.0))
    assert "ended, 1 failed" in whole.title()
    assert "0.0278 asked for, 0.0139 used (50%)" in whole.cpu_sentence()


def test_lost_jobs_and_silent_workers_are_not_taken_for_efficient_ones() -> None:
    good, lost = job_of(0, task=100.0, calls=50.0), job_of(1, "killed", task=100.0)
    silent = replace(job_of(2), is_worker=True)
    report = make_report("run", Seen((good, lost), (), Sums(), 0.0))
    assert (report.phases["call"], report.phases["other"], report.efficiency) == (50.0, 100.0, 0.25)
    assert make_report("run", Seen((good,), (silent,), Sums(), 0.0)).efficiency == 0.5
    assert make_report("run", Seen((), (silent,), Sums(), 0.0)).efficiency is None
    assert make_report("run", Seen((), (replace(silent, calls=25.0),), Sums(), 0.0)).efficiency == 0.25


def test_a_sample_of_jobs_is_the_same_each_time_and_follows_no_rhythm() -> None:
    jobs = [{"id": number} for number in range(1000)]
    chosen = [job["id"] for job in _spread(jobs, 100)]
    assert chosen == [job["id"] for job in _spread(jobs, 100)] == sorted(set(chosen))
    assert len(chosen) == 100
    assert len({number % 10 for number in chosen}) == 10
    assert _spread(jobs[:5], 100) == jobs[:5]


EVIL = "<script>alert(1)</script>\x1b[31m"


def evil_report() -> Report:
    job = JobSeen(
        job_id=1, first=0, size=1, status="killed" + EVIL, function=EVIL, reason=EVIL, began=1.0, sent=2.0,
        settled=9.0, created=2, started=3, ended=8, task=5.0, calls=4.0,
    )  # fmt: skip
    seen = Seen((job, replace(job, first=1, job_id=2)), (), Sums(), 0.0)
    return make_report("run" + EVIL, seen, [replace(job, status=EVIL, ended=None, settled=None)], notes=[EVIL])


def test_names_and_reasons_do_no_harm_in_html_and_terminals() -> None:
    report = evil_report()
    for page in (report.html(), report._repr_html_()):
        tags = Tags(page)
        assert "script" not in tags.names
        assert tags.attributes.isdisjoint({"onload", "onclick", "href", "src"})
        assert "\x1b" not in page
        assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "\x1b" not in report.text() + str(report) + repr(report)
    assert all(len(line) < 120 for line in report.text().splitlines())


def test_the_timeline_is_well_formed_and_bounded() -> None:
    jobs = [
        JobSeen(job_id=n, first=n, size=1, status="completed", began=n, sent=n + 1.0, settled=n + 5.0, created=n + 1,
                started=n + 2, ended=n + 4, task=2.0, calls=1.0)
        for n in range(3000)
    ]  # fmt: skip
    report = make_report("run", Seen(tuple(jobs), (), Sums(), 0.0))
    page = report.html()
    svg = ET.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert 100 <= len(svg.findall("{*}g")) <= 150
    assert "150 of 3000 jobs over time" in page
    assert len(page) < 500_000
    assert report.to_dataframe().shape[0] == len(report.to_json()["table"]) == 3000
    assert json.loads(json.dumps(report.to_json()))["phases"]["call"] == 3000.0


def test_of_a_hundred_thousand_jobs_the_sums_are_right_and_the_memory_is_bounded() -> None:
    history = History("run", LOG, most=1000)
    job = JobSeen(job_id=1, first=0, size=1, status="completed", began=1.0, sent=2.0, settled=9.0, created=2,
                  started=3, ended=8, task=5.0, calls=4.0, cpus=1)  # fmt: skip
    for number in range(100_000):
        history.add(replace(job, first=number, job_id=number))
    report = make_report("run", history.seen())
    assert (report.jobs, report.calls, len(report.rows())) == (100_000, 100_000, 1000)
    assert report.phases["call"] == pytest.approx(400_000.0)
    assert sum(report.phases.values()) == pytest.approx(800_000.0)
    assert "99000 more in the sums alone" in report.text().replace("\n  ", " ")


def test_an_empty_run_has_a_report(service: LocalService) -> None:
    executor = executor_of(service)
    report = executor.report()
    executor.shutdown()
    assert (report.jobs, report.calls, sum(report.phases.values())) == (0, 0, 0.0)
    assert "0 jobs, 0 calls ended" in report.text()
    assert "No job has ended" in report.html()
    assert report.to_dataframe().empty
