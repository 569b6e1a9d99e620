"""What an archive of packages says never leaves its directory, and what is damaged leaves nothing."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from prominence_executor.remote.environment import first_of_image, unpack_whole

pytestmark = pytest.mark.once


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = kind, link, mode
    found.size = 3 if kind == tarfile.REGTYPE else 0
    return found


def test_files_are_there_with_nothing_but_the_right_to_run(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", member("pk/mod.py"), member("pk/deep/tool", mode=0o7777))
    unpack_whole(os.fspath(path), os.fspath(tmp_path / "to"))
    assert (tmp_path / "to" / "pk" / "mod.py").read_bytes() == b"xxx"
    assert stat.S_IMODE((tmp_path / "to" / "pk" / "deep" / "tool").stat().st_mode) in (0o755, 0o700)
    assert {item.name for item in tmp_path.iterdir()} == {"a", "to"}


@pytest.mark.parametrize(
    "bad",
    [
        member("/outside"),
        member("../outside"),
        member("pk/../../outside"),
        member("pk//mod.py"),
        member("pk\\mod.py"),
        member("."),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "pk/mod.py"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("folder", tarfile.DIRTYPE),
        member("pk/mod.py"),  # twice
    ],
    ids=lambda item: f"{item.name}-{item.type!r}",
)
def test_anything_else_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    path = archive(tmp_path / "a", member("pk/mod.py"), bad)
    with pytest.raises((ValueError, FileExistsError)):
        unpack_whole(os.fspath(path), os.fspath(tmp_path / "to"))
    assert not (tmp_path / "to").exists()
    assert not list(tmp_path.glob("outside*"))


def test_an_archive_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", member("pk/mod.py"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises((EOFError, tarfile.TarError, ValueError)):
        unpack_whole(os.fspath(path), os.fspath(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_packages_stand_behind_the_standard_library_and_before_those_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = os.path.dirname(os.__file__)
    archive = "/usr/lib/python{}{}.zip".format(*sys.version_info)
    before = ["/x/pxrun.pyz", "/x/pxmodules-12/0", archive, library, f"{library}/lib-dynload"]
    monkeypatch.setattr(sys, "path", [*before, f"{library}/site-packages", "/other"])
    assert first_of_image() == 5
    monkeypatch.setattr(sys, "path", ["/x/pxrun.pyz", "/x/pxmodules-12/0", "/of/PYTHONPATH", library])
    assert first_of_image() == 2
    monkeypatch.setattr(sys, "path", ["/x/pxrun.pyz", library])
    assert first_of_image() == 2
