"""config, check, version and completion; how it ends when the service or the token is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from peer import unused_port
from terminals import without_extra

from prominence_executor.cli import main, parser
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PROMINENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def test_a_profile_is_set_shown_used_and_taken_away(
    said: Said, service: LocalService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text(service.token)
    status, shown, errors = said("config")
    assert (status, shown) == (0, "")
    assert "there are no profiles in" in errors
    assert said("config", "set", "--profile", "here", f"url={service.url}", "token_file=~/token", "cpus=2")[0] == 0
    file = home / ".prominence" / "config.ini"
    assert file.stat().st_mode & 0o777 == 0o600
    assert said("config", "path")[1] == f"{file}\n"
    assert json.loads(said("config", "--json")[1]) == {
        "here": {"url": service.url, "token_file": "~/token", "cpus": "2"}
    }
    assert said("--profile", "here", "runs")[0] == 0
    assert said("runs", "--profile", "here")[0] == 0
    monkeypatch.setenv("PROMINENCE_PROFILE", "here")
    assert said("runs")[0] == 0
    assert said("runs", "--profile", "there")[0] == 1
    assert said("config", "unset", "cpus", "token_file", "url")[0] == 0
    assert json.loads(said("config", "--json")[1]) == {}


def test_a_token_is_read_and_never_shown(
    said: Said, service: LocalService, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{service.token}\n"))
    assert said("config", "set", "token", f"url={service.url}")[0] == 0
    everything = ""
    for arguments in (["config"], ["config", "--json"], ["check"], ["check", "--json"], ["runs", "--all"], ["version"]):
        status, shown, errors = said(*arguments)
        assert status == 0, errors
        everything += shown + errors
    assert service.token not in everything
    assert service.token in (home / ".prominence" / "config.ini").read_text()


@pytest.mark.parametrize("change", ["colour=red", "cpus=two", "url="])
def test_what_cannot_be_set_is_one_sentence(said: Said, change: str) -> None:
    status, shown, errors = said("config", "set", change)
    assert (status, shown, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("prominence-executor config: ")


def test_check_says_what_is_set_and_from_where(
    said: Said, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", service.token)
    status, shown, _ = said("check", "--json")
    facts = {fact["name"]: fact for fact in json.loads(shown)}
    assert status == 0
    assert facts["URL"]["value"] == f"{service.url} (from PROMINENCE_URL)"
    assert facts["token"]["value"].startswith("from the environment variable PROMINENCE_TOKEN; good until ")
    assert "takes the token" in facts["service"]["value"]
    assert facts["clock"]["verdict"] == "ok"
    assert facts["Python"]["value"] == ".".join(map(str, sys.version_info[:3]))


def test_the_status_says_who_is_missing(said: Said, service: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    status, shown, errors = said("runs")
    assert (status, shown, errors.count("\n")) == (4, "", 1)
    assert "PROMINENCE_URL" in errors
    assert "PROMINENCE_TOKEN" in errors
    assert "url='local'" not in errors  # of a command it would list nothing
    assert said("check")[0] == 4
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", "garbage")
    assert said("runs")[0] == 4
    status, shown, _ = said("check")
    assert status == 4
    assert "problem service" in shown
    monkeypatch.setenv("PROMINENCE_URL", "local")
    status, _, errors = said("runs")
    assert (status, errors.count("\n")) == (1, 1)
    assert "prominence-executor serve" in errors
    assert said("check")[0] == 0


def test_a_check_finds_what_programs_would_not_take_of_a_profile(said: Said, home: Path) -> None:
    assert said("config", "set", "url=local")[0] == 0
    file = home / ".prominence" / "config.ini"
    file.write_text(file.read_text() + "cpus = two\n")
    status, shown, _ = said("check")
    assert status == 1
    assert [line for line in shown.splitlines() if line.startswith("problem")] == [
        f"problem profile             default (the usual one); file {file}: "
        "cpus of profile 'default' must be a whole number, not 'two'"
    ]


def test_a_listing_starts_no_service_of_slurm(said: Said, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMINENCE_URL", "slurm")
    for arguments in (["runs"], ["list", "--all"], ["show", "some"]):
        status, shown, errors = said(*arguments)
        assert (status, shown, errors.count("\n")) == (3, "", 1)
        assert "no service of url='slurm' runs in " in errors
    assert not (home / ".prominence").exists()


@pytest.mark.slow
def test_a_service_that_does_not_answer_is_status_3(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMINENCE_URL", f"http://127.0.0.1:{unused_port()}/prominence/v1")
    monkeypatch.setenv("PROMINENCE_TOKEN", "some")
    status, shown, errors = said("runs")
    assert (status, shown, errors.count("\n")) == (3, "", 1)
    assert "does not answer (connection refused)" in errors
    assert "HTTPConnection" not in errors
    assert said("check")[0] == 3


def test_a_traceback_is_shown_to_who_asks_for_it(said: Said) -> None:
    assert "Traceback" not in said("runs")[2]
    assert "Traceback" in said("runs", "--debug")[2]
    assert "Traceback" in said("--debug", "runs")[2]


def test_version_names_what_it_uses(said: Said) -> None:
    found = json.loads(said("version", "--json")[1])
    assert found["requests"]
    assert said("version")[1].startswith(f"prominence-executor {found['prominence-executor']}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_the_commands(said: Said, shell: str) -> None:
    status, script, _ = said("completion", shell)
    assert status == 0
    assert "results" in script


def test_without_the_extra_completion_says_what_is_missing(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": without_extra(tmp_path)}
    command = [sys.executable, "-m", "prominence_executor.cli", "completion", "bash"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "prominence-executor completion: completion needs shtab: pip install 'prominence-executor[cli]'\n"
    )


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        found = parser()
        for word in words:
            found = next(action.choices for action in found._actions if isinstance(action.choices, dict))[word]
        if words != ["serve"]:
            assert "example: prominence-executor " in (found.epilog or ""), words
        for action in found._actions:
            waiting += [[*words, name] for name in (action.choices if isinstance(action.choices, dict) else ())]
