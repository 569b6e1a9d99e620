"""What archives from anywhere may do where they are unpacked: nothing outside, nothing too large, nothing too long."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from prominence_executor.service.sandbox.archives import BROKEN, Budget, OverBudget, Stopped, unpack

pytestmark = pytest.mark.once

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes, "a.tgz": gzip.compress, "a.tar.bz2": bz2.compress, "misnamed.tar": lzma.compress,
}  # fmt: skip
Member = tuple[str, bytes, str | bytes]  # name, type, and what it holds or where it leads


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory whose neighbours nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("kept")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def tarball(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o4777
            if isinstance(content, str):
                member.linkname = content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def unpacked(home: Path, name: str, content: bytes, budget: Budget | None = None) -> set[str]:
    (home / name).write_bytes(content)
    unpack(home / name, home, budget or Budget(lambda: False))
    return {str(path.relative_to(home)) for path in home.rglob("*")}


@pytest.mark.parametrize("name", PACKED)
def test_a_tarball_is_unpacked_however_it_is_packed(home: Path, name: str) -> None:
    blob = bytes(range(256)) * 5000
    whole = tarball(
        ("dir", tarfile.DIRTYPE, b""), ("dir/blob", tarfile.REGTYPE, blob), ("dir/link", tarfile.SYMTYPE, "blob"),
        ("hard", tarfile.LNKTYPE, "dir/blob"), ("block", tarfile.REGTYPE, bytes(1024)),
        ("n" * 150, tarfile.REGTYPE, b""), ("dir/blob", tarfile.REGTYPE, b"the last wins"),
    )  # fmt: skip
    found = unpacked(home, name, PACKED[name](whole))
    assert found == {"dir", "dir/blob", "dir/link", "hard", "block", "n" * 150}
    assert (home / "dir" / "link").read_text() == "the last wins"
    assert (home / "hard").read_bytes() == blob
    assert (home / "hard").stat().st_mode & 0o7777 == 0o755  # nothing that others may write, nor setuid


@pytest.mark.parametrize(
    "members",
    [
        [("../outside/file", tarfile.REGTYPE, b"evil")],
        [("/tmp/px-evil", tarfile.REGTYPE, b"evil")],
        [("link", tarfile.SYMTYPE, "../outside"), ("link/file", tarfile.REGTYPE, b"evil")],
        [("link", tarfile.SYMTYPE, "/etc")],
        [
            ("a/b/link", tarfile.SYMTYPE, "../.."),
            ("a/x", tarfile.SYMTYPE, "b/link/.."),
            ("a/x/f", tarfile.REGTYPE, b"e"),
        ],
        [("hard", tarfile.LNKTYPE, "../outside/file")],
        [("pipe", tarfile.FIFOTYPE, b"")],
        [("device", tarfile.CHRTYPE, b"")],
    ],
)
def test_no_member_leaves_the_directory_and_then_none_is_unpacked(home: Path, members: list[Member]) -> None:
    with pytest.raises(BROKEN):
        unpacked(home, "a.tar", tarball(("first", tarfile.REGTYPE, b""), *members))
    assert {path.name for path in home.iterdir()} == {"a.tar"}
    assert (home.parent / "outside" / "file").read_text() == "kept"


def test_a_member_replaces_a_link_and_does_not_write_through_it(home: Path) -> None:
    """A link out of the directory could only have come from elsewhere."""
    (home / "link").symlink_to(home.parent / "outside" / "file")
    unpacked(home, "a.tar", tarball(("link", tarfile.REGTYPE, b"new")))
    assert (home / "link").read_text() == "new"
    assert (home.parent / "outside" / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../up"])
def test_a_zip_with_such_a_name_is_not_unpacked(home: Path, name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("first", "1")
        archive.writestr(name, "evil")
    with pytest.raises(ValueError, match="may not be unpacked"):
        unpacked(home, "a.zip", buffer.getvalue())
    assert {path.name for path in home.iterdir()} == {"a.zip"}


def a_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dir/zeros", content)
    return buffer.getvalue()


BOMBS = {
    "a.tgz": lambda size: gzip.compress(tarball(("zeros", tarfile.REGTYPE, bytes(size)))),
    "a.zip": lambda size: a_zip(bytes(size)),
    "zeros.gz": lambda size: gzip.compress(bytes(size)),
    "zeros.bz2": lambda size: bz2.compress(bytes(size)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_more_is_unpacked_than_the_disk_that_a_job_has(home: Path, name: str) -> None:
    size = 8 << 20
    assert unpacked(home, name, BOMBS[name](size), Budget(lambda: False, size + 10_000))
    with pytest.raises(OverBudget):
        unpacked(home, name, BOMBS[name](size), Budget(lambda: False, size // 4))
    with pytest.raises(OverBudget):
        unpacked(
            home, "many.tar", tarball(*((f"{n}", tarfile.REGTYPE, b"") for n in range(300))), Budget(bool, 1 << 20)
        )


@pytest.mark.parametrize("name", BOMBS)
def test_unpacking_stops_when_its_job_is_over(home: Path, name: str) -> None:
    content, looks = BOMBS[name](64 << 20), 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        return looks > 20

    (home / name).write_bytes(content)
    began = time.process_time()
    with pytest.raises(Stopped):
        unpack(home / name, home, Budget(stopped))
    assert time.process_time() - began < 1
    assert sum(path.stat().st_size for path in home.rglob("*")) < (16 << 20)


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.bz2", "a.zip", "a.gz", "a.bz2", ".gz", "...bz2"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk" * 200,
        gzip.compress(bytes(5000))[:-20],
        bz2.compress(bytes(5000))[:-20],
        b"\xfd7zXZ\0junk",
        b"\x1f\x8b",
    ],
    ids=["empty", "junk", "gzip", "bzip2", "xz", "magic"],
)
def test_what_is_no_archive_is_one_of_the_known_errors(home: Path, name: str, content: bytes) -> None:
    (home / name).write_bytes(content)
    try:
        unpack(home / name, home, Budget(lambda: False))
    except BROKEN:
        assert (home / name).exists()


def test_an_encrypted_zip_is_one_of_the_known_errors(home: Path) -> None:
    content = bytearray(a_zip(b"text"))
    for at in (6, content.rindex(b"PK\x01\x02") + 8):
        content[at] |= 1
    with pytest.raises(BROKEN):
        unpacked(home, "a.zip", bytes(content))
