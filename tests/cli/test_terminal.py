"""What is shown to people: nothing that a terminal would obey, and no wider than it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from calls import Gate
from hypothesis import given
from hypothesis import strategies as st
from terminals import COLUMNS, on_terminal, without_extra

from prominence_executor import ProminenceExecutor, Resources
from prominence_executor.cli.terminal import Columns, duration, fit, joined
from prominence_executor.local import LocalService
from prominence_executor.shown import harmless

pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-m", "prominence_executor.cli"]
Until = Callable[..., None]


def shouting() -> None:
    print("\x1b]0;title\x07\x1b[2Jred <script>alert(1)</script> \u202eright to left\x9b31m")


@given(st.text())
def test_nothing_stays_that_a_terminal_would_obey(text: str) -> None:
    for lines in (False, True):
        shown = harmless(text, lines=lines)
        bad = [letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cf", "Cs")]
        assert not [letter for letter in bad if not (lines and letter in "\n\t")]


def test_what_is_harmless_stays_as_it_is() -> None:
    assert harmless("größe <b> [red] \\x") == "größe <b> [red] \\x"
    assert harmless("\x1b[31m\r\n\t") == r"\x1b[31m\r\n\t"
    assert harmless("a\r\nb\tc\rd", lines=True) == "a\nb\tc\\rd"


@given(st.lists(st.tuples(*[st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=200)] * 3)))
def test_a_table_is_as_wide_as_the_terminal(rows: list[tuple[str, str, str]]) -> None:
    assert all(len(line) <= COLUMNS for line in joined(fit(Columns(("one", "two", "three")), rows, COLUMNS)))


def test_what_people_type_is_never_cut_and_what_they_can_spare_goes_first() -> None:
    columns = Columns(("id", "name", "image", "when"), whole=("id",), spare=("image", "when"))
    row = ("x" * 30, "name-of-some-run/17-18.2", "python:3.11-slim", "11-27 00:08:31")
    assert fit(columns, [row], 100)[1] == list(row)
    assert fit(columns, [row], 72) == [["id", "name", "when"], ["x" * 30, "name-of-some-run/17-18.2", "11-27 00:08:31"]]
    assert fit(columns, [row], 68)[1] == ["x" * 30, "name-of-s.../17-18.2", "11-27 00:08:31"]
    assert fit(columns, [row], 60)[0] == ["id", "name"]
    assert [line[:30] for line in joined(fit(columns, [row], 10))] == ["ID".ljust(30), "x" * 30]


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (0.4, "0s"), (59.9, "59s"), (61, "1:01"), (3661, "1:01:01")])
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def variables(service: LocalService, tmp_path: Path) -> dict[str, str]:
    extra = {"HOME": str(tmp_path), "PROMINENCE_URL": service.url, "PROMINENCE_TOKEN": service.token}
    return {**os.environ, **extra}


@pytest.fixture(params=["with the extra", "without it"])
def either(request: pytest.FixtureRequest, variables: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables of a program that has the extra ``cli``, and of one that has not."""
    if request.param == "with the extra":
        return variables
    folder = tmp_path / "hidden"
    folder.mkdir()
    return {**variables, "PYTHONPATH": without_extra(folder)}


@pytest.fixture(scope="module")
def shouted(service: LocalService) -> str:
    run_id = f"run-{uuid.uuid4()}"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, poll_interval=(0.05, 0.5)) as executor:
        executor.submit(shouting).result(60)
    return run_id


def lines_of(shown: str) -> list[str]:
    return [line.rstrip("\r") for line in shown.split("\n")]


def test_a_table_fits_and_obeys_nobody(either: dict[str, str], shouted: str) -> None:
    status, shown = on_terminal([*COMMAND, "show", shouted], {**either, "NO_COLOR": "1"})
    assert status == 0
    assert "test_terminal" in shown
    table = lines_of(shown)[2:]
    assert all(
        len(line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")) <= COLUMNS for line in table
    )


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux, a terminal that shows what was drawn")
def test_a_screen_of_80_columns_shows_each_job_in_one_line(either: dict[str, str], shouted: str, until: Until) -> None:
    server = ["tmux", "-f", "/dev/null", "-L", f"prominence-{uuid.uuid4().hex[:12]}"]
    program = " ".join([*COMMAND, "show", shouted])
    shell = f"{program}; echo status $?; sleep 60"
    variables = {**either, "TERM": "xterm", "LANG": "C.UTF-8"}
    subprocess.run([*server, "new-session", "-d", "-x", "80", "-y", "24", shell], env=variables, check=True)
    try:

        def screen() -> list[str]:
            shown = subprocess.run([*server, "capture-pane", "-p"], capture_output=True, text=True, check=True)
            return [line.rstrip() for line in shown.stdout.splitlines() if line.strip()]

        until(lambda: "status 0" in screen(), 60)
        lines = screen()
        head = next(at for at, line in enumerate(lines) if line.startswith("CALLS"))
        assert lines[0].startswith(f"run {shouted}")
        assert all(line.startswith("  ") for line in lines[1:head])  # the sentence goes on between words
        jobs = lines[head + 1 : lines.index("status 0")]
        assert jobs
        assert all(line.split()[2] == "completed" for line in jobs)
    finally:
        subprocess.run([*server, "kill-server"], check=False)


def test_logs_are_harmless_on_a_terminal(variables: dict[str, str], shouted: str) -> None:
    status, shown = on_terminal([*COMMAND, "logs", shouted], variables)
    assert status == 0
    assert r"\x1b]0;title\x07\x1b[2Jred <script>alert(1)</script> \u202eright to left\x9b31m" in shown
    assert "\x1b" not in shown


def test_watch_is_live_and_ctrl_c_is_quiet(
    either: dict[str, str], service: LocalService, until: Until, tmp_path: Path
) -> None:
    run_id = f"run-{uuid.uuid4()}"
    nowhere = Resources(cpus=1000)  # no slot is that large: such a job waits
    executor = ProminenceExecutor(
        service.url, service.token, run_id=run_id, resources=nowhere, poll_interval=(0.05, 0.5)
    )
    try:
        future = executor.submit(Gate(tmp_path).hold, "a")
        until(lambda: future.job_id)
        interrupted = False

        def interrupt(shown: bytes, program: subprocess.Popen[bytes]) -> None:
            nonlocal interrupted
            if b"1 idle" in shown and not interrupted:
                interrupted = True
                program.send_signal(signal.SIGINT)

        status, shown = on_terminal([*COMMAND, "watch", run_id, "--interval", "0.2"], either, interrupt)
        assert status == 130
        assert "Traceback" not in shown
        assert lines_of(shown.rstrip())[-1].endswith("interrupted")
    finally:
        executor.shutdown(cancel_futures=True)


def test_a_reader_that_goes_early_is_no_complaint(variables: dict[str, str], shouted: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "list", "--all"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout is not None
        listing.stdout.close()
        assert listing.stderr is not None
        assert listing.stderr.read() == b""
    assert listing.returncode == 141


def test_help_is_there_at_once(variables: dict[str, str]) -> None:
    """By what is imported for it: seconds depend on what else the machine does."""
    program = (
        "import contextlib, io, sys\n"
        "from prominence_executor.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    slow = {"requests", "cloudpickle", "urllib3", "ssl", "sqlite3", "asyncio", "aiohttp", "rich", "shtab", "inspect"}
    assert not slow & set(done.stdout.split())
    own = {name for name in done.stdout.split() if name.startswith("prominence_executor.")}
    rooms = {name.split(".")[1] for name in own}
    assert rooms <= {"cli", "errors", "moved", "public", "shown", "version"}
