"""The log of a run at INFO: a line for each job's start and end, nothing secret, nothing that a terminal obeys."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from paths import ROOT
from variables import unmeasured

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService


def odd(number: int) -> int:
    if number == 2:
        raise ValueError("a secret")
    if number == 4:
        os._exit(3)
    return number


odd.__qualname__ = "odd\x1b[31m\r\n<b>"


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "prominence_executor"]


def test_each_job_has_a_line_at_its_start_and_one_at_its_end(
    service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "prominence_executor"):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            chunk = executor.submit_many(odd, range(3), chunksize=3)
            single = executor.submit(odd, 3)
            assert [future.exception(60) is None for future in (*chunk, single)] == [True, True, False, True]
    run, name = executor.run_id, f"{__name__}.odd\\x1b[31m\\r\\n<b>"
    lines = lines_of(caplog)
    assert f"run {run}: job {chunk[0].job_id} runs calls 0 to 2, {name}" in lines
    assert f"run {run}: job {single.job_id} runs call 3, {name}" in lines
    ended = [line for line in lines if "has ended" in line]
    assert len(ended) == 2
    number = r"[0-9.e+-]+"
    for job, text in (
        (chunk[0].job_id, re.escape(f"calls 0 to 2, {name}: 1 of 3 calls failed (ValueError)")),
        (single.job_id, re.escape(f"call 3, {name}")),
    ):
        pattern = rf"run {run}: job {job} has ended, completed, after {number} s, of which its calls had {number} s: "
        assert [line for line in ended if re.fullmatch(pattern + text, line)], ended
    whole = "\n".join(lines)
    assert "a secret" not in whole
    assert service.token not in whole
    assert "\x1b" not in whole
    assert not re.search(r"Signature|[0-9a-f]{64}", whole)


def test_a_job_that_is_lost_says_why(service: LocalService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "prominence_executor"):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), retries=1) as executor:
            assert executor.submit(odd, 4).exception(60) is not None
    lines = lines_of(caplog)
    ends = [line.rpartition(": ")[2] for line in lines if "has ended" in line]
    assert ends == ["1 to be sent again", "1 of 1 calls failed (CallCrashedError)"]
    assert sum("attempt 2" in line for line in lines) == 2


def test_a_warm_workers_job_has_two_lines_however_many_calls_it_runs(
    service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"workers": "warm", "max_workers": 1}
    with caplog.at_level(logging.INFO, "prominence_executor"):
        with ProminenceExecutor(service.url, service.token, **options) as executor:
            assert sum(executor.map(abs, range(30))) == 435
    lines = [line for line in lines_of(caplog) if "warm worker" in line]
    assert len(lines) == 2
    assert re.fullmatch(rf"run {executor.run_id}: job \d+ runs warm worker 1", lines[0])
    assert re.fullmatch(r".*: job \d+, warm worker 1, has ended after .* s: 30 calls, which had .* s", lines[1])


def test_large_uploads_are_told(service: LocalService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "prominence_executor"):
        with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
            assert executor.submit(len, os.urandom(1_500_000)).result(60) == 1_500_000
    uploads = [line for line in lines_of(caplog) if "upload" in line]
    assert len(uploads) == 2
    assert re.fullmatch(r"uploading [\w.-]+, 1\.5 MB", uploads[0])
    assert re.fullmatch(r"[\w.-]+ has been uploaded in [0-9.e-]+ s", uploads[1])


@pytest.mark.once
def test_a_program_that_wants_no_log_hears_warnings_alone(service: LocalService) -> None:
    program = (
        "from prominence_executor import ProminenceExecutor\n"
        "import logging\n"
        "with ProminenceExecutor(poll_interval=(0.05, 0.5)) as executor:\n"
        "    assert executor.submit(abs, -3).result(60) == 3\n"
        "logging.getLogger('prominence_executor').warning('this may not be missed')\n"
    )
    variables = unmeasured(PROMINENCE_URL=service.url, PROMINENCE_TOKEN=service.token, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "this may not be missed\n")
