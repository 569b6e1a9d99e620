"""Tasks in containers on the nodes of a Slurm, which have images in common."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from container_images import same_python
from one_node_slurm import OneNodeSlurm

from prominence_executor import ProminenceExecutor
from prominence_executor.service import LocalService
from prominence_executor.service.containers.base import PullFailed
from prominence_executor.service.containers.once import Once, clear

# The first of them waits for the image, which takes minutes to be built on a busy machine.
pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@same_python
def test_jobs_that_begin_at_once_share_an_image_that_is_unpacked_once(
    slurm: OneNodeSlurm, runtime: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    public = f"https://127.0.0.1:{port}/prominence/v1"
    with LocalService(
        tmp_path, port, engine="slurm", containers="real", bind="0.0.0.0", public_url=public,
        engine_options={"poll_seconds": "0.5"},
    ) as service:  # fmt: skip
        assert service.cafile is not None
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", str(service.cafile))
        with ProminenceExecutor(service.url, service.token, image=image, runtime=runtime) as executor:
            futures = [executor.submit(os.listdir, "/home") for _ in range(3)]
            assert [future.result(240) for future in futures] == [["user"]] * 3  # as in a container
            given = executor.submit(os.getenv, "PROMINENCE_SSL_VERIFY").result(240)
            assert executor.submit(Path(str(given)).read_text).result(240) == service.cafile.read_text()
        assert list((tmp_path / "images" / "incoming").iterdir()) == []
        kept = tmp_path / ("udocker/unpacked" if runtime == "udocker" else "apptainer/built")
        assert len(list(kept.iterdir())) == 1


def test_what_processes_have_in_common_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    first, second = Once(tmp_path), Once(tmp_path)  # as in two processes: a lock is of an open file
    order = []
    with ThreadPoolExecutor(1) as pool:
        with first.alone("image", lambda: False):
            waits = pool.submit(second.make, "image", lambda: False, lambda: order.append("second"))
            with pytest.raises(PullFailed):
                Once(tmp_path).make("image", lambda: True, lambda: order.append("third"))
            order.append("first")
        waits.result(20)
    assert order == ["first", "second"]


def test_what_another_job_has_just_given_a_second_name_is_not_taken_for_left(tmp_path: Path) -> None:
    (tmp_path / "object").write_text("an image")
    os.utime(tmp_path / "object", (1, 1))  # it was uploaded long ago
    (tmp_path / "incoming").mkdir()
    os.link(tmp_path / "object", tmp_path / "incoming" / "link")
    clear(tmp_path / "incoming", shared=True)
    assert (tmp_path / "incoming" / "link").exists()
