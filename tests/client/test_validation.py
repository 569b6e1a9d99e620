"""Names and labels that the service takes, and those that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from prominence_executor.client.validation import check_labels, check_name, wrong


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
