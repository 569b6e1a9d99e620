"""A folder of wheels that uv and pip take packages from, and nowhere else; and caches of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheels import only_these

from prominence_executor.environments.platforms import target
from prominence_executor.environments.tools import Pip, Tool, find_tool


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "caches"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in only_these(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture(params=["uv", "pip"])
def tool(request: pytest.FixtureRequest) -> Tool:
    return Pip() if request.param == "pip" else find_tool(target(None))
