"""Texts that were recorded under tests/data, and what has become of them: a change is to be a decision."""

from __future__ import annotations

import difflib
from pathlib import Path

from paths import ROOT


def compare(path: Path, text: str, meaning: str, *, recording: bool) -> None:
    """Fail, and show the difference, unless the text is the recorded one; when recording, write it down.

    Args:
        meaning: one sentence for whoever reads the failure: what a difference means, and what to do if it is meant.
    """
    if recording:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    before = path.read_text() if path.exists() else ""
    name = path.relative_to(ROOT)
    lines = difflib.unified_diff(
        before.splitlines(), text.splitlines(), f"{name}, as recorded", f"{name}, as it is now", n=8, lineterm=""
    )
    assert before == text, "\n".join(["it has changed:", *lines, "", meaning])
