"""Files that calls are given and that they write: staged by content, brought back to a directory."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from prominence_executor import (
    CallCrashedError,
    JobDeletedError,
    ProminenceExecutor,
    ProminenceFuture,
    Resources,
    SignatureError,
    StageOutError,
)
from prominence_executor.local import LocalService
from prominence_executor.run.outputs import unpack

LARGE = b"0123456789abcdef" * 20_000  # what is this large does not travel inside a job's description


def read(*names: str) -> list[bytes]:
    return [Path(name).read_bytes() for name in names]


def write(files: dict[str, bytes]) -> str:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    return os.getcwd()


def contents(future: ProminenceFuture[Any]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in future.files.items()}


# -- inputs ----------------------------------------------------------------------------------------------------------


def test_a_call_finds_its_files_under_the_wanted_names(executor: ProminenceExecutor, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh, version 3.tar.gz"
    mesh.write_bytes(LARGE)
    given: dict[str, Path | str | bytes] = {
        "mesh.h5": mesh,
        "deep/er/a,b.zip": b"not an archive",
        "copy.h5": str(mesh),
        "empty": b"",
    }
    view = executor.with_options(files=given)
    future = view.submit(read, *given)
    assert future.result(60) == [LARGE, b"not an archive", LARGE, b""]
    assert future.files == {}


def test_a_large_file_is_uploaded_once_for_all_jobs_and_runs(service: LocalService, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.h5"
    mesh.write_bytes(LARGE + os.urandom(16))
    for run in range(2):
        with ProminenceExecutor(service.url, service.token, files={"m": mesh}, poll_interval=(0.05, 0.5)) as executor:
            futures = [executor.submit(os.path.getsize, "m") for _ in range(3)]
            assert [future.result(60) for future in futures] == [len(LARGE) + 16] * 3
            assert executor.client.requests_sent["POST /data/upload"] == (run == 0)


@pytest.mark.once
@pytest.mark.parametrize("content", [b"small", LARGE])
def test_the_jobs_of_an_array_find_their_files(executor: ProminenceExecutor, content: bytes) -> None:
    view = executor.with_options(files={"in/put": content}, outputs=["out"])
    futures = [view.submit(lambda n: (read("in/put"), write({"out": b"%d" % n}))[0], n) for n in range(22)]
    assert [future.result(60) for future in futures] == [[content]] * 22
    assert [contents(future) for future in futures] == [{"out": b"%d" % n} for n in range(22)]
    assert executor.client.requests_sent["POST /workflows"] >= 1


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "pxjob.json", "pxoutcome", "logs", "a\nb", "."])
def test_a_name_that_leads_elsewhere_is_refused(executor: ProminenceExecutor, name: str) -> None:
    with pytest.raises(ValueError, match=r"files\["):
        executor.with_options(files={name: b""})
    with pytest.raises(ValueError, match="outputs"):
        executor.with_options(outputs=[name])


def test_what_is_no_local_file_is_an_error_at_once(executor: ProminenceExecutor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        executor.with_options(files={"x": tmp_path / "missing"})
    with pytest.raises(ValueError, match="a regular file"):
        executor.with_options(files={"x": tmp_path})
    with pytest.raises(ValueError, match="cannot both"):
        executor.with_options(files={"x": b"", "x/y": b""})
    with pytest.raises(ValueError, match="path of a local file"):
        executor.with_options(files={"x": 3})  # type: ignore[dict-item]
    there = tmp_path / "there"
    there.touch()
    view = executor.with_options(files={"x": there})
    there.unlink()
    with pytest.raises(FileNotFoundError):
        view.submit(read, "x")


def test_a_view_follows_its_files_and_a_call_has_them_as_they_were(
    service: LocalService, tmp_path: Path, until: Callable[..., None]
) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"first")
    with ProminenceExecutor(service.url, service.token, files={"x": path}, max_workers=1) as executor:
        assert executor.submit(read, "x").result(60) == [b"first"]
        path.write_bytes(b"the second")
        assert executor.submit(read, "x").result(60) == [b"the second"]
        gate = executor.submit(time.sleep, 1)
        until(lambda: gate.job_id)
        late = executor.submit(read, "x")  # sent when there is room for its job
        path.write_bytes(b"the third one")
        gate.result(60)
        with pytest.raises(ValueError, match="has changed since the call was submitted"):
            late.result(60)


def test_a_file_that_did_not_arrive_as_it_was_is_not_used(service: LocalService, tmp_path: Path) -> None:
    from prominence_executor import RemoteEnvironmentError

    content = LARGE + os.urandom(16)
    with ProminenceExecutor(service.url, service.token, files={"x": content}, poll_interval=(0.05, 0.5)) as executor:
        assert executor.submit(os.path.getsize, "x").result(60) == len(content)
        [name] = [
            item["name"]
            for item in executor.client.list_data()
            if item["name"] in executor._run.context.objects.names()
        ]
        executor.client.upload(name, content[::-1])  # somebody has the account's token
        with pytest.raises(RemoteEnvironmentError, match="SHA-256"):
            executor.submit(read, "x").result(60)
        executor.client.delete_data(name)


def test_purge_spares_files_of_this_run(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, files={"x": LARGE + os.urandom(16)}) as executor:
        executor.submit(read, "x").result(60)
        executor.purge(older_than=0)
        before = executor.client.requests_sent["POST /data/upload"]
        executor.submit(read, "x").result(60)
        assert executor.client.requests_sent["POST /data/upload"] == before


# -- outputs ---------------------------------------------------------------------------------------------------------


def test_the_files_that_match_come_back_and_no_others(executor: ProminenceExecutor, tmp_path: Path) -> None:
    view = executor.with_options(outputs=["field.*.vtk", "log.txt", "tree"], files={"log.txt": b"given"})
    written = {"field.1.vtk": b"1", "field.20.vtk": LARGE, "tree/a/b": b"", "tree/c": b"c", "other": b"o"}
    future = view.submit(write, written)
    assert future.result(60)
    del written["other"]
    assert contents(future) == written  # log.txt is as it was given
    assert all(path.is_absolute() for path in future.files.values())


def test_calls_of_one_job_have_the_files_that_each_wrote(executor: ProminenceExecutor) -> None:
    view = executor.with_options(outputs=["*.txt"])
    files = [{"log.txt": b"%d" % n, f"{n}.txt": b""} for n in range(4)]
    results = view.map(write, [*files, {}], chunksize=5)
    futures = view.futures()
    assert len(list(results)) == 5
    assert [contents(future) for future in futures] == [*files, {}]


def test_a_call_that_raised_has_what_it_wrote(executor: ProminenceExecutor) -> None:
    def fail() -> None:
        write({"log.txt": b"so far"})
        os.chdir("/")
        raise KeyError("x")

    future = executor.with_options(outputs=["log.txt", "never*"]).submit(fail)
    assert isinstance(future.exception(60), KeyError)
    assert contents(future) == {"log.txt": b"so far"}


def test_a_call_without_an_outcome_says_why_there_are_no_files(
    executor: ProminenceExecutor, until: Callable[..., None]
) -> None:
    future = executor.with_options(outputs=["*"]).submit(time.sleep, 600)
    until(lambda: future.running())
    future.terminate()
    with pytest.raises(JobDeletedError):
        _ = future.files


def test_a_call_that_crashed_has_what_it_wrote(executor: ProminenceExecutor) -> None:
    def crash(call: int) -> None:
        write({f"{call}.txt": b"so far"})
        if call == 1:
            os._exit(3)

    view = executor.with_options(outputs=["*.txt"], files={"given.txt": b"given"})
    results = view.map(crash, range(3), chunksize=3)
    futures = view.futures()
    with pytest.raises(CallCrashedError):
        list(results)
    assert contents(futures[0]) == {"0.txt": b"so far"}
    assert contents(futures[1]) == {"1.txt": b"so far"}
    with pytest.raises(CallCrashedError):
        _ = futures[2].files


def test_links_and_the_executors_own_files_stay_there(executor: ProminenceExecutor) -> None:
    def links() -> None:
        write({"real.txt": b"real"})
        os.symlink("real.txt", "inside.txt")
        os.symlink("/etc/passwd", "outside.txt")
        os.mkfifo("pipe.txt")

    future = executor.with_options(outputs=["*"]).submit(links)
    assert future.result(60) is None
    assert contents(future) == {"real.txt": b"real", "inside.txt": b"real"}


def test_files_go_to_the_wanted_directory(executor: ProminenceExecutor, tmp_path: Path) -> None:
    def program() -> None:
        Path("run.sh").write_text("#!/bin/sh\n")
        os.chmod("run.sh", 0o700)

    future = executor.with_options(outputs=["run.sh"], outputs_dir=tmp_path).submit(program)
    future.result(60)
    path = tmp_path / executor.run_id / "0" / "run.sh"
    assert future.files == {"run.sh": path}
    assert os.access(path, os.X_OK)
    assert os.listdir(path.parent) == ["run.sh"]


def test_lazy_files_are_fetched_once_when_asked_for_after_the_executors_end(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, lazy=True, outputs=["*"], poll_interval=(0.05, 1)) as executor:
        future = executor.submit(write, {"a": LARGE})
        future.result(60)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(future.files)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(future) == {"a": LARGE}
    assert all(files is found[0] for files in found)


def test_a_run_that_was_found_again_has_its_files(service: LocalService, tmp_path: Path) -> None:
    with ProminenceExecutor(service.url, service.token, outputs=["*"], poll_interval=(0.05, 0.5)) as executor:
        executor.submit(write, {"a": b"a"}).result(60)
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, outputs_dir=tmp_path) as again:
        [future] = again.futures()
        assert contents(future) == {"a": b"a"}
        assert future.files["a"].is_relative_to(tmp_path)


def test_what_a_journal_has_kept_is_submitted_with_its_files(service: LocalService, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"from disk")
    journal = tmp_path / "journal"
    executor = ProminenceExecutor(
        service.url, service.token, journal=journal, max_workers=1, on_interrupt="leave", poll_interval=(0.05, 0.5)
    )
    with pytest.raises(KeyboardInterrupt), executor:
        executor.submit(time.sleep, 1)
        view = executor.with_options(files={"a": path, "b": b"from memory"}, outputs=["c"])
        view.submit(lambda: write({"c": b"".join(read("a", "b"))}))
        raise KeyboardInterrupt
    executor.shutdown()
    with ProminenceExecutor.attach(executor.run_id, service.url, service.token, journal=journal) as again:
        _, future = again.futures()
        assert contents(future) == {"c": b"from diskfrom memory"}


def test_warm_workers_leave_calls_with_files_to_jobs(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", poll_interval=(0.05, 0.5)) as executor:
        future = executor.with_options(files={"x": b"x"}, outputs=["y"]).submit(
            lambda: Path("y").write_bytes(Path("x").read_bytes() * 2)
        )
        assert future.result(60) == 2
        assert contents(future) == {"y": b"xx"}
        assert executor.workers() == []


def test_a_journal_keeps_files_and_outputs(service: LocalService, tmp_path: Path) -> None:
    from prominence_executor.run.options import Options
    from prominence_executor.run.plain_options import options_from, plain_options

    path = tmp_path / "mesh"
    path.write_bytes(b"mesh")
    options = Options().changed(
        files={"a": path, "b": b"bytes"}, outputs=["*.x"], outputs_dir=tmp_path, task_type="openmpi", procs_per_node=2
    )
    import json

    assert options_from(json.loads(json.dumps(plain_options(options)))) == options


def archive(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w|") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../x")],
        [member("/tmp/x")],
        [member("a/../../x")],
        [member("link", tarfile.SYMTYPE, "/etc"), member("link/x")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
)
def test_nothing_leaves_the_calls_directory_even_if_it_is_signed(
    members: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(SignatureError):
        unpack(io.BytesIO(archive(*members)), folder)
    assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["out"]


def test_an_archive_that_is_not_the_signed_one_is_not_unpacked(executor: ProminenceExecutor, tmp_path: Path) -> None:
    view = executor.with_options(outputs=["*.txt"], outputs_dir=tmp_path)

    def spoil(call: int) -> None:
        write({f"{call}.txt": b"content"})
        if call == 1:
            with open("pxfiles", "r+b") as file:
                file.seek(600)
                file.write(b"?")

    results = view.map(spoil, range(2), chunksize=2)
    futures = view.futures()
    assert list(results) == [None, None]
    with pytest.raises(SignatureError, match="not what was signed"):
        _ = futures[0].files
    assert contents(futures[1]) == {"1.txt": b"content"}
    assert os.listdir(tmp_path / executor.run_id / "0") == []


def test_files_that_could_not_be_collected_say_so_and_cost_no_result(executor: ProminenceExecutor) -> None:
    def block() -> str:
        write({"x": b"x"})
        os.unlink("pxfiles")
        os.mkdir("pxfiles")
        return "result"

    future = executor.with_options(outputs=["x"]).submit(block)
    assert future.result(60) == "result"
    with pytest.raises(StageOutError, match="Is a directory"):
        _ = future.files


# -- threads ---------------------------------------------------------------------------------------------------------

THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS"]


def threads() -> list[str | None]:
    return [os.environ.get(name) for name in THREADS]


@pytest.mark.parametrize("workers", [None, "warm"])
def test_numerical_libraries_are_given_the_jobs_cpus(service: LocalService, workers: Literal["warm"] | None) -> None:
    with ProminenceExecutor(
        service.url,
        service.token,
        resources=Resources(cpus=3),
        workers=workers,
        poll_interval=(0.05, 0.5),
    ) as executor:
        assert executor.submit(threads).result(60) == ["3"] * 5
        assert list(executor.map(lambda _: threads(), range(2), chunksize=2)) == [["3"] * 5] * 2
        said = executor.with_options(env={"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"})
        assert said.submit(threads).result(60) == ["2", "2", "1", "2", "2"]
