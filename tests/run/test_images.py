"""Images that are files of this machine reach the service once, and what an image lacks is said clearly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from calls import square
from proxy import FaultProxy, hang, status

from prominence_executor import (
    ImagePullError,
    ImageReport,
    InvalidRequestError,
    Job,
    JobFailedError,
    ProminenceClient,
    ProminenceExecutor,
    RemoteEnvironmentError,
    RemoteTraceback,
    ServiceUnavailableError,
    Task,
)
from prominence_executor.executor.image_check import check
from prominence_executor.images.files import push
from prominence_executor.local import LocalService
from prominence_executor.remote import probe
from prominence_executor.run.diagnosis import job_error

Until = Callable[..., None]
KINDS = ("job", "array", "warm")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of a content of its own; what runs as a plain process needs nothing in it."""
    path = tmp_path / "some.tar"
    path.write_bytes(os.urandom(100_000))
    return path


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url) as proxy:
        yield proxy


@contextlib.contextmanager
def executor_on(service: LocalService, url: str = "", **options: Any) -> Iterator[ProminenceExecutor]:
    options = {"poll_interval": (0.05, 0.5), **options}
    with ProminenceExecutor(url or service.url, service.token, **options) as executor:
        yield executor


def options_for(kind: str) -> dict[str, Any]:
    return {"workers": "warm", "max_workers": 1} if kind == "warm" else {}


def calls_of(kind: str) -> range:
    return range(24 if kind == "array" else 2)


def images_at(executor: ProminenceExecutor) -> dict[str, int]:
    return {item["name"]: item["size"] for item in executor.client.list_data() if item["name"].startswith("pximage-")}


def waits_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)


def name_of(path: Path) -> str:
    return f"pximage-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}{path.suffix}"


def task_of(executor: ProminenceExecutor, job_id: int | None) -> dict[str, Any]:
    found: dict[str, Any] = executor.client.describe_job(job_id or 0)["tasks"][0]
    return found


# -- a file becomes an object --------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_uploaded_once_for_all_jobs_and_all_runs(
    kind: str, service: LocalService, proxy: FaultProxy, image: Path
) -> None:
    for _ in range(2):
        with executor_on(service, proxy.url, image=image, **options_for(kind)) as executor:
            futures = [executor.submit(square, n) for n in calls_of(kind)]
            assert [future.result(60) for future in futures] == [n * n for n in calls_of(kind)]
            assert images_at(executor)[name_of(image)] == 100_000
            task = task_of(executor, futures[0].job_id)
            assert (task["image"], task["runtime"]) == (name_of(image), "udocker")
    uploads = proxy.forwarded["POST /data/upload"]
    assert uploads == 1 + 4 * (kind == "array")  # and each array's calls
    with executor_on(service) as executor:
        executor.client.delete_data(name_of(image))


