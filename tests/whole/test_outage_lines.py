"""A program is told of a service that does not answer: at its first contact, and in the middle of a run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from paths import ROOT
from peer import unused_port
from proxy import FaultProxy
from variables import unmeasured

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Until = Callable[..., None]
TOKEN = "one-that-nobody-may-see"


def program(options: str, url: str) -> subprocess.Popen[str]:
    text = f"from prominence_executor import ProminenceExecutor\nwith ProminenceExecutor({options}) as e:\n"
    variables = unmeasured(PROMINENCE_URL=url, PROMINENCE_TOKEN=TOKEN, PYTHONPATH=str(ROOT))
    arguments = [sys.executable, "-c", text + "    print(e.submit(pow, 2, 3).result())\n"]
    return subprocess.Popen(arguments, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("options", "seconds"), [("", 10), ("workers='warm'", 900), ("service_timeout=800", 800)])
def test_the_first_contact_says_what_it_waits_for_and_ctrl_c_ends_it(options: str, seconds: int) -> None:
    url = f"http://127.0.0.1:{unused_port()}/v1"
    with program(options, url) as running:
        assert running.stderr is not None
        said = running.stderr.readline()
        os.kill(running.pid, signal.SIGINT)
        _, rest = running.communicate(timeout=100)
    assert said == (
        f"no answer from {url} (connection refused): asking again for up to {seconds} s; Ctrl-C ends that\n"
    )
    lines = [line for line in rest.splitlines() if not line.startswith((" ", "Traceback"))]
    assert len(lines) == 2, rest  # that it was interrupted, and what Python says of KeyboardInterrupt
    assert "interrupted: its 1 outstanding calls were given up, and their jobs deleted" in lines[0]
    assert lines[1] == "KeyboardInterrupt"
    assert TOKEN not in said + rest


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, "warm"])
def test_an_outage_in_the_middle_of_a_run_has_one_line_and_its_end_another(
    service: LocalService, caplog: pytest.LogCaptureFixture, until: Until, workers: str | None
) -> None:
    def said(what: str) -> list[tuple[str, str]]:
        own = [record for record in caplog.records if record.name == "prominence_executor"]
        return [(record.levelname, record.getMessage()) for record in own if what in record.getMessage()]

    caplog.set_level(logging.INFO, "prominence_executor")
    with FaultProxy(service.url) as proxy:
        with ProminenceExecutor(
            proxy.url,
            service.token,
            workers=workers,  # type: ignore[arg-type]
            poll_interval=(0.05, 0.2),
        ) as executor:
            assert executor.submit(pow, 2, 2).result(60) == 4
            with proxy.refusing():
                futures = [executor.submit(pow, number, 2) for number in range(5)]
                until(lambda: said("no answer from"), 60)
                sent = executor.client.api.requests_sent.total()
                until(lambda: executor.client.api.requests_sent.total() > sent, 60)  # it is asked again
            assert [future.result(60) for future in futures] == [0, 1, 4, 9, 16]
            until(lambda: said("answers again"), 60)
    warned = [line for line in said("") if line[0] == "WARNING"]
    text = f"no answer from {proxy.url} (connection refused): asking again for up to 900 s; Ctrl-C ends that"
    assert warned == [("WARNING", text)]
    assert [level for level, _ in said("answers again")] == ["INFO"]
    assert service.token not in caplog.text
