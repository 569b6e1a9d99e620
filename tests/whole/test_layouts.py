"""The user's own modules are found in a call wherever a ProcessPoolExecutor's worker finds them, in both modes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from layouts import LAYOUTS
from traffic import Listener
from variables import unmeasured

from prominence_executor import ProminenceExecutor, RemoteEnvironmentError
from prominence_executor.local import LocalService


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_call_finds_the_programs_own_modules(name: str, service: LocalService, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.write(tmp_path)
    variables = unmeasured(**layout.environment(tmp_path, service.url, service.token))
    program = [sys.executable, *layout.command]
    done = subprocess.run(program, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    line = next((text for text in done.stdout.splitlines() if text.startswith("LAYOUT ")), None)
    assert line is not None, done.stdout + done.stderr
    found = json.loads(line.removeprefix("LAYOUT "))
    wrong = {
        (mode, call): (value, layout.expected.get(call))
        for mode, values in found.items()
        for call, value in values.items()
        if value != layout.expected.get(call)
    }
    assert not wrong
    assert [set(values) for values in found.values()] == [set(layout.expected)] * 3


@pytest.mark.parametrize("workers", [None, "warm"])
def test_much_data_of_a_package_is_uploaded_once(
    workers: Any, service: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"px_heavy_{workers}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "data.bin").write_bytes(os.urandom(1_500_000))
    text = "import os\ndef size(_):\n    return os.path.getsize(os.path.join(os.path.dirname(__file__), 'data.bin'))\n"
    (tmp_path / name / "__init__.py").write_text(text)
    size = importlib.import_module(name).size
    with Listener(service.url) as listener:
        options: dict[str, Any] = {"workers": workers, "max_workers": 2, "poll_interval": (0.05, 0.5)}
        with ProminenceExecutor(listener.url, service.token, **options) as executor:
            for _ in range(2):
                assert list(executor.map(size, range(3), timeout=60)) == [1_500_000] * 3
            writing = executor.with_options(outputs=["*", "**/*"]).submit(size, 0)
            assert (writing.result(60), dict(writing.files)) == (
                1_500_000,
                {},
            )  # byte code beside a module is no output
        sent = listener.requests("PUT", ".*")
    assert [len(item.body) > 1_500_000 for item in sent if "pxmods-" in item.path] == [True]
    assert sum(len(item.body) for item in sent) < 1_700_000
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("workers", [None, "warm"])
def test_an_error_says_whose_a_missing_module_is_each_time(
    workers: Any, service: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here names `px_unnamed`: neither what travels by value, nor the module that travels."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "px_unnamed.py").write_text("value = 1\n")
    text = "import importlib\n{} = importlib.import_module('_'.join(['px', 'unnamed']))\ndef call():\n    return 1\n"
    (tmp_path / "px_asks.py").write_text(text.format("unnamed"))
    call = importlib.import_module("px_asks").call
    options: dict[str, Any] = {"workers": workers, "max_workers": 1, "poll_interval": (0.05, 0.5)}
    with ProminenceExecutor(service.url, service.token, image="an-image", **options) as executor:
        for _ in range(2):
            error = executor.submit(call).exception(60)
            assert isinstance(error, RemoteEnvironmentError)
            assert str(error).startswith(
                "the image 'an-image' has no module 'px_unnamed', which the call needs: it is your own ("
            )
            assert "px_unnamed.py), and did not travel: no import statement" in str(error)
        inside = executor.submit(importlib.import_module, "px_unnamed").exception(60)
        assert isinstance(inside, ModuleNotFoundError)
        said = [*getattr(inside, "__notes__", []), str(inside.__cause__)]
        assert any("raised in the image 'an-image' of job" in note and "it is your own (" in note for note in said)
    for name in ("px_asks", "px_unnamed"):
        monkeypatch.delitem(sys.modules, name)
