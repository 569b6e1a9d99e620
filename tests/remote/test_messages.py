"""Messages between a client and its warm workers: signed for one purpose, and whole or not there."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.remote.wire import PART, sign, split, verify
from prominence_executor.transports.warm.mailboxes import join

WORDS = st.text(st.characters(max_codepoint=0x17F), max_size=8)
HEADERS = st.dictionaries(WORDS, st.integers() | WORDS | st.none() | st.lists(st.integers(), max_size=3), max_size=4)
KEYS = st.binary(min_size=1, max_size=64)
PURPOSES = st.text(st.characters(min_codepoint=33, max_codepoint=126))


@given(HEADERS, st.binary(), KEYS, PURPOSES)
def test_what_is_signed_is_verified_and_comes_back(header: Any, body: bytes, key: bytes, purpose: str) -> None:
    assert verify(sign(header, body, key, purpose), key, purpose) == (header, body)


@given(st.binary(), KEYS, st.data())
def test_no_bit_of_a_message_can_be_another_one(body: bytes, key: bytes, data: st.DataObject) -> None:
    signed = bytearray(base64.b64decode(sign({}, body, key, "o1")))
    bit = data.draw(st.integers(0, len(signed) * 8 - 1))
    signed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="not signed"):
        verify(base64.b64encode(signed).decode(), key, "o1")


@given(st.binary(), KEYS, st.data())
def test_a_text_of_which_one_letter_was_damaged_is_refused_unless_it_says_the_same(
    body: bytes, key: bytes, data: st.DataObject
) -> None:
    text = sign({"a": 1}, body, key, "o1")
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(min_codepoint=1, max_codepoint=126).filter(lambda letter: letter != text[at]))
    with contextlib.suppress(ValueError):
        assert verify(text[:at] + letter + text[at + 1 :], key, "o1") == ({"a": 1}, body)


@given(st.binary(), KEYS, PURPOSES, PURPOSES)
def test_a_message_passes_for_no_other_purpose(body: bytes, key: bytes, one: str, other: str) -> None:
    text = sign({}, body, key, one)
    if one != other:
        with pytest.raises(ValueError, match="not the one that was asked for"):
            verify(text, key, other)
    with pytest.raises(ValueError, match="not signed"):
        verify(text, key + b"x", one)


@given(st.integers(1, 4 * PART), st.integers(0, 999))
def test_a_message_in_parts_is_whole_or_not_there(size: int, tag: int) -> None:
    text = "x" * size
    values = {f"/box/{number}": value for number, value in enumerate(split(text, str(tag)))}
    assert max(map(len, values.values())) <= 15_967  # bytes, which the service takes
    assert join(values) == {"box": (str(tag), text)}
    for key in values:
        assert join({other: value for other, value in values.items() if other != key}) == {}
