"""The password of a private index is nowhere after a run: journal, log, archive, lock, errors, what the service has."""

from __future__ import annotations

import gzip
import logging
import os
import sqlite3
import traceback
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import wheels as wheels_and_index
from wheels import index, wheel

from prominence_executor import ProminenceExecutor, RequirementsError
from prominence_executor.cli import main
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    """One that stands in no file: the modules of these tests travel."""
    monkeypatch.setattr(wheels_and_index, "PASSWORD", f"{uuid.uuid4().hex}+{uuid.uuid4().hex}")
    return wheels_and_index.PASSWORD


@pytest.fixture
def address(tmp_path: Path, password: str) -> Iterator[str]:
    folder = tmp_path / "served"
    wheel(folder, "alpha", "7.1", requires=["beta"])
    wheel(folder, "beta")
    with index(folder, private=True) as address:
        assert f":{password}@" in address
        yield address


def version(_: object = None) -> Any:
    import alpha  # type: ignore[import-not-found]

    return alpha.VERSION


def contents(folder: Path) -> Iterator[bytes]:
    """All files below a folder, those of ending jobs as long as they are there; archives unpacked."""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                content = Path(place, name).read_bytes()
                yield content
                if content.startswith(b"\x1f\x8b"):
                    yield gzip.decompress(content)


@pytest.fixture
def service() -> Iterator[LocalService]:
    """One of its own: all that it has is read, and the tests' common one keeps what hundreds of tests have left."""
    with LocalService(cpus=4, memory=16) as running:
        yield running


@pytest.mark.parametrize("by", ["file", "variable"])
def test_a_password_is_nowhere_after_a_run(
    service: LocalService,
    address: str,
    password: str,
    tmp_path: Path,
    caches: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    by: str,
) -> None:
    asked = tmp_path / "r.txt"
    if by == "file":
        asked.write_text(f"-i {address}\nalpha\n")
    else:
        monkeypatch.setenv("UV_INDEX_URL", address)
        monkeypatch.setenv("PIP_INDEX_URL", address)
        asked.write_text("alpha\n")
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    journal = tmp_path / "run.journal"
    with ProminenceExecutor(
        service.url, service.token, poll_interval=(0.05, 0.5), requirements=asked, journal=journal
    ) as executor:
        future = executor.submit(version)
        assert future.result() == "7.1"
        assert list(executor.map(version, range(2), chunksize=2)) == ["7.1"] * 2
        said.append(repr(executor.client.describe_job(future.job_id or 0)))
        said.append(repr(executor.check_image(60)))
        said += [repr(executor), repr(executor._options), str(future.stdout()), str(future.stderr())]
        asked.write_text(asked.read_text() + "nowhere\n")
        with pytest.raises(RequirementsError, match="nowhere") as raised:
            executor.with_options(requirements=asked)
        said += traceback.format_exception(raised.value)
    asked.write_text(asked.read_text().replace("nowhere\n", ""))
    with ProminenceExecutor(service.url, service.token, requirements=asked, workers="warm", max_workers=1) as executor:
        assert executor.submit(version).result() == "7.1"
    assert main(["env", "show"]) == 0
    said += [*capfd.readouterr(), caplog.text]
    with sqlite3.connect(journal) as opened:
        said += opened.iterdump()
    opened.close()
    found = [*contents(caches / "prominence-executor"), *contents(Path(service.dir)), journal.read_bytes()]
    assert any(b"alpha" in content for content in found)
    for secret in {password, quote(password), password.partition("+")[0]}:
        for text in [*(item.encode() for item in said), *found]:
            assert secret.encode() not in text
