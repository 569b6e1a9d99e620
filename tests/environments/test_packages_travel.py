"""Packages of ``requirements=`` are there in jobs, arrays, warm workers and MPI ranks, before the environment's own."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import pytest
from wheels import wheel

from prominence_executor import ProminenceExecutor, RemoteEnvironmentError, RequirementsError, Resources
from prominence_executor.local import LocalService
from prominence_executor.run.plain_options import options_from, plain_options

pytestmark = pytest.mark.once

Make = Callable[..., ProminenceExecutor]


@pytest.fixture
def make(service: LocalService) -> Make:
    return lambda **options: ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5), **options)


@pytest.fixture
def alpha(wheels: Path) -> Path:
    """A folder of wheels with one package, which needs another; both hide what this environment has."""
    wheel(wheels, "alpha", "7.1", requires=["cloudpickle"], files={"alpha/deep.py": b"def f(x):\n    return x * 7\n"})
    wheel(wheels, "cloudpickle", "99.0")
    wheel(wheels, "tqdm", "99.0")
    return wheels


def version(_: object = None) -> Any:
    import alpha  # type: ignore[import-not-found]
    import tqdm

    return alpha.VERSION, tqdm.VERSION  # type: ignore[attr-defined]


def uploaded(executor: ProminenceExecutor) -> dict[str, str]:
    return {
        item["name"]: item["lastModified"]
        for item in executor.client.list_data()
        if item["name"].startswith("pxpacks-")
    }


def test_in_jobs_chunks_and_arrays_and_uploaded_once_in_two_runs(make: Make, alpha: Path) -> None:
    with make(requirements=["alpha", "tqdm"]) as executor:
        before = uploaded(executor)
        assert executor.submit(version).result() == ("7.1", "99.0")
        (new,) = set(uploaded(executor)) - set(before)
        first = uploaded(executor)[new]
        assert list(executor.map(version, range(3), chunksize=3)) == [("7.1", "99.0")] * 3
        with pytest.raises(ModuleNotFoundError, match="alpha"):
            executor.with_options(requirements=[]).submit(version).result()
    with make(requirements=["alpha", "tqdm"]) as executor:
        assert list(executor.map(version, range(8))) == [("7.1", "99.0")] * 8
        assert uploaded(executor)[new] == first
        assert set(uploaded(executor)) - set(before) == {new}
        assert new not in executor.purge(older_than=0)  # this executor may still need it
    with make() as executor:
        assert new in executor.purge(older_than=0)


def test_in_warm_workers_once_a_worker(make: Make, alpha: Path) -> None:
    def where(_: int) -> tuple[str, int]:
        import alpha
        from alpha.deep import f  # type: ignore[import-not-found]

        return alpha.__file__, f(6)

    with make(requirements=["alpha"], workers="warm", max_workers=1) as executor:
        answers = set(executor.map(where, range(20)))
        with pytest.raises(Exception, match="ended"):  # another process of the same worker has them, too
            executor.submit(os._exit, 3).result()
        assert {executor.submit(where, 1).result()} == answers
    ((path, number),) = answers
    assert number == 42
    assert ".pxpackages-" in path


@pytest.mark.skipif(not shutil.which("mpirun"), reason="there is no mpirun here")
def test_on_the_ranks_of_an_mpi_job(make: Make, alpha: Path) -> None:
    with make(requirements=["alpha", "tqdm"], task_type="openmpi", resources=Resources(cpus=2)) as executor:
        assert executor.submit(version).result() == [("7.1", "99.0")] * 2


def test_modules_of_the_users_own_come_first(
    make: Make, alpha: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "alpha.py").write_text("VERSION = 'own'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    for workers in ({}, {"workers": "warm", "max_workers": 1}):
        with make(requirements=["alpha", "tqdm"], **workers) as executor:
            assert executor.submit(version).result() == ("own", "99.0")


def test_what_pth_files_name_is_found(make: Make, wheels: Path) -> None:
    wheel(wheels, "alpha", files={"alpha.pth": b"alpha_more\n", "alpha_more/beta.py": b"VALUE = 5\n"})

    def value() -> int:
        import beta  # type: ignore[import-not-found]

        return int(beta.VALUE)

    with make(requirements=["alpha"]) as executor:
        assert executor.submit(value).result() == 5


@pytest.mark.parametrize("workers", [None, "warm"])
def test_a_tampered_archive_is_refused(make: Make, service: LocalService, wheels: Path, workers: str | None) -> None:
    wheel(wheels, "alpha", files={"alpha/mark.py": (workers or "none").encode() + b" = 1\n"})
    with make(requirements=["alpha"]) as executor:
        before = set(uploaded(executor))
        assert executor.submit(len, "abc").result() == 3
        (name,) = set(uploaded(executor)) - before
        size = next(item["size"] for item in executor.client.list_data() if item["name"] == name)
        executor.client.upload(name, bytes(size))
        options: dict[str, Any] = {"workers": workers, "max_workers": 1} if workers else {}
        with make(requirements=["alpha"], **options) as other:
            with pytest.raises(RemoteEnvironmentError, match=f"{name} did not arrive as it was sent"):
                other.submit(len, "abc").result()


def test_an_archive_that_was_purged_is_uploaded_again(make: Make, alpha: Path) -> None:
    with make(requirements=["alpha", "tqdm"]) as executor:
        assert executor.submit(version).result() == ("7.1", "99.0")
        for name in uploaded(executor):
            executor.client.delete_data(name)
        assert executor.submit(version).result() == ("7.1", "99.0")


def test_what_cannot_be_met_is_said_before_any_job(make: Make, wheels: Path) -> None:
    with pytest.raises(RequirementsError, match="nowhere"):
        make(requirements=["nowhere"])
    with make() as executor, pytest.raises(RequirementsError, match="nowhere"):
        executor.with_options(requirements=["nowhere"])


@pytest.mark.parametrize("workers", [{}, {"workers": "warm", "max_workers": 1}])
def test_packages_that_are_too_large_are_an_error_of_the_calls(
    make: Make, wheels: Path, workers: dict[str, Any]
) -> None:
    wheel(wheels, "alpha", files={"alpha/data.bin": os.urandom(20_000)})
    with make(requirements=["alpha"], requirements_limit=0.01, **workers) as executor:
        for future in [executor.submit(len, "abc") for _ in range(3)]:
            with pytest.raises(RequirementsError, match="requirements_limit"):
                future.result()
        assert executor.with_options(requirements_limit=1).submit(len, "abc").result() == 3


def test_packages_for_another_machine_are_refused_there(make: Make, alpha: Path) -> None:
    other = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    with make(requirements=["alpha"], requirements_platform=other) as executor:
        with pytest.raises(RemoteEnvironmentError, match=f"are for {other}, .*requirements_platform"):
            executor.submit(len, "abc").result()


def test_many_single_calls_with_large_packages_are_advised_once(
    make: Make, wheels: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wheel(wheels, "alpha", files={"alpha/data.bin": os.urandom(11_000_000)})
    with caplog.at_level(logging.WARNING, "prominence_executor"):
        with make(requirements=["alpha"]) as executor:
            assert list(executor.map(len, ["abc"] * 4, chunksize=2)) == [3] * 4
            assert not caplog.records
            assert list(executor.map(len, ["abc"] * 21)) == [3] * 21
            assert executor.submit(len, "abc").result() == 3
    (record,) = caplog.records
    assert "each job unpacks 11 MB of packages" in record.getMessage()
    assert "chunksize" in record.getMessage()
    caplog.clear()


def test_a_journal_keeps_what_was_chosen(make: Make, alpha: Path, tmp_path: Path) -> None:
    with make(requirements=["alpha", "tqdm"]) as executor:
        view = executor.with_options(labels={"a": "b"}, requirements_limit=7)
        plain = json.loads(json.dumps(plain_options(view._options)))
        kept = options_from(plain)
        assert kept == view._options
        assert kept.requirements_limit == 7
        assert "requirements" not in plain_options(executor.with_options(requirements=[])._options)
    journal = tmp_path / "run.journal"
    with make(requirements=["alpha", "tqdm"], journal=journal) as executor:
        assert executor.submit(version).result() == ("7.1", "99.0")


def test_check_image_knows_of_packages_that_travel(make: Make, alpha: Path) -> None:
    with make(requirements=["alpha", "tqdm"]) as executor:
        report = executor.check_image(60)
    assert (report.packages["alpha"], report.packages["tqdm"]) == ("7.1", "99.0")


def test_a_missing_module_is_said_with_the_line_that_has_it_travel(make: Make, tmp_path: Path) -> None:
    def needs() -> None:
        raise ModuleNotFoundError("No module named 'tqdm'", name="tqdm")

    with make() as executor:
        error = executor.submit(needs).exception()
    note = getattr(error, "__notes__", [str(getattr(error, "__cause__", ""))])[-1]
    assert f"requirements=['tqdm=={version_of('tqdm')}'] has it travel" in note


def test_editable_packages_travel_as_modules(make: Make, alpha: Path, tmp_path: Path) -> None:
    """What a requirements file says of them is passed over; the test suite itself is such a package."""
    (tmp_path / "r.txt").write_text("-e .\nalpha\ntqdm\n")
    with make(requirements=tmp_path / "r.txt") as executor:
        assert executor.submit(version).result() == ("7.1", "99.0")
        assert executor.submit(wheel.__module__.upper).result() == "WHEELS"


def test_once_a_node_where_the_platform_has_a_folder_for_them(make: Make, alpha: Path) -> None:
    """What a job has unpacked the next one uses; one that is told of no such folder unpacks for itself."""

    def where() -> str:
        import alpha

        return str(os.path.realpath(alpha.__file__))

    with make(requirements=["alpha"]) as executor:
        first, second = executor.submit(where).result(), executor.submit(where).result()
        assert first == second
        assert os.path.exists(first)  # though its job has ended
        for env in ({"PROMINENCE_NODE_CACHE": ""}, {"PROMINENCE_NODE_CACHE": "/tmp"}):
            alone = executor.with_options(env=env).submit(where).result()
            assert alone != first
            assert ".pxpackages-" in alone
