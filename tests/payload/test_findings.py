"""What was found in sources is kept for later programs: they parse none of them again, and find the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from prominence_executor.caches import Findings, cache_folder

SOURCES = [b"x = %d  # " % number + b"." * 50_000 for number in range(5)]


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def program(sources: list[bytes]) -> tuple[list[str], int]:
    """Do as a program does that finds something in sources; return what, and how many it has looked into."""
    looked = []

    def find(content: bytes) -> str:
        looked.append(content)
        return content[:5].decode()

    findings = Findings("test.1", find)
    found = [findings.of(content) for content in [*sources, *sources]]
    findings.keep()
    return found, len(looked)


def test_a_later_program_finds_the_same_without_looking() -> None:
    first, looked = program(SOURCES)
    assert looked == 5
    assert program(SOURCES) == (first, 0)
    changed = [*SOURCES[:4], b"y = 7" + SOURCES[4][5:]]
    assert program(changed) == ([*first[:4], "y = 7"] * 2, 1)


def test_little_is_not_kept_and_what_is_broken_is_none() -> None:
    program(SOURCES[:2])
    assert not cache_folder("sources").exists()
    program(SOURCES)
    (kept,) = cache_folder("sources").iterdir()
    assert kept.stat().st_size < 1000
    kept.write_text("[1")
    assert program(SOURCES)[1] == 5
    assert program(SOURCES)[1] == 0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "prominence-executor").write_text("a file")
    assert program(SOURCES)[1] == 5
