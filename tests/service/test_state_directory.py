"""The service's own directory: what others may have put there is refused, and what a link leads to is left alone."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT
from people import Person

from prominence_executor.service import LocalService
from prominence_executor.service.node.ticket import Places, put
from prominence_executor.service.sandbox.removal import remove_tree
from prominence_executor.service.state.directory import is_locked, lock_directory, write_whole
from prominence_executor.service.state.objects import ObjectStore

pytestmark = pytest.mark.once

MARK = "0123456789abcdef" * 2

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A service's directory after a first run."""
    with LocalService(tmp_path / "state", cpus=1, memory=1) as service:
        return service.dir


def refused(state: Path) -> str:
    """What the command line says instead of starting: one sentence, and nothing runs."""
    done = subprocess.run(
        [sys.executable, "-m", "prominence_executor.service", "--dir", str(state)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def test_an_empty_or_short_secret_is_refused_with_one_sentence(state: Path) -> None:
    for content in (b"", b"short"):
        (state / "secret").write_bytes(content)
        said = refused(state)
        assert f"{state}/secret is too short to be a secret" in said
        assert "remove it" in said
    (state / "secret").unlink()
    with LocalService(state) as service:
        assert len((service.dir / "secret").read_bytes()) == 32


def test_a_secret_that_is_a_link_is_refused(state: Path, tmp_path: Path) -> None:
    (tmp_path / "known").write_bytes((state / "secret").read_bytes())
    (state / "secret").unlink()
    (state / "secret").symlink_to(tmp_path / "known")
    assert "not a link" in refused(state)
    (tmp_path / "known").unlink()  # a link to nothing is no way to have one made elsewhere
    assert "not a link" in refused(state)
    assert not (tmp_path / "known").exists()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o640, 0o604])
def test_a_secret_that_others_can_read_or_write_is_refused(state: Path, mode: int) -> None:
    (state / "secret").chmod(mode)
    with pytest.raises(RuntimeError, match="can be read or written by others"):
        LocalService(state).start()


