"""`image build`: what it refuses before it begins, and what becomes of a build that fails or is interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import layer_of
from variables import unmeasured

from prominence_executor import ImageBuildError
from prominence_executor.images import debian
from prominence_executor.images.archive import pack
from prominence_executor.images.build import build

HERE = "{}.{}".format(*sys.version_info[:2])
SUITES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
COMMAND = [sys.executable, "-m", "prominence_executor.cli", "image", "build"]
able = os.geteuid() == 0 and shutil.which("debootstrap", path=os.environ["PATH"] + ":/usr/sbin") is not None
needs_debootstrap = pytest.mark.skipif(not able, reason="needs root and debootstrap")
Until = Callable[..., None]


# -- what is refused -----------------------------------------------------------------------------------------------


def test_another_python_than_the_distributions_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError) as caught:
        build(tmp_path / "x.tar", python="3.12", suite="bookworm")
    assert str(caught.value) == (
        "the Python of bookworm is 3.11, not 3.12: give the prefix of an installed Python 3.12 by "
        "--from-python PREFIX (from_python=), or another release by --suite"
    )


def test_arguments_that_cannot_be_are_refused_before_anything_happens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.tar, \.tgz, \.tar\.gz or \.sif"):
        build(tmp_path / "x.img")
    with pytest.raises(ValueError, match=r"3\.11.*'3'"):
        build(tmp_path / "x.tar", python="3", suite="bookworm")
    with pytest.raises(FileNotFoundError, match="no directory"):
        build(tmp_path / "no" / "x.tar")
    with pytest.raises(FileNotFoundError, match=r"no requirements file .*no\.txt"):
        build(tmp_path / "x.tar", requirements=[tmp_path / "no.txt"])
    with pytest.raises(ValueError, match="not the prefix of an installed Python"):
        build(tmp_path / "x.tar", from_python=tmp_path, suite="bookworm")
    with pytest.raises(ValueError, match="virtual environment"):
        (tmp_path / "pyvenv.cfg").touch()
        build(tmp_path / "x.tar", from_python=tmp_path, suite="bookworm")
    with pytest.raises(ImageBuildError, match=f"is {HERE}, not 3.4"):
        build(tmp_path / "x.tar", from_python=sys.base_prefix, python="3.4", suite="bookworm")
    assert not list(tmp_path.glob("x*"))


def test_without_root_and_without_debootstrap_it_says_what_is_needed() -> None:
    """In processes of their own: one that gives up root, and one that sees no programs."""
    program = (
        "import os, sys\n"
        "from prominence_executor.images import debian\n"
        "from prominence_executor.images.build import build\n"
        "if sys.argv[1] == 'nobody': os.geteuid() or os.setuid(65534)\n"
        "else: debian.SYSTEM_PATH = '/nowhere'; os.environ['PATH'] = '/nowhere'\n"
        f"build('/refused.tar', python={HERE!r}, suite='sid')"
    )
    for who, said in (("nobody", "only root"), ("someone", "apt-get install debootstrap")):
        if who == "someone" and os.geteuid() != 0:
            continue
        done = subprocess.run(
            [sys.executable, "-c", program, who], env=unmeasured(), capture_output=True, text=True, check=False
        )
        assert said in done.stderr.splitlines()[-1]


# -- the archive ---------------------------------------------------------------------------------------------------


def test_an_archive_is_the_same_for_the_same_tree_and_holds_links_and_modes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "tool").write_text("#!/bin/sh\n")
    (tree / "bin" / "tool").chmod(0o755)
    os.link(tree / "bin" / "tool", tree / "bin" / "twin")
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "cache").mkdir()
    (tree / "cache" / "junk").touch()
    os.mkfifo(tree / "pipe")
    archives = []
    for name in ("a.tar", "b.tar", "c.tgz"):
        pack(
            tree, tmp_path / name, tag="some:latest", env={"LANG": "C.UTF-8"}, command=["python3"], scratch=tmp_path,
            leave_out=lambda name: name == "cache/junk",
        )  # fmt: skip
        os.utime(tree / "bin" / "tool", (1, 1))
        archives.append((tmp_path / name).read_bytes())
    assert archives[0] == archives[1]
    with tarfile.open(tmp_path / "c.tgz") as compressed, tarfile.open(tmp_path / "a.tar") as plain:
        assert compressed.getnames() == plain.getnames()
    members = layer_of(tmp_path / "a.tar", "some:latest")
    assert list(members) == ["bin", "bin/tool", "bin/twin", "cache", "link"]
    assert members["bin/tool"].mode == 0o755
    assert (members["bin/twin"].islnk(), members["bin/twin"].linkname) == (True, "bin/tool")
    assert members["link"].linkname == "/etc/passwd"
    assert {member.mtime for member in members.values()} == {315_532_800}


# -- what goes wrong ------------------------------------------------------------------------------------------------


def scratches(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("prominence-image-*"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the build has its temporary tree; afterwards nothing is left of it, and nothing is mounted."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert scratches(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@needs_debootstrap
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_behind(temporary: Path, number: signal.Signals, until: Until) -> None:
    suite = debian.running_suite()
    python = next((version for version, name in SUITES.items() if name == suite), HERE)
    command = [*COMMAND, "-o", str(temporary / "x.tar"), "--python", python]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: [tree for scratch in scratches(temporary) for tree in scratch.glob("tree/*")], 60)
        time.sleep(0.2)
        process.send_signal(number)
        output, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert output == ""
    assert "Traceback" not in said
    assert not (temporary / "x.tar").exists()


@needs_debootstrap
def test_a_failed_step_shows_what_the_tool_said_and_leaves_nothing(temporary: Path) -> None:
    with pytest.raises(ImageBuildError, match=r"debootstrap failed with exit code \d+:\n"):
        build(temporary / "x.tar", python=HERE, suite="nosuchsuite")
    assert not list(temporary.glob("x*"))
