"""What is decided about jobs: which chunks travel together, whether a POST is repeated, when an outcome is given up."""

from __future__ import annotations

import threading
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from prominence_executor import ProminenceFuture, ServiceError, ServiceUnavailableError, TransferError
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.options import Options
from prominence_executor.transports.jobs.array import MOST, Array, arrays_of, groups_for_arrays
from prominence_executor.transports.jobs.create import Attempts
from prominence_executor.transports.jobs.progress import ATTEMPTS, Progress


class Nowhere:
    """A transport of chunks that are never sent."""

    def submit(self, chunk: Chunk) -> None: ...

    def discard(self, chunk: Chunk) -> None: ...

    def terminate(self, chunk: Chunk) -> bool:
        return False

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        return ""

    def release(self, chunk: Chunk) -> None: ...

    def threads(self) -> set[threading.Thread]:
        return set()

    def close(self, leave: bool) -> None: ...


NOWHERE = Nowhere()
USUAL, OTHER = Options(), Options(retries=1)
FUNCTION = Blob([b"f"])
ARGUMENTS = {weight: Blob([bytes(weight)]) for weight in (1, 1 << 17, 1 << 19)}


def chunk(first: int, size: int = 1, *, attempt: int = 1, options: Options = USUAL, weight: int = 1) -> Chunk:
    calls: list[ProminenceFuture[Any]] = [ProminenceFuture(first + n) for n in range(size)]
    payload = Payload(FUNCTION, [ARGUMENTS[weight] for _ in calls])
    return Chunk("run", first, calls, options, payload, NOWHERE, attempt)


@st.composite
def submitted(draw: st.DrawFn) -> list[Chunk]:
    """Chunks as several threads submit them: of different sizes and options, not quite in order."""
    first, made = 0, []
    for _ in range(draw(st.integers(1, 30))):
        size, skipped = draw(st.integers(1, 4)), draw(st.sampled_from([0, 0, 0, 5]))
        attempt, options = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([USUAL, USUAL, OTHER]))
        weight = draw(st.sampled_from([1, 1, 1 << 17, 1 << 19]))
        made.append(chunk(first + skipped, size, attempt=attempt, options=options, weight=weight))
        first += skipped + size
    return draw(st.permutations(made))


@given(submitted())
def test_every_chunk_is_in_one_group_and_a_group_is_one_array(chunks: list[Chunk]) -> None:
    doubted = set(chunks[:1])
    groups = groups_for_arrays(chunks, doubted)
    assert sorted(map(id, chunks)) == sorted(id(one) for group in groups for one in group)
    for group in groups:
        assert len(group) <= MOST
        array = Array.of(group)
        # Its name alone says which calls each of its jobs has.
        assert [array.span.at(array.position(one)) for one in group] == [one.numbers for one in group]
        assert all(one.options == group[0].options for one in group)
        assert not (len(group) > 1 and doubted & set(group[1:]))


def test_chunks_that_follow_one_another_travel_together() -> None:
    chunks = [chunk(first, 2) for first in range(0, 20, 2)]
    assert groups_for_arrays(reversed(chunks)) == [chunks]
    last = chunk(20, 1)
    assert groups_for_arrays([*chunks, last]) == [[*chunks, last]]
    assert [len(group) for group in groups_for_arrays([*chunks, last, chunk(21, 2)])] == [11, 1]


