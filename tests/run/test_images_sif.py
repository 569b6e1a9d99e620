"""For Singularity an archive goes as a .sif, which a program of that name on this machine makes once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from calls import square

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

APPTAINER = """#!/bin/sh
echo "$@" >> {log}
[ "$1" = build ] && cp "${{3#docker-archive://}}" "$2" && printf ' as sif' >> "$2"
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program of that name is asked for: it stands in for Apptainer, which need not be on this machine."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(APPTAINER.format(log=tmp_path / "log"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "log"


def image_of_a_job(service: LocalService, **options: Any) -> str:
    """The image of the job in which a call has run."""
    with ProminenceExecutor(service.url, service.token, **options) as executor:
        future = executor.submit(square, 3)
        assert future.result(60) == 9
        image: str = executor.client.describe_job(future.job_id or 0)["tasks"][0]["image"]
        if image.startswith("pximage-"):
            assert image in [item["name"] for item in executor.client.list_data()]
            executor.client.delete_data(image)
        return image


def archive(folder: Path) -> Path:
    path = folder / "some.tar"
    path.write_bytes(folder.name.encode() * 1000)
    return path


def test_it_is_made_once_and_runs_instead_of_the_archive(service: LocalService, log: Path, tmp_path: Path) -> None:
    image = archive(tmp_path)
    names = {image_of_a_job(service, image=image, runtime="singularity") for _ in range(2)}
    assert len(names) == 1
    assert names.pop().endswith(".sif")
    assert len(log.read_text().splitlines()) == 1
    assert log.read_text().split()[::2] == ["build", f"docker-archive://{image}"]


def test_other_runtimes_have_the_archive(service: LocalService, log: Path, tmp_path: Path) -> None:
    assert image_of_a_job(service, image=archive(tmp_path), runtime="udocker").endswith(".tar")
    assert not log.exists()


def test_where_none_can_be_made_the_archive_goes_and_one_sentence_says_why(
    service: LocalService, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bin" / "apptainer").write_text("#!/bin/sh\necho no such format >&2\nexit 255\n")
    with caplog.at_level(logging.WARNING, "prominence_executor"):
        for _ in range(2):
            assert image_of_a_job(service, image=archive(tmp_path), runtime="singularity").endswith(".tar")
    said = [record.getMessage() for record in caplog.records if "no .sif could be made" in record.getMessage()]
    assert len(said) == 1
    assert "no such format" in said[0]