@root_only
@pytest.mark.parametrize("name", ["secret", "state.sqlite", "."])
def test_what_belongs_to_another_user_is_refused(state: Path, name: str) -> None:
    os.chown(state / name, 12345, -1)
    with pytest.raises(RuntimeError, match="belongs to another user"):
        LocalService(state).start()


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused_and_stays_as_it_is(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    said = refused(tmp_path)
    assert f"{tmp_path} can be written by others: chmod go-w" in said
    assert tmp_path.stat().st_mode & 0o7777 == mode
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_others_can_write_or_that_is_none_is_refused(state: Path) -> None:
    database = state / "state.sqlite"
    database.chmod(0o666)
    assert "can be written by others" in refused(state)
    database.chmod(0o600)
    database.write_bytes(b"no database" * 1000)
    assert "cannot be used" in refused(state)
    database.unlink()
    database.symlink_to("/dev/null")
    assert "not a link" in refused(state)


def test_nobody_else_can_write_what_the_service_makes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with LocalService(tmp_path / "state", cpus=1, memory=1, containers="real") as service:
            made = [path for path in service.dir.iterdir() if path.is_dir() and path.stat().st_mode & 0o022]
            assert made == []
        (tmp_path / "state" / "bin").chmod(0o777)  # as an earlier release left it
        with LocalService(tmp_path / "state", cpus=1, memory=1) as service:
            assert (service.dir / "bin").stat().st_mode & 0o022 == 0
    finally:
        os.umask(before)


def test_the_next_start_keeps_what_a_link_among_the_sandboxes_leads_to(state: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "below").mkdir(parents=True)
    (precious / "below" / "file").write_text("kept")
    left = state / "sandboxes" / MARK
    (left / "home").mkdir(parents=True)
    (left / "home" / "inside").symlink_to(precious)
    for name in ("link", MARK[::-1]):
        (state / "sandboxes" / name).symlink_to(precious)
    works_there = subprocess.Popen(["sleep", "60"], cwd=precious / "below", start_new_session=True)
    try:
        with LocalService(state):
            assert list((state / "sandboxes").iterdir()) == []
        assert (precious / "below" / "file").read_text() == "kept"
        assert works_there.poll() is None  # nor is who works there taken for a job's daemon
    finally:
        works_there.kill()
        works_there.wait()


@pytest.mark.parametrize(("number", "locked"), [(errno.EACCES, True), (errno.EAGAIN, True), (errno.ENOLCK, False)])
def test_a_lock_that_another_has_is_told_from_one_that_there_cannot_be(
    state: Path, monkeypatch: pytest.MonkeyPatch, number: int, locked: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert is_locked(state) is locked
    with pytest.raises(RuntimeError, match="another service uses" if locked else "cannot lock files"):
        lock_directory(state)


def test_what_is_served_from_another_host_is_refused_while_that_says_so(state: Path) -> None:
    elsewhere = {"format": 1, "url": "http://127.0.0.1:1/prominence/v1", "host": "another", "pid": 7}
    write_whole(state / "serving.json", json.dumps(elsewhere).encode())
    assert "another service uses the directory" in (said := refused(state))
    assert said.endswith("process 7 on another, at http://127.0.0.1:1/prominence/v1")
    os.utime(state / "serving.json", (1, 1))  # it has been silent for long
    with LocalService(state):
        assert not (state / "serving.json").exists()


def test_sandboxes_elsewhere_are_refused(state: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    (state / "sandboxes").rmdir()
    (state / "sandboxes").symlink_to(tmp_path / "elsewhere")
    assert "must not be a link" in refused(state)
    assert (tmp_path / "elsewhere" / "mine").is_dir()


def test_programs_that_replace_links_do_not_write_through_them(state: Path, tmp_path: Path) -> None:
    (tmp_path / "interpreter").write_text("original")
    (state / "bin" / "python3").unlink()
    (state / "bin" / "python3").symlink_to(tmp_path / "interpreter")
    with LocalService(state):
        assert not (state / "bin" / "python3").is_symlink()
    assert (tmp_path / "interpreter").read_text() == "original"


@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')",
        "import os; os.makedirs('a/b/c'); [os.chmod(name, 0) for name in ('a/b/c', 'a/b', 'a')]",
        "import os; os.chmod('.', 0o500); os.chmod('../../tmp', 0)",
    ],
    ids=["deep", "unreadable", "home"],
)
def test_a_sandbox_goes_whatever_its_job_made_of_it(person: Person, until: Callable[..., None], program: str) -> None:
    with LocalService(cpus=1, memory=1) as service:
        person = Person(service.url, service.token)
        ended = person.ended(person.create("python3 p.py", files={"p.py": program}))
        assert (ended["status"], ended["execution"]["tasks"][0]["exitCode"]) == ("completed", 0)
        until(lambda: list((service.dir / "sandboxes").iterdir()) == [])


def test_swapping_directories_for_links_while_they_are_removed_changes_nothing_elsewhere(tmp_path: Path) -> None:
    """A process that the job left behind is faster than the service, again and again."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    outside.chmod(0o500)
    swapped, stop = 0, threading.Event()

    def swap(root: Path) -> None:
        nonlocal swapped
        while not stop.is_set():
            for name in "abcdefgh":
                try:
                    os.rename(root / name, root / f"{name}-away")
                    os.symlink(outside, root / name)
                    swapped += 1
                except OSError:
                    continue

    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        root = tmp_path / "sandbox"
        for name in "abcdefgh":
            for number in range(5):
                (root / name / str(number)).mkdir(parents=True)
                (root / name / str(number)).chmod(0)
        stop.clear()
        thread = threading.Thread(target=swap, args=(root,))
        thread.start()
        remove_tree(root)
        stop.set()
        thread.join()
        remove_tree(root)
        assert not root.exists()
    assert swapped > 10
    assert (outside / "file").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o500


def test_an_output_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """Between the look at an output and its upload, a process that is still running can change it."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o640)
    (tmp_path / "output").symlink_to(secret)
    objects = ObjectStore(tmp_path / "objects")
    with pytest.raises(OSError, match="not a file"):
        objects.put_file("scratch/place/output", tmp_path / "output")
    assert not objects.exists("scratch/place/output")
    assert secret.stat().st_mode & 0o777 == 0o640


def test_a_service_that_is_killed_while_it_starts_leaves_a_whole_secret_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prominence_executor.service", "--dir", str(tmp_path / "state")]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    secret = tmp_path / "state" / "secret"
    while not secret.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(secret.read_bytes()) == 32


def test_what_jobs_on_nodes_are_writing_stays_when_the_service_starts_and_what_is_old_goes(tmp_path: Path) -> None:
    nodes = ObjectStore(tmp_path, owner=False)
    ObjectStore(tmp_path, shared=True)
    with nodes.receiving() as old, nodes.receiving() as file:
        file.write(b"half of it")
        os.utime(old.name, (1e9, 1e9))
        ObjectStore(tmp_path, shared=True)
        assert not Path(old.name).exists()
        file.write(b" and the rest")
        file.flush()
        nodes.keep(Path(file.name), "scratch/place/name")
    assert nodes.path("scratch/place/name").read_bytes() == b"half of it and the rest"


def test_a_ticket_that_was_lost_with_the_power_is_known(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.make()
    assert not places.is_whole("ticket")
    put(places.ticket("ticket"), {"name": "ticket"}, flushed=False)
    assert places.is_whole("ticket")
    os.truncate(places.ticket("ticket"), 10)
    assert not places.is_whole("ticket")
    os.truncate(places.ticket("ticket"), 0)
    assert not places.is_whole("ticket")
