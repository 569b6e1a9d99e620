"""Versions are chosen once, for another machine, by uv and by pip alike; the archive has the same bytes each time."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import wheels as making
from wheels import index, wheel

from prominence_executor import RequirementsError
from prominence_executor.environments import store
from prominence_executor.environments.locks import Lock, lock_from
from prominence_executor.environments.store import archive_of, lock_of, locked
from prominence_executor.environments.tools import Tool
from prominence_executor.environments.wanted import wanted

pytestmark = pytest.mark.once


def chosen(tool: Tool, *lines: str, platform: str | None = None) -> Lock:
    lock = lock_of(wanted(list(lines), platform), tool=tool)
    assert lock is not None
    return lock


def test_versions_are_chosen_with_all_that_they_need(tool: Tool, wheels: Path) -> None:
    wheel(wheels, "alpha", "1.0")
    wheel(wheels, "alpha", "2.0", requires=["beta<3", "gamma ; sys_platform == 'win32'"])
    wheel(wheels, "beta", "2.5")
    wheel(wheels, "beta", "3.0")
    lock = chosen(tool, "alpha")
    assert lock.versions == {"alpha": "2.0", "beta": "2.5"}
    assert lock.text.count("--hash=sha256:") == 2


def test_they_are_kept_until_somebody_asks_again(tool: Tool, wheels: Path, caches: Path) -> None:
    wheel(wheels, "alpha", "1.0")
    first = chosen(tool, "alpha")
    wheel(wheels, "alpha", "2.0")
    assert chosen(tool, "alpha") == first
    again = lock_of(wanted(["alpha"]), anew=True, tool=tool)
    assert again is not None
    assert again.versions == {"alpha": "2.0"}
    for path in caches.rglob("*.json"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_another_machine_has_its_own_wheels(wheels: Path) -> None:
    wheel(
        wheels,
        "alpha",
        "1.0",
        tag="cp310-abi3-manylinux_2_17_aarch64",
        requires=["arm ; platform_machine == 'aarch64'"],
    )
    wheel(wheels, "alpha", "2.0", tag="cp310-abi3-manylinux_2_17_x86_64")
    wheel(wheels, "arm")
    lock = locked(["alpha"], "aarch64")
    assert lock is not None
    assert lock.versions == {"alpha": "1.0", "arm": "1.0"}
    assert archive_of(lock).size > 0


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["nowhere"], "nowhere"),
        (["alpha", "beta<3"], "beta"),  # a conflict
        (["built"], "built"),  # there is no wheel
        (["elsewhere"], "elsewhere"),  # nor here for this machine
    ],
)
def test_what_cannot_be_met_is_one_sentence(tool: Tool, wheels: Path, lines: list[str], named: str) -> None:
    wheel(wheels, "alpha", requires=["beta>=3"])
    wheel(wheels, "beta", "2.0")
    wheel(wheels, "beta", "3.0")
    wheel(wheels, "elsewhere", tag="py3-none-win_amd64")
    with tarfile.open(wheels / "built-1.0.tar.gz", "w:gz") as archive:
        made = wheels.parent / "pyproject.toml"
        made.write_text('[project]\nname = "built"\nversion = "1.0"\n')
        archive.add(made, "built-1.0/pyproject.toml")
    with pytest.raises(RequirementsError, match=rf"cannot be met for Python 3.*: (uv|pip) says: .*{named}") as raised:
        chosen(tool, *lines)
    assert "\n" not in str(raised.value)
    assert not store.locks()


def test_an_index_that_does_not_answer_is_one_sentence(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_RETRIES", "0")
    (tmp_path / "r.txt").write_text("alpha\n-i http://reader:s3cret@127.0.0.1:9/simple\n")
    with pytest.raises(RequirementsError, match="alpha") as raised:
        lock_of(wanted(tmp_path / "r.txt"), tool=tool)
    assert "s3cret" not in str(raised.value)


def test_hashes_that_the_user_insists_on_are_kept(tool: Tool, wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "alpha")
    (tmp_path / "r.txt").write_text(f"alpha==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(RequirementsError, match="alpha"):
        lock = lock_of(wanted(tmp_path / "r.txt"), tool=tool)
        assert lock is not None
        archive_of(lock, tool=tool)


def test_a_wheel_that_has_changed_is_refused(tool: Tool, wheels: Path, caches: Path) -> None:
    wheel(wheels, "alpha")
    lock = chosen(tool, "alpha")
    wheel(wheels, "alpha", files={"alpha/more.py": b""})
    shutil.rmtree(caches / "uv", ignore_errors=True)  # which has the one that was chosen
    with pytest.raises(RequirementsError, match=r"(?i)alpha.*hash|hash.*alpha"):
        archive_of(lock, tool=tool)


def test_the_archive_has_the_same_bytes_each_time(tool: Tool, wheels: Path, caches: Path) -> None:
    code = b"def f(x):\n    return {'a': (1, 2.5, 'text'), 'b': {x, 'y', 'z'}}\n" * 20
    wheel(wheels, "alpha", files={"alpha/code.py": code, "alpha/data.bin": bytes(1000), "alpha.libs/x.so": b"\x7fELF"})
    lock = chosen(tool, "alpha")
    first = archive_of(lock, tool=tool)
    with tarfile.open(first.path) as archive:
        members = {member.name: member for member in archive}
    assert {"alpha/code.py", "alpha/data.bin", "alpha.libs/x.so", "alpha-1.0.dist-info/METADATA"} <= set(members)
    assert any(name.startswith("alpha/__pycache__/code.cpython") for name in members)
    assert all(member.isreg() and member.mtime == 0 for member in members.values())
    assert not {name for name in members if "INSTALLER" in name or "direct_url" in name}
    shutil.rmtree(caches)
    assert archive_of(lock, tool=tool).sha256 == first.sha256


def test_an_archive_that_is_too_large_says_what_to_do(tool: Tool, wheels: Path) -> None:
    wheel(wheels, "alpha", files={"alpha/data.bin": os.urandom(20_000)})
    with pytest.raises(RequirementsError, match=r"more than the 0\.01 MB of requirements_limit.*image build"):
        archive_of(chosen(tool, "alpha"), limit=0.01, tool=tool)


def test_a_password_of_an_index_is_nowhere(tool: Tool, tmp_path: Path, caches: Path) -> None:
    folder = tmp_path / "served"
    wheel(folder, "alpha", requires=["beta"])
    wheel(folder, "beta")
    with index(folder, private=True) as address:
        assert making.PASSWORD in address
        (tmp_path / "r.txt").write_text(f"--index-url {address}\nalpha\n")
        lock = lock_of(wanted(tmp_path / "r.txt"), tool=tool)
        assert lock is not None
        archive = archive_of(lock, tool=tool)
        (tmp_path / "r.txt").write_text(f"--index-url {address}\nnowhere\n")
        with pytest.raises(RequirementsError, match="nowhere") as raised:
            lock_of(wanted(tmp_path / "r.txt"), tool=tool)
    said = [str(raised.value), repr(raised.value), repr(lock), json.dumps(lock.plain())]
    unpacked = subprocess.run(["gzip", "-dc", archive.path], capture_output=True, check=True).stdout
    kept = [path.read_bytes() for path in (caches / "prominence-executor").rglob("*") if path.is_file()]
    for text in [*(item.encode() for item in said), unpacked, *kept]:
        assert making.PASSWORD.encode() not in text


def test_a_lock_of_a_newer_version_is_refused(wheels: Path) -> None:
    wheel(wheels, "alpha")
    lock = locked(["alpha"])
    assert lock is not None
    assert lock_from(lock.plain(), "it") == lock
    with pytest.raises(ValueError, match="it has format 2, this version of prominence-executor reads 1"):
        lock_from({**lock.plain(), "format": 2}, "it")
    with pytest.raises(ValueError, match="it is damaged"):
        lock_from({"format": 1}, "it")
