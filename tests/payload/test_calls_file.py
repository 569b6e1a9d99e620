"""Calls and their file: what is written is read, and what is not wanted is left out."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.payload.blob import Blob, sha256_of
from prominence_executor.payload.calls import Payload, calls_body, calls_file, read_calls_file
from prominence_executor.payload.pickling import dumps
from prominence_executor.remote.loading import loader, read_calls

PIECES = st.lists(st.binary(max_size=300) | st.integers(65_530, 65_545).map(bytes), max_size=6)


@given(PIECES)
def test_a_blob_is_its_pieces_one_behind_the_other(pieces: list[bytes]) -> None:
    blob = Blob(pieces)
    assert blob.tobytes() == b"".join(pieces)
    assert len(blob) == sum(map(len, pieces))
    assert blob.sha256() == sha256_of(pieces)
    assert Blob(blob).tobytes() == blob.tobytes()


@given(st.binary(), st.lists(st.none() | st.binary(), max_size=5))
def test_a_file_of_calls_is_read_as_it_was_written(function: bytes, arguments: list[bytes | None]) -> None:
    payload = Payload(Blob([function]), [None if blob is None else Blob([blob]) for blob in arguments])
    read = read_calls_file(calls_file(payload).tobytes(), None, frozenset())
    assert read.function.tobytes() == function
    assert [None if blob is None else blob.tobytes() for blob in read.arguments] == arguments
    assert calls_body(read) == b"".join(blob for blob in arguments if blob is not None)


@given(st.lists(st.integers() | st.text(), max_size=5), st.sets(st.integers(0, 4)))
def test_the_remote_side_finds_the_calls_that_are_wanted(values: list[object], wanted: set[int]) -> None:
    whole = Payload(dumps((len, None, ())).blob, [dumps(((value,), {})).blob for value in values])
    part = whole.part(range(len(values)), wanted)
    file, load = io.BytesIO(calls_file(part).tobytes()), loader({"objects": {}})
    content, offsets = read_calls({}, file)
    head = load(io.BytesIO(content))
    assert head == (len, None, ())
    assert [None if offset is None else load(file, offset) for offset in offsets] == [
        ((value,), {}) if position in wanted else None for position, value in enumerate(values)
    ]
