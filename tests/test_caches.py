"""The folder of what takes long to make."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prominence_executor.caches import appearing_in, cache_folder


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


def test_what_is_made_appears_whole_or_not_at_all(caches: Path) -> None:
    path = cache_folder("things", "one")
    with pytest.raises(ValueError, match="midway"), appearing_in(path) as scratch:
        (scratch / "new").write_text("half")
        raise ValueError("midway")
    assert list(path.parent.iterdir()) == []
    with appearing_in(path) as scratch:
        (scratch / "new").write_text("whole")
        assert not path.exists()
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("one", "whole")]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.is_relative_to(caches)


def test_what_a_killed_program_has_left_is_removed_a_day_later(caches: Path) -> None:
    path = cache_folder("things", "one")
    for name, days in (("building-old", 2), ("building-young", 0)):
        (path.parent / name).mkdir(parents=True)
        os.utime(path.parent / name, (time.time() - days * 86400,) * 2)
    with appearing_in(path) as scratch:
        (scratch / "new").touch()
    assert sorted(file.name for file in path.parent.iterdir()) == ["building-young", "one"]


def test_a_place_where_no_folder_can_be_is_said_with_what_names_another_one(caches: Path) -> None:
    caches.write_text("a file")
    with pytest.raises(NotADirectoryError, match=r"Not a directory .*XDG_CACHE_HOME.*caches"):
        with appearing_in(cache_folder("things", "one")):
            pass
