"""Packages that one job has unpacked on a node are used by the next, if they are whole and nobody else can write."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from prominence_executor.remote import node
from prominence_executor.remote.environment import unpack_whole
from prominence_executor.remote.node import VARIABLE, is_own, kept_at_node

pytestmark = pytest.mark.once

DIGEST = sha256(b"some archive").hexdigest()
Unpack = Callable[[str], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "node"
    place.mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, str(place))
    yield place
    end_of_job()


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Unpack an archive of two files, and count how often."""
    path = tmp_path / "archive"
    with tarfile.open(path, "w:gz") as file:
        for name in ("pk/__init__.py", "pk/deep/a name.py"):
            member = tarfile.TarInfo(name)
            member.size = 5
            file.addfile(member, io.BytesIO(b"x = 1"))

    def unpack_to(folder: str) -> None:
        with open(tmp_path / "count", "a") as count:
            count.write("once\n")
        unpack_whole(str(path), folder)

    return unpack_to


def count(tmp_path: Path) -> int:
    return len((tmp_path / "count").read_text().splitlines()) if (tmp_path / "count").exists() else 0


def end_of_job() -> None:
    """What a process uses is free when it has ended."""
    for lock in node.used:
        lock.close()
    node.used.clear()


def test_the_next_job_finds_what_the_first_has_unpacked(place: Path, unpack: Unpack, tmp_path: Path) -> None:
    first = kept_at_node(DIGEST, unpack)
    assert first is not None
    assert (Path(first) / "pk" / "deep" / "a name.py").read_text() == "x = 1"
    assert kept_at_node(DIGEST, unpack) == first
    assert count(tmp_path) == 1
    assert Path(first).parent == place


def test_it_is_unpacked_again_when_a_file_was_changed_or_removed(place: Path, unpack: Unpack, tmp_path: Path) -> None:
    for number, harm in enumerate((lambda path: path.unlink(), lambda path: path.write_text("y = 2")), 1):
        folder = kept_at_node(DIGEST, unpack)
        assert folder is not None
        harm(Path(folder) / "pk" / "__init__.py")
        assert kept_at_node(DIGEST, unpack) is None  # a job still uses it: this one unpacks for itself
        end_of_job()
        assert kept_at_node(DIGEST, unpack) == folder
        assert (Path(folder) / "pk" / "__init__.py").read_text() == "x = 1"
        assert count(tmp_path) == 1 + number
        end_of_job()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777, 0o755])
def test_a_folder_that_others_can_enter_is_not_used(place: Path, unpack: Unpack, tmp_path: Path, mode: int) -> None:
    place.chmod(mode)
    assert kept_at_node(DIGEST, unpack) is None
    assert count(tmp_path) == 0
    assert not list(place.iterdir())


def test_neither_is_one_below_what_others_can_write_nor_a_link(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_own(str(place))
    place.parent.chmod(0o777)
    assert not is_own(str(place))
    place.parent.chmod(0o1777)  # as /tmp is
    assert is_own(str(place))
    (place.parent / "link").symlink_to(place)
    assert not is_own(str(place.parent / "link"))
    assert not is_own("node")
    assert not is_own("")
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        assert not is_own(str(place))


def test_where_nothing_can_be_written_a_job_unpacks_for_itself(place: Path, unpack: Unpack) -> None:
    (place / f".pxpackages-{DIGEST[:32]}.making").mkdir()
    assert kept_at_node(DIGEST, unpack) is None
    shutil.rmtree(place)
    assert kept_at_node(DIGEST, unpack) is None


def test_an_archive_that_is_not_what_was_sent_leaves_nothing(place: Path) -> None:
    def refuse(folder: str) -> None:
        raise ValueError("did not arrive as it was sent")

    with pytest.raises(ValueError, match="did not arrive"):
        kept_at_node(DIGEST, refuse)
    assert not [path for path in place.iterdir() if path.is_dir()]


def test_an_archive_that_ends_too_early_leaves_nothing(place: Path, unpack: Unpack, tmp_path: Path) -> None:
    whole = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((EOFError, tarfile.TarError)):
        kept_at_node(DIGEST, unpack)
    assert not [path for path in place.iterdir() if path.is_dir()]


def test_what_nobody_has_used_for_a_week_makes_room(place: Path, unpack: Unpack) -> None:
    old, busy, new = (sha256(name).hexdigest() for name in (b"old", b"busy", b"new"))
    gone = kept_at_node(old, unpack)
    end_of_job()
    kept = kept_at_node(busy, unpack)
    assert gone is not None
    assert kept is not None
    (place / ".pxpackages-killed.0123").mkdir()
    for path in place.iterdir():
        os.utime(path, (1, time.time() - 8 * 86400))
    assert kept_at_node(new, unpack)
    assert not os.path.exists(gone)
    assert os.path.isdir(kept)  # it is in use
    assert not (place / ".pxpackages-killed.0123").exists()


def test_jobs_that_begin_together_unpack_once(place: Path, unpack: Unpack, tmp_path: Path) -> None:
    program = (
        "import sys, time; from prominence_executor.remote.node import kept_at_node\n"
        "from prominence_executor.remote.environment import unpack_whole\n"
        "def unpack(folder):\n    open(sys.argv[2], 'a').write('once\\n'); unpack_whole(sys.argv[1], folder)\n"
        f"print(kept_at_node({DIGEST!r}, unpack))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "archive"), str(tmp_path / "count")]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({job.communicate()[0] for job in jobs}) == 1
    assert count(tmp_path) == 1
