"""What stands for json, hashlib and hmac in a job does as they do, and a job imports none of them for it."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor import remote

LEAN = Path(remote.__file__).with_name("lean.py")


@pytest.fixture(scope="module")
def lean() -> ModuleType:
    """The module as a job has it: imported before json and hashlib."""
    known = {name: sys.modules.pop(name) for name in ("json", "hashlib")}
    try:
        spec = importlib.util.spec_from_file_location("lean_as_in_a_job", LEAN)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not known.keys() & sys.modules.keys()
        return module
    finally:
        sys.modules.update(known)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_json_is_what_json_says(lean: ModuleType, value: Any) -> None:
    text = lean.dumps(value)
    assert text == json.dumps(value)
    assert lean.loads(f"\n {text}\t") == value


@given(st.text(alphabet='{}[]:,"\\ truefalsn0123456789.-e', max_size=12))
def test_what_is_no_json_is_refused_alike(lean: ModuleType, text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            lean.loads(text)
    else:
        assert lean.loads(text) == expected


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(max_size=100))
def test_digests_are_those_of_hashlib(lean: ModuleType, parts: list[bytes], key: bytes) -> None:
    content = b"".join(parts)
    digest = lean.Digest()
    for part in parts:
        digest.update(memoryview(part))
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()
    assert lean.hmac_sha256(key, content) == hmac.new(key, content, hashlib.sha256).digest()


def test_so_they_are_of_what_is_large(lean: ModuleType) -> None:
    digest, block = lean.Digest(b"x"), bytes(700_000)
    for _ in range(3):
        digest.update(block)
    assert digest.hexdigest() == hashlib.sha256(b"x" + 3 * block).hexdigest()


def test_a_job_that_reads_its_instructions_has_imported_neither() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(LEAN.parents[1])!r})
import remote.runner, remote.wire, remote.records, remote.inputs
remote.wire.mac_of(b"key", b"content")
print(sorted({{"json", "hashlib", "hmac", "_hashlib"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
