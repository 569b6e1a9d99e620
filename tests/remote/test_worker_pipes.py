"""What goes between a warm worker and its process of calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from variables import unmeasured

from prominence_executor.remote.worker_pipes import END, FRAME, RECORD, REPLY, Replies

PROGRAM = Path(__file__).parents[1] / "support/programs/pipe_sides.py"


def found(name: str, directory: Path) -> Any:
    words = [sys.executable, str(PROGRAM), name, str(directory)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=unmeasured())
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_each_number_is_taken_by_one_side(tmp_path: Path) -> None:
    taken, back = found("numbers", tmp_path)
    assert taken
    assert back
    assert sorted([*taken, *back]) == list(range(40_000))


def test_what_is_taken_back_is_not_run(tmp_path: Path) -> None:
    assert found("taken_back", tmp_path) == [0, [1, 2], 3, 2, "a d "]


def test_nobody_waits_for_a_process_that_is_busy(tmp_path: Path) -> None:
    assert found("unread", tmp_path) == [3, "a b c "]


def test_a_dead_process_is_noticed_whatever_was_on_its_way(tmp_path: Path) -> None:
    assert found("dead", tmp_path) == [True, [1], -9]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_replies_are_put_together_from_what_comes(piece: int) -> None:
    sent = [(RECORD, b"abc", None), (END, b"", [0, 1 << 40]), (END, bytes(1000), [3, 4])]
    stream = b"".join(REPLY.pack(kind, len(body), *(position or (-1, -1))) + body for kind, body, position in sent)
    replies, came = Replies(), []
    for at in range(0, len(stream), piece):
        replies.add(stream[at : at + piece])
        while (reply := replies.next()) is not None:
            came.append(reply)
    assert came == sent


def test_a_body_may_be_as_large_as_a_record() -> None:
    assert REPLY.unpack(REPLY.pack(END, 1 << 32, -1, -1))[1] == FRAME.unpack(FRAME.pack(2, 1 << 32))[1] == 1 << 32
