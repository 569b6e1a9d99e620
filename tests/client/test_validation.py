"""Names and labels that the service takes, and those that it refuses."""

from __future__ import annotations

import shlex
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.client.validation import check_labels, check_name, words_of, wrong


@pytest.mark.parametrize(
    "labels", [{"a-b": "c"}, {"": "c"}, {"a": "c d"}, {"a": ""}, {"a": 1}, {"a": "c\n"}, {"a": "c" * 512}]
)
def test_wrong_labels_are_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match="labels"):
        check_labels(labels)


def test_right_labels_and_names() -> None:
    assert check_labels({"a1": "x.y/z-1_2"}) == {"a1": "x.y/z-1_2"}
    assert check_name("a/b c.d-e_f") == "a/b c.d-e_f"
    for name in ("a:b", "é", "a\n", "a" * 512):
        with pytest.raises(ValueError, match="name"):
            check_name(name)


def test_the_sentence_names_both_sides_and_cuts_a_long_value() -> None:
    assert str(wrong("Job.tasks", "a list of Task", "x")) == "Job.tasks must be a list of Task, not 'x'"
    assert str(wrong("x", "short", "y" * 1000)).endswith("yyy...")
    assert len(str(wrong("x", "short", "y" * 1000))) < 150


@given(st.text("ab \t\r\n'\"\\é#$", max_size=20))
def test_a_command_has_the_words_of_a_shell_with_their_quotes(command: str) -> None:
    found = words_of(command)
    try:
        words = shlex.split(command)
    except ValueError:
        assert found is None
        return
    assert found is not None
    assert [shlex.split(word) for word in found] == [[word] for word in words]


def test_a_long_word_is_read_at_once() -> None:
    began = time.process_time()
    assert words_of("x" * 1_000_000) == ["x" * 1_000_000]
    assert words_of('"' + "x" * 1_000_000) is None
    assert time.process_time() - began < 5