@pytest.mark.parametrize("form", ["path object", "relative", "home", "with_options"])
def test_a_file_may_be_given_as_users_write_paths(
    form: str, service: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.sif").write_bytes(os.urandom(1000))
    given: Any = {"path object": Path("my.sif"), "relative": "./my.sif", "home": "~/my.sif", "with_options": "./my.sif"}
    with executor_on(service) as executor:
        view = executor.with_options(image=given[form])
        future = view.submit(square, 3)
        assert future.result(30) == 9
        task = task_of(executor, future.job_id)
        assert (task["image"], task["runtime"]) == (name_of(tmp_path / "my.sif"), "singularity")
        executor.client.delete_data(task["image"])


def test_a_compressed_archive_gets_the_ending_that_the_service_knows(service: LocalService, tmp_path: Path) -> None:
    (tmp_path / "my.tar.gz").write_bytes(os.urandom(1000))
    with executor_on(service, image=tmp_path / "my.tar.gz") as executor:
        future = executor.submit(square, 3)
        assert future.result(30) == 9
        name = task_of(executor, future.job_id)["image"]
        assert name.endswith(".tgz")
        executor.client.delete_data(name)


def test_a_file_that_is_missing_or_no_image_is_refused_at_once(tmp_path: Path) -> None:
    def make(image: Any) -> None:
        ProminenceExecutor("http://127.0.0.1:1/prominence/v1", "token", image=image)

    for missing in ("./no.tar", "../no.tar", "~/no.tar", "/no.tar", Path("no.tar"), tmp_path):
        with pytest.raises(FileNotFoundError, match=r"image: there is no file /"):
            make(missing)
    (tmp_path / "image.zip").touch()
    with pytest.raises(ValueError, match=r"\.tar.*image\.zip"):
        make(tmp_path / "image.zip")


def test_submit_does_not_wait_for_the_upload(service: LocalService, proxy: FaultProxy, image: Path) -> None:
    proxy.inject(hang(1.0), path="/data/upload", times=1)
    with executor_on(service, proxy.url, image=image) as executor:
        began = time.monotonic()
        future = executor.submit(square, 3)
        assert time.monotonic() - began < 0.5
        assert future.result(30) == 9
        executor.client.delete_data(name_of(image))


def test_an_upload_that_fails_is_repeated(service: LocalService, proxy: FaultProxy, image: Path) -> None:
    proxy.inject(status(503), path="/data/upload", times=2)
    with executor_on(service, proxy.url, image=image) as executor:
        assert executor.submit(square, 3).result(30) == 9
        executor.client.delete_data(name_of(image))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_has_gone_is_the_futures_error_and_harms_no_other_call(
    kind: str, service: LocalService, image: Path
) -> None:
    with executor_on(service, **options_for(kind)) as executor:
        view = executor.with_options(image=image)
        image.unlink()
        lost = [view.submit(square, n) for n in calls_of(kind)]
        kept = executor.submit(square, 5)
        for future in lost:
            assert isinstance(future.exception(30), FileNotFoundError)
        assert kept.result(30) == 25


def test_what_was_changed_is_another_image(service: LocalService, image: Path) -> None:
    with executor_on(service, image=image) as executor:
        names = []
        for _ in range(2):
            image.write_bytes(os.urandom(2000))
            future = executor.submit(square, 3)
            assert future.result(30) == 9
            names.append(task_of(executor, future.job_id)["image"])
        assert names[1] == name_of(image) != names[0]
        for name in names:
            executor.client.delete_data(name)


def test_an_image_that_has_gone_from_the_service_is_uploaded_again(service: LocalService, image: Path) -> None:
    with executor_on(service, image=image) as executor:
        assert executor.submit(square, 2).result(30) == 4
        executor.client.delete_data(name_of(image))
        assert executor.submit(square, 3).result(30) == 9
        executor.client.delete_data(name_of(image))


def test_purge_keeps_images_unless_asked_and_those_in_use_always(
    service: LocalService, image: Path, tmp_path: Path, until: Until
) -> None:
    with executor_on(service, image=image) as executor, executor_on(service) as other:
        running = executor.submit(waits_for, str(tmp_path / "gate"))
        until(running.running)
        (tmp_path / "unused.tar").write_bytes(b"unused")
        assert push(other.client, tmp_path / "unused.tar") == name_of(tmp_path / "unused.tar")
        assert not [name for name in other.purge(older_than=0) if name.startswith("pximage-")]
        removed = other.purge(older_than=0, images=True)
        assert name_of(tmp_path / "unused.tar") in removed
        assert name_of(image) not in removed
        running.terminate()
        assert running.exception(30)
        assert name_of(image) not in executor.purge(older_than=0, images=True)  # it may need it for another call
        until(lambda: not other.client.list_jobs())
        assert name_of(image) in other.purge(older_than=0, images=True)


def test_a_journal_keeps_which_file_it_was(service: LocalService, image: Path, tmp_path: Path, until: Until) -> None:
    run_id, journal, gate = f"images-{os.urandom(4).hex()}", tmp_path / "journal", tmp_path / "gate"
    executor = ProminenceExecutor(
        service.url, service.token, run_id=run_id, journal=journal, max_workers=1, on_interrupt="leave"
    )
    running = executor.submit(waits_for, str(gate))
    until(running.running)
    executor.with_options(image=image).submit(square, 3)
    executor._run.interrupt()
    executor.shutdown()
    gate.touch()
    with ProminenceExecutor.attach(run_id, service.url, service.token, journal=journal) as again:
        future = again.futures()[1]
        assert future.result(30) == 9
        assert task_of(again, future.job_id)["image"] == name_of(image)
        again.client.delete_data(name_of(image))


# -- what an image lacks -------------------------------------------------------------------------------------------


def ended(exit_code: int, image: str = "bare.tar") -> dict[str, Any]:
    """A job that left no outcome, as the service describes it."""
    return {
        "id": 31, "status": "failed", "statusReason": "Stageout failed",
        "tasks": [{"image": image, "cmd": "python3 x"}],
        "execution": {"tasks": [{"exitCode": exit_code, "imagePullStatus": "completed"}]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("exit_code", "stderr"),
    [
        (255, 'FATAL:   "python3": executable file not found in $PATH\n'),
        (2, "Error: command not found or has no execute bit set:  ['python3', 'pxrun.py']\n"),
        (127, "/usr/bin/env: 'python3': No such file or directory\n"),
        (127, "python3: error while loading shared libraries: libexpat.so.1: cannot open shared object file\n"),
    ],
)
def test_an_image_without_python_is_named(exit_code: int, stderr: str) -> None:
    error = job_error(ended(exit_code), stderr)
    assert type(error) is JobFailedError
    assert str(error).startswith("the image 'bare.tar' has no working python3, which calls need (job 31: ")


def test_other_failures_are_not_taken_for_a_missing_python() -> None:
    error = job_error(ended(2), "python3: can't open file 'pxrun.py'\n")
    assert "has no working python3" not in str(error)
    unreadable = "FATAL: While checking container encryption: could not open image x: image format not recognized\n"
    assert isinstance(job_error(ended(255), unreadable), ImagePullError)


def test_a_package_that_loading_a_call_needs_is_named_with_image_and_job(service: LocalService, image: Path) -> None:
    class Needy:
        def __reduce__(self) -> Any:
            return __import__, ("no_such_package",)

    with executor_on(service, image=image, initializer=square, initargs=(Needy(),)) as executor:
        future = executor.submit(square, 1)
        error = future.exception(30)
        assert type(error) is RemoteEnvironmentError
        assert f"{image} ({name_of(image)})' has no module 'no_such_package', which the call needs" in str(error)
        assert f"(job {future.job_id})" in str(error)
        executor.client.delete_data(name_of(image))


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_a_call_imports_stays_the_calls_own_error_with_image_and_job(
    kind: str, service: LocalService
) -> None:
    def imports(n: int) -> None:
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401

    with executor_on(service, image="python:3-own", **options_for(kind)) as executor:
        futures = [executor.submit(imports, n) for n in calls_of(kind)]
        for future in futures:
            error = future.exception(60)
            assert type(error) is ModuleNotFoundError
            assert error.name == "no_such_package"
            assert isinstance(error.__cause__, RemoteTraceback)
            notes = getattr(error, "__notes__", None) or [str(error.__cause__)]
            assert f"the image 'python:3-own' of job {future.job_id}" in notes[-1]


# -- check_image ---------------------------------------------------------------------------------------------------


def test_check_image_compares_python_platform_and_packages(service: LocalService, image: Path) -> None:
    with executor_on(service, image=image) as executor:
        report = executor.check_image(timeout=60)
        executor.client.delete_data(name_of(image))
        assert not executor.client.list_jobs()
    assert report.usable
    assert report.python == "{}.{}.{}".format(*sys.version_info[:3])
    assert report.packages["cloudpickle"]
    assert report.differs == {}
    assert report.missing == []
    assert {row.verdict for row in report.rows()} == {"same"}
    lines = str(report).splitlines()
    assert lines[0] == f"image {image} ({name_of(image)}) (job {report.job_id})"
    assert lines[2].split() == ["Python", report.python, report.python, "same"]


def test_the_table_says_what_is_the_same_differs_and_is_missing() -> None:
    report = ImageReport(
        image="some.sif", job_id=7, python="3.8.1", executable="/usr/bin/python3", platform="Linux-6", machine="x86_64",
        packages={"numpy": "1.26.0", "pip": "24", "only": "1"},
        here={
            "python": "3.11.7", "executable": "/py", "platform": "Linux-5", "machine": "x86_64",
            "packages": {"numpy": "2.0.1", "pip": "24", "dask": "2024.1"},
        },
    )  # fmt: skip
    assert not report.usable
    assert report.differs == {"numpy": ("2.0.1", "1.26.0")}
    assert report.missing == ["dask"]
    rows = {line.split()[0]: line for line in str(report).splitlines()[2:]}
    assert rows["Python"].split(maxsplit=3) == ["Python", "3.11.7", "3.8.1", "differs: calls cannot run there"]
    assert rows["numpy"].split(maxsplit=3) == ["numpy", "2.0.1", "1.26.0", "differs"]
    assert rows["dask"].split(maxsplit=3) == ["dask", "2024.1", "-", "missing there"]
    assert rows["only"].split(maxsplit=3) == ["only", "-", "1", "only there"]
    assert rows["pip"].endswith("same")


SCRIPT = """
import pathlib
import yarl
from prominence_executor import ImageReport
here = {"python": "3.11.7", "executable": "/py", "platform": "Linux-5", "packages": {}}
for packages in ({}, {"yarl": "0.1"}):
    report = ImageReport("some.sif", 7, "3.11.7", "/usr/bin/python3", "Linux-6", "x86_64", packages, here)
    print(report.requirements, str(report).splitlines()[-1])
def later():
    import requests
"""


def test_what_a_script_imports_and_an_image_lacks_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    without, outdated = done.stdout.splitlines()
    lines = [f"{name}=={metadata.version(name)}" for name in ("requests", "yarl")]
    assert without == f"{lines} to have travel what this script imports: requirements={lines}"
    assert outdated.endswith(f"requirements={lines[:1]}")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_the_probe_runs_on_other_pythons(version: str) -> None:
    done = subprocess.run(  # -I: none of this environment's variables
        [f"python{version}", "-I", "-c", Path(probe.__file__).read_text()], capture_output=True, text=True, check=False
    ) if _starts(f"python{version}") else None  # fmt: skip
    if done is None:
        pytest.skip(f"there is no Python {version} here")
    assert done.stdout.startswith(probe.MARK), done.stderr
    told = json.loads(done.stdout.removeprefix(probe.MARK))
    assert told["python"].startswith(version + ".")
    assert isinstance(told["packages"], dict)


def _starts(program: str) -> bool:
    try:
        return subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_check_image_says_what_befell_its_job(service: LocalService) -> None:
    with executor_on(service, image="nosuch.sif") as executor:
        with pytest.raises(InvalidRequestError, match="Image nosuch.sif does not exist"):
            executor.check_image()


def test_check_image_gives_up_in_time_and_deletes_its_job(service: LocalService, tmp_path: Path, until: Until) -> None:
    with LocalService(cpus=1) as busy, executor_on(busy) as executor:
        running = executor.submit(waits_for, str(tmp_path / "gate"))
        until(running.running)
        with pytest.raises(TimeoutError, match="the image 'python:"):
            executor.check_image(timeout=0.5)
        assert [job["id"] for job in executor.client.list_jobs()] == [running.job_id]
        running.terminate()


def test_an_interrupted_check_says_nothing_of_a_service_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: Job, timeout: float = 0) -> None:
        raise KeyboardInterrupt

    def away(job: Job) -> None:
        raise ServiceUnavailableError("nobody there")

    monkeypatch.setattr(Job, "create", lambda job: None)
    monkeypatch.setattr(Job, "wait", interrupted)
    monkeypatch.setattr(Job, "delete", away)
    with ProminenceClient("http://127.0.0.1:1", "token") as client, pytest.raises(KeyboardInterrupt):
        check(client, Task(image="image"), "name")