def test_few_chunks_go_alone_and_many_become_arrays_side_by_side() -> None:
    def sizes(count: int, making: int = 0) -> list[int]:
        group = [chunk(first) for first in range(count)]
        arrays = arrays_of(group, making)
        assert not arrays or [one for part in arrays for one in part] == group
        return [len(part) for part in arrays]

    assert (sizes(1), sizes(19)) == ([], [])
    assert (sizes(20), sizes(35), sizes(101)) == ([10, 10], [12, 12, 11], [26, 26, 26, 23])
    assert (sizes(MOST), sizes(MOST, making=3), sizes(MOST, making=40)) == ([MOST // 4] * 4, [MOST], [MOST])


def test_a_cancelled_chunk_is_not_wanted_in_its_array() -> None:
    chunks = [chunk(first) for first in range(3)]
    chunks[1].calls[0].cancel()
    array = Array.of(chunks)
    assert array.wanted == {0, 2}
    assert array.is_wanted()
    assert len(array.left) == 3


LOST = ServiceUnavailableError("no answer")
NEVER_SENT = ServiceUnavailableError("refused", request_sent=False)
LATER = ServiceUnavailableError("later", 503, retry_after=7.0)
AN_HOUR = ServiceUnavailableError("much later", 503, retry_after=3600.0)
BROKEN = ServiceError("HTML", 500)


def test_a_post_without_an_answer_is_looked_up_at_once_and_one_that_never_left_waits() -> None:
    attempts = Attempts(in_doubt=False, patience=60.0)
    assert attempts.after_failure(NEVER_SENT, away=0.0) == 0.25
    assert not attempts.in_doubt
    assert attempts.after_failure(NEVER_SENT, away=1.0) == 0.5
    assert attempts.after_failure(LOST, away=2.0) == 0.0
    assert attempts.in_doubt
    assert attempts.after_failure(LATER, away=3.0) == 7.0


def test_an_upload_that_failed_leaves_no_doubt() -> None:
    attempts = Attempts(in_doubt=False, patience=60.0)
    assert attempts.after_failure(TransferError("cut off"), away=0.0) == 0.25
    assert not attempts.in_doubt


def test_three_faults_of_the_server_are_the_requests_own() -> None:
    attempts = Attempts(in_doubt=False, patience=60.0)
    for _ in range(2):
        attempts.after_failure(BROKEN, away=0.0)
        assert not attempts.refused
    attempts.after_failure(BROKEN, away=0.0)
    assert attempts.refused


@given(st.lists(st.sampled_from([LOST, NEVER_SENT, LATER]), max_size=30))
def test_the_waits_grow_but_are_bounded_and_end_with_the_patience(errors: list[ServiceError]) -> None:
    attempts = Attempts(in_doubt=False, patience=900.0)
    for error in errors:
        wait = attempts.after_failure(error, away=0.0)
        assert wait is not None
        assert 0.0 <= wait <= 30.0
    assert attempts.after_failure(LOST, away=900.5) is None


def test_a_pause_that_the_service_asks_for_is_bounded() -> None:
    for patience, seconds in ((900.0, 30.0), (5.0, 5.0)):
        assert Attempts(in_doubt=False, patience=patience).after_failure(AN_HOUR, away=0.0) == seconds


def test_a_refusal_is_mended_twice() -> None:
    attempts = Attempts(in_doubt=False, patience=60.0)
    assert [attempts.after_refusal(mendable=True) for _ in range(3)] == [True, True, False]
    assert not Attempts(in_doubt=False, patience=60.0).after_refusal(mendable=False)


def test_an_outcome_that_does_not_come_is_tried_a_few_times() -> None:
    progress, one = Progress(), chunk(0)
    assert progress.may_begin(one)
    assert progress.is_first(one)
    tries = [progress.failed(one, patience=0.0) for _ in range(ATTEMPTS)]
    assert tries == [True] * (ATTEMPTS - 1) + [False]
    assert not progress.is_first(one)
    assert not progress.may_begin(one)  # not yet
    assert progress.failed(one, patience=1000.0)  # the store is away, and waited for


def test_a_job_that_is_missed_or_held_is_counted_until_it_is_seen() -> None:
    progress, one = Progress(), chunk(0)
    assert [progress.missed(one) for _ in range(10)] == [None] * 10  # for a moment only
    assert progress.seen(one, held=True) == 0.0
    assert progress.seen(one, held=True) > 0.0
    assert [progress.absent(one) for _ in range(2)] == [1, 2]
    assert progress.seen(one, held=False) == 0.0
    assert progress.absent(one) == 1


def test_a_file_without_an_end_is_believed_when_it_comes_twice_alike() -> None:
    progress, one = Progress(), chunk(0)
    assert [progress.came_twice(one, digest) for digest in (b"a", b"b", b"b")] == [False, False, True]
