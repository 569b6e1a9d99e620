"""``prominence-executor env`` chooses versions, shows and forgets them; it needs no service."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheels import only_these, wheel

from prominence_executor.cli import main

pytestmark = pytest.mark.once


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {**only_these(folder), "XDG_CACHE_HOME": str(tmp_path / "caches")}.items():
        monkeypatch.setenv(name, value)
    return folder


def test_versions_are_chosen_shown_and_forgotten(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel(wheels, "alpha", "1.0", requires=["beta"])
    wheel(wheels, "beta", "2.0")
    assert main(["env", "show"]) == 0
    assert main(["env", "lock", "alpha"]) == 0
    assert capsys.readouterr().out.startswith("alpha==1.0 --hash=sha256:")
    assert main(["env", "show", "alpha"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("alpha\n  Python 3.")
    assert "no archive yet" in shown
    assert shown.endswith("  alpha 1.0\n  beta 2.0\n")
    wheel(wheels, "alpha", "1.1")
    assert main(["env", "lock", "alpha"]) == 0
    assert capsys.readouterr().out.startswith("alpha==1.1 ")
    assert main(["env", "clear"]) == 0
    assert "MB removed from" in capsys.readouterr().out
    assert main(["env", "show", "alpha"]) == 1


def test_what_cannot_be_met_is_one_sentence(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "lock", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("prominence-executor env lock: the requirements ['nowhere'] cannot be met")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["env", "lock"])
