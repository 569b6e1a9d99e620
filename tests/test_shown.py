"""What came from outside, shown in a terminal and in HTML: it does no harm there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tags import Tags

from prominence_executor.shown import facts, in_html, on_terminal, table

EVIL = "\x1b]0;title\x07\x1b[31m<script>alert('x')</script>\r\n\u202eabc\x9b2J & \"quoted\""


def test_a_terminal_obeys_nothing_of_it() -> None:
    assert on_terminal(EVIL) == (
        "\\x1b]0;title\\x07\\x1b[31m<script>alert('x')</script>\\r\\n\\u202eabc\\x9b2J & \"quoted\""
    )
    assert on_terminal("größe, 長さ, 😀") == "größe, 長さ, 😀"
    assert on_terminal("x" * 1000, 10) == "x" * 10 + "..."
    assert on_terminal("a\u061cb\u200bc\ufeffd\U000e0041") == r"a\u061cb\u200bc\ufeffd\U000e0041"
    assert on_terminal("\ud800").encode() == b"\\ud800"


@given(st.text())
def test_whatever_it_is_it_stays_one_printable_line(text: str) -> None:
    shown = on_terminal(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    shown.encode()


@given(st.text(), st.text(), st.text())
def test_whatever_it_is_html_has_no_other_tags(title: str, name: str, value: str) -> None:
    for page in (facts(title, [(name, value)]), table(title, [name], [[value]])):
        tags = Tags(page)
        assert tags.names <= {"br", "div", "strong", "table", "tbody", "tr", "th", "td"}
        assert tags.attributes <= {"style"}
    assert Tags(f'<p title="{in_html(value)}">').attributes == {"title"}


def test_a_value_of_several_lines_keeps_them() -> None:
    assert "one<br>&lt;two&gt;</td>" in facts("", [("error", "one\n<two>")])
    assert facts("", [("error", "line\n" * 1000)]).count("<br>") < 50


def test_nothing_stands_in_a_table_for_what_is_not_known() -> None:
    text = Tags(facts("title", [("known", 0), ("unknown", None)])).text
    assert text == "titleknown0"
