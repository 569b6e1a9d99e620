"""The command itself: help, version, and what it does not understand."""

from __future__ import annotations

import subprocess
import sys

import pytest

import prominence_executor
from prominence_executor.cli import main


@pytest.mark.parametrize("arguments", [[], ["image"], ["nonsense"], ["image", "push"], ["image", "push", "x", "--bad"]])
def test_what_is_not_understood_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: prominence-executor")


@pytest.mark.parametrize(
    "arguments", [[], ["serve"], ["image"], ["image", "build"], ["image", "push"], ["image", "check"]]
)
def test_every_command_has_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: prominence-executor", *arguments]))


def test_as_a_module_it_is_the_same_command() -> None:
    command = [sys.executable, "-m", "prominence_executor.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"prominence-executor {prominence_executor.__version__}\n")
