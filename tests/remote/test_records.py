"""The file of outcomes: what was finished stands, whatever happens behind it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_directory import IDENTITY, KEY

from prominence_executor import OutcomeError, SignatureError
from prominence_executor.payload.outcomes import OutcomeFile, read_outcomes, verify_body
from prominence_executor.remote.records import OutcomeWriter, last_end, write_record
from prominence_executor.remote.wire import NO_CALL, OUTCOME_MAGIC

JOB = {"run": IDENTITY.run, "job": IDENTITY.job, "attempt": IDENTITY.attempt, "key": KEY.hex(), "outcome": "pxoutcome"}


def written(bodies: list[bytes]) -> tuple[bytes, list[int]]:
    """A file with one result for each body, and where each record ends."""
    file = io.BytesIO(OUTCOME_MAGIC)
    file.seek(0, os.SEEK_END)
    ends = []
    for call, body in enumerate(bodies):
        write_record(file, JOB, call, "result", lambda target, body=body: target.write(body) and None, None, {})
        ends.append(file.tell())
    return file.getvalue(), ends


def read(content: bytes) -> OutcomeFile:
    file = io.BytesIO(content)
    outcomes = read_outcomes(file, KEY, IDENTITY)
    for outcome in outcomes.calls.values():
        verify_body(file, outcome)
    return outcomes


@given(st.lists(st.binary(max_size=200), max_size=4), st.data())
def test_a_file_that_is_cut_anywhere_loses_the_records_behind_the_cut_and_no_other(
    bodies: list[bytes], data: st.DataObject
) -> None:
    content, ends = written(bodies)
    cut = data.draw(st.integers(len(OUTCOME_MAGIC), len(content)))
    assert list(read(content[:cut]).calls) == [call for call, end in enumerate(ends) if end <= cut]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=3), st.data())
def test_a_file_with_a_flipped_bit_is_refused_or_lacks_what_follows(bodies: list[bytes], data: st.DataObject) -> None:
    content, ends = written(bodies)
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        calls = read(bytes(damaged)).calls
    except (SignatureError, OutcomeError):  # the latter: it reads as the mark of a newer version
        return
    before = [call for call, end in enumerate(ends) if end <= bit // 8]
    assert list(calls) == before


@given(st.lists(st.binary(max_size=100), max_size=4), st.data())
def test_a_writer_that_comes_later_goes_on_behind_the_last_finished_record(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], data: st.DataObject
) -> None:
    content, ends = written(bodies)
    cut = data.draw(st.integers(len(OUTCOME_MAGIC), len(content)))
    path = tmp_path_factory.mktemp("job") / "pxoutcome"
    path.write_bytes(content[:cut])
    writer = OutcomeWriter(JOB, append=True, name=str(path))
    writer.write(NO_CALL, "crashed", exit=-9)
    writer.close()
    outcomes = read(path.read_bytes())
    assert len(outcomes.calls) == sum(end <= cut for end in ends)
    assert outcomes.job is not None
    assert outcomes.job.header["exit"] == -9


def test_a_record_whose_body_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def fails(file: Any) -> None:
        file.write(b"x" * 100_000)
        raise KeyError("half way")

    path = tmp_path / "pxoutcome"
    writer = OutcomeWriter(JOB, name=str(path))
    writer.write(0, "result", lambda file: file.write(b"first") and None)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        writer.write(1, "result", fails)
    assert path.read_bytes() == before
    writer.write(1, "unpicklable", error="half way")
    writer.close()
    assert [outcome.kind for outcome in read(path.read_bytes()).calls.values()] == ["result", "unpicklable"]
    with path.open("rb") as file:
        end, header = last_end(file)
    assert end == path.stat().st_size
    assert header["error"] == "half way"
