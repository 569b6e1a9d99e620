"""What users write against: a change of it is a decision, with a line in CHANGELOG.md."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import public_api
import pytest
from paths import DATA

import prominence_executor
from prominence_executor import JobError, ProminenceExecutor, ProminenceFuture, Resources

MEANING = (
    "The public interface is not the recorded one. If that is meant, say so in CHANGELOG.md as users see it, and\n"
    "record it: python -m pytest tests/whole/test_public_api.py --record"
)


def test_the_public_interface_is_the_recorded_one(compare: Callable[[Path, str, str], None]) -> None:
    compare(DATA / "public_api.txt", public_api.interface(), MEANING)


def test_nothing_in_it_depends_on_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, home = public_api.interface(), str(Path.home())
    for name in ("HOME", "PROMINENCE_URL", "PROMINENCE_CONTAINERS", "PROMINENCE_TOKEN", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("COLUMNS", "40")
    assert public_api.interface() == text
    assert home not in text
    assert not re.search(r"0x[0-9a-f]{6}|python3\.\d", text)
    assert os.getcwd() not in text


def test_a_change_of_the_interface_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind of thing that is recorded, one is changed here."""
    before = public_api.interface().splitlines()
    add = argparse.ArgumentParser.add_argument

    def add_argument(self: argparse.ArgumentParser, *names: str, **options: Any) -> Any:
        return add(self, *names, **(options | {"default": 80} if "--port" in names else options))

    def submit(self: object, fn: Callable[..., object], priority: int = 0) -> None: ...

    def wait(self: object, seconds: float | None = None) -> None: ...

    unset = JobError.__init__.__kwdefaults__ or {}
    changes: list[tuple[object, str, object, str]] = [
        (ProminenceExecutor, "submit", submit, "    def submit(fn: Callable[..., object], priority: int = 0) -> None"),
        (ProminenceFuture, "wait", wait, "    def wait(seconds: float | None = None) -> None"),
        (Resources.__init__, "__defaults__", (1,) * 9, "        disk: int = 1,"),
        (JobError.__init__, "__kwdefaults__", {**unset, "status": ""}, "        status: str | None = '',"),
        (prominence_executor, "__all__", [*prominence_executor.__all__, "__version__"], "__version__: str"),
        (argparse.ArgumentParser, "add_argument", add_argument, "    --port PORT; type int; default 80"),
    ]
    for target, name, value, shown in changes:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value, raising=False)
            assert shown in public_api.interface().splitlines()
        assert shown not in before
    assert public_api.interface().splitlines() == before
