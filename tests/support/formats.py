"""What travels between client, service and jobs, taken apart without the package's help: what lasts has to be written
down twice.

It reads shapes only: which keys a JSON has, which members an archive, which headers a record. Run ids, digests and
numbers in names are replaced by words, so that two runs of one program look alike.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

PREFIX = struct.Struct(">QI32s")  # of a record: length of the body, length of the header, HMAC-SHA-256 of the header
SPOKEN = re.compile(rb"\x1e([A-Za-z0-9+/=]+)\n")  # a line of a warm worker's in its standard output
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])")


def spelled(name: str, run_id: str) -> str:
    """A name in which run id and digests are words."""
    return _DIGEST.sub("DIGEST", name.replace(run_id, "RUN"))


def without_numbers(name: str) -> str:
    """A name in which numbers are N; those of a fixed width have as many."""
    return re.sub(r"\d+", lambda found: "N" * len(found[0]) if found[0].startswith("0") else "N", name)


def paths(value: Any, run_id: str, at: str = "") -> set[str]:
    """Where in a JSON something is, and of which type: ``tasks[].cmd: string``."""
    if isinstance(value, dict) and value:
        return {
            path
            for key, inner in value.items()
            for path in paths(inner, run_id, f"{at}.{spelled(key, run_id)}" if at else spelled(key, run_id))
        }
    if isinstance(value, list) and value:
        return {path for inner in value for path in paths(inner, run_id, f"{at}[]")}
    return {f"{at}: {value if at.endswith('format') else _type(value)}"}  # a format's number is a promise


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    kinds = {dict: "object", list: "list", str: "string", int: "number", float: "number"}
    return kinds[type(value)]


def content(data: bytes, run_id: str) -> Any:
    """What a file is that travels: its first line and the keys behind it, or the members of an archive."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        return "zip"
    if runner_members(data) is not None and not data.startswith(b"PX"):
        return "the runner"
    if data.startswith(b"PXARRAY1"):
        return _bundle(data, run_id)
    first, _, rest = data.partition(b"\n")
    if first == b"PXMODS1":
        header = zlib.decompress(rest[4 : 4 + int.from_bytes(rest[:4], "big")])
        return {"begins with": first.decode(), "then, compressed": sorted(paths(json.loads(header), run_id))}
    if first.startswith(b"PX") and first.isalnum():
        second = rest.partition(b"\n")[0].strip()
        found = sorted(paths(json.loads(second), run_id)) if second.startswith(b"{") else []
        return {"begins with": first.decode(), "then": found}
    if data.startswith(b"{"):
        return sorted(paths(json.loads(data), run_id))
    return "bytes"


def _members(bundle: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an array's bundle."""
    _, index, contents = bundle.split(b"\n", 2)
    at = 0
    for name, size in json.loads(index)["members"].items():
        yield name, contents[at : at + size]
        at += size


def _bundle(data: bytes, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in _members(data):
        found.setdefault(without_numbers(spelled(name, run_id)), content(inner, run_id))
    return {"begins with": "PXARRAY1", "then": found}


def runner_members(data: bytes) -> list[str] | None:
    """What a runner consists of, if that is one or a bundle with one; cloudpickle's own files count as one."""
    if data.startswith(b"PXARRAY1"):
        data = dict(_members(data))["runner"]
    try:
        found = marshal.loads(zlib.decompress(data))  # it has been made here
    except (zlib.error, ValueError, EOFError, TypeError):
        return None
    members = set()
    for name, (_, code, source) in found["modules"].items():
        forms = [word for word, form in (("code", code), ("source", source)) if form is not None]
        members.add("cloudpickle" if name.startswith("cloudpickle") else f"{name}: {' and '.join(forms)}")
    return sorted(members)


# -- outcomes ----------------------------------------------------------------------------------------------------------


def record_headers(data: bytes) -> Iterator[dict[str, Any]]:
    """The headers of the records of an outcome file, or of a warm worker's message."""
    at = data.index(b"\n") + 1 if data.startswith(b"PX") else 0
    while at + PREFIX.size <= len(data):
        body, length, _ = PREFIX.unpack_from(data, at)
        at += PREFIX.size + body
        yield json.loads(data[at : at + length])
        at += length


def by_kind(headers: Iterable[dict[str, Any]], run_id: str) -> dict[str, list[str]]:
    """The keys of records, by what kind of record it is; those that all of several kinds have stand apart."""
    found: dict[str, set[str]] = {}
    for header in headers:
        found.setdefault(header["kind"], set()).update(paths(header, run_id))
    if len(found) > 1:
        common = set.intersection(*found.values())
        found = {"of all kinds": common, **{kind: found[kind] - common for kind in sorted(found)}}
    return {kind: sorted(keys) for kind, keys in found.items()}


# -- warm workers ------------------------------------------------------------------------------------------------------


def unsealed(text: str) -> tuple[dict[str, Any], bytes]:
    """Header and body of a signed message, whose signature is not looked at."""
    line, _, body = zlib.decompress(base64.b64decode(text)[32:]).partition(b"\n")
    return json.loads(line), body


def joined(values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The messages in mailboxes, from the parts that they are written in: (mailbox, text)."""
    boxes: dict[str, dict[int, str]] = {}
    for key, value in values.items():
        box, _, part = key.rpartition("/")
        boxes.setdefault(box, {})[int(part)] = value.split(":", 2)[2]
    for box, parts in boxes.items():
        yield box, "".join(parts[number] for number in sorted(parts))


def spoken(output: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What a warm worker has put into its job's standard output."""
    for found in SPOKEN.finditer(output):
        yield unsealed(found[1].decode())
