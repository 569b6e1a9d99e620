"""What a newer version has written is refused by a sentence that names both formats; what an older one has is read."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import sqlite3
import struct
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import Artifact, InputFile, Job, OutcomeError, ProminenceExecutor, SignatureError, Task, load
from prominence_executor.formats import newer_file
from prominence_executor.local import LocalService
from prominence_executor.payload.calls import Identity, read_calls_file
from prominence_executor.payload.outcomes import read_outcomes

pytestmark = pytest.mark.once

REFUSED = "has format 2, this version of prominence-executor reads 1: update prominence-executor"
KEY = bytes(range(32))
IDENTITY = Identity("run-1", 7, 1)


@pytest.fixture
def run_id() -> str:
    return f"run-{uuid.uuid4()}"


def set_user_version(path: Path, version: int) -> int:
    """Returns the one before."""
    with closing(sqlite3.connect(path)) as database:
        (before,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version}")
    return int(before)


def record(number: int, **header: Any) -> bytes:
    """What a runner of this format appends to an outcome file."""
    facts = {"call": -1, "kind": "end", "size": 0, "sha256": hashlib.sha256().hexdigest(), **header}
    text = json.dumps({"format": number, **facts}).encode()
    return struct.pack(">QI32s", 0, len(text), hmac.new(KEY, text, hashlib.sha256).digest()) + text


def test_the_sentence_is_for_newer_files_of_the_same_kind_only() -> None:
    for line in (b"PXOBJ2\n", b"PXOBJ2"):
        assert newer_file("the file", line, b"PXOBJ1\n") == f"the file {REFUSED}"
    for line in (b"", b"PXOBJ0\n", b"PXOBJ1", b"PXOUT2\n", b"PXOBJ", b"XPXOBJ2\n", b"\x80\x05\x95", b"PXOBJ2 \n"):
        assert newer_file("the file", line, b"PXOBJ1\n") is None


def test_a_journal(service: LocalService, tmp_path: Path) -> None:
    journal, nobody = tmp_path / "journal", "http://127.0.0.1:9/prominence/v1"
    executor = ProminenceExecutor(nobody, service.token, journal=journal, on_interrupt="leave")
    run_id = executor.run_id
    executor.submit(pow, 2, 5)
    executor._run.interrupt()  # as Ctrl-C in the with block does
    executor.shutdown()
    assert set_user_version(journal, 3) == 1  # 2 is that of one with calls that wait for others
    refused = REFUSED.replace("format 2", "format 3").replace("reads 1", "reads 2")
    with pytest.raises(ValueError, match=f"the journal {journal} {refused}"):
        ProminenceExecutor.attach(run_id, service.url, service.token, journal=journal)
    with pytest.raises(ValueError, match=f"the journal {journal} {refused}"):
        ProminenceExecutor(service.url, service.token, journal=journal)
    set_user_version(journal, 0)  # as the first version left it
    with ProminenceExecutor.attach(run_id, service.url, service.token, journal=journal) as again:
        assert [future.result(30) for future in again.futures()] == [32]


def test_a_file_of_calls() -> None:
    with pytest.raises(ValueError, match=f"the file of calls {REFUSED}"):
        read_calls_file(b'PXCALLS2\n{"function": 0, "calls": []}\n', None, frozenset())
    with pytest.raises(ValueError, match="not a file of calls"):
        read_calls_file(b'{"function": 0, "calls": []}\n', None, frozenset())


def test_a_saved_result(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.write_bytes(b'PXOBJ2\n{"pickle": 0, "buffers": []}\n')
    with pytest.raises(ValueError, match=REFUSED) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_an_outcome_file() -> None:
    with pytest.raises(OutcomeError, match=f"an outcome of run 'run-1' {REFUSED}") as caught:
        read_outcomes(io.BytesIO(b"PXOUT2\n" + record(1)), KEY, IDENTITY)
    assert not isinstance(caught.value, SignatureError)
    with pytest.raises(SignatureError):
        read_outcomes(io.BytesIO(b"PXFILES2\n"), KEY, IDENTITY)


def test_a_record_in_an_outcome_file() -> None:
    """Its header may have other fields, and is not looked into."""
    with pytest.raises(OutcomeError, match=f"an outcome of run 'run-1' {REFUSED}"):
        read_outcomes(io.BytesIO(b"PXOUT1\n" + record(2)), KEY, IDENTITY)
    whole = io.BytesIO(b"PXOUT1\n" + record(1, run="run-1", job=7, attempt=1))
    assert read_outcomes(whole, KEY, IDENTITY).job is not None


def test_a_run_whose_jobs_have_a_newer_format_is_not_attached(service: LocalService, run_id: str) -> None:
    with ProminenceExecutor(service.url, service.token) as other:
        instructions = {"format": 2, "run": run_id, "key": KEY.hex()}
        job = Job(
            name=f"{run_id}/0", labels={"pxrun": run_id}, tasks=[Task("any", "true")], client=other.client,
            input_files=[InputFile("pxjob.json", json.dumps(instructions))],
        )  # fmt: skip
        job.create()
        job.wait(30)
        with pytest.raises(ValueError, match=f"run '{run_id}' {REFUSED}"):
            ProminenceExecutor.attach(run_id, service.url, service.token)


@pytest.mark.slow
def test_an_outcome_that_has_a_newer_format_is_the_futures_exception(service: LocalService, run_id: str) -> None:
    """The program that began the run was of this version, the one that took it over of a newer one."""
    with ProminenceExecutor(service.url, service.token, run_id=run_id) as executor:
        assert executor.submit(pow, 2, 5).result(30) == 32
        executor.client.upload("outcome-of-2", b"PXOUT2\n")
        job = Job(
            name=f"{run_id}/1", labels={"pxrun": run_id}, tasks=[Task("any", "cp outcome-of-2 pxoutcome")],
            artifacts=[Artifact("outcome-of-2")], output_files=["pxoutcome"], client=executor.client,
        )  # fmt: skip
        job.create()
        job.wait(30)
        executor.client.delete_data("outcome-of-2")
    with ProminenceExecutor.attach(run_id, service.url, service.token) as again:
        futures = again.futures()
        assert futures[0].result(30) == 32
        with pytest.raises(OutcomeError, match=f"an outcome of run '{run_id}' {REFUSED}"):
            futures[1].result(30)


def test_the_directory_of_an_embedded_service(tmp_path: Path) -> None:
    with LocalService(tmp_path):
        pass
    state = tmp_path / "state.sqlite"
    assert set_user_version(state, 2) == 1
    service = LocalService(tmp_path)
    for _ in range(2):  # the first refusal has let go of the directory
        with pytest.raises(ValueError, match=f"{state} {REFUSED}"):
            service.start()
    words = [sys.executable, "-m", "prominence_executor.local", "--dir", str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert said.stderr == f"{state} {REFUSED}\n"
    set_user_version(state, 0)  # as the first version left it
    with LocalService(tmp_path):
        pass
    assert set_user_version(state, 0) == 1
