"""Requests of any kind, as strategies of hypothesis: documents, paths, headers, forms, and what is hardly HTTP.

What they make a service run is harmless, and what it may accept is small. Knows the API as it is documented, and
nothing of the service behind it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

BASE = "/prominence/v1"
BUCKET = "/prominence-objects"
HUGE = 10**25
DEEP = "[" * 100_000

# -- values ------------------------------------------------------------------------------------------------------------

# What is between a few and the bounds is left out: it would be accepted, and keep the machine busy.
numbers = st.sampled_from([-HUGE, -1, 0, 1, 2, 10**7, 2**31, 2**63 - 1, 2**63, HUGE, 0.5, -0.0, 1e17, 1e300, 1e-300])
texts = st.one_of(
    st.sampled_from(
        ["", " ", ".", "..", "/", "\n", "a" * 600, "é" * 200, "a,b", "a:/b", "$i", "${", "$$", "%00", "%", "*", "[",
         "[z-a]", "a=b", "true", "0", "logs", "--help", "'", '"', "\\", "\u202e", "http://[", "http://127.0.0.1:1/x"]
    ),
    st.text(max_size=8),
)  # fmt: skip
odd = st.sampled_from(["\0", "\ud800", "a\udc80", "x\0y"])  # characters that are none
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | odd, inner, max_size=3),
    max_leaves=6,
)
JOB: dict[str, Any] = {
    "name": "fuzz",
    "tasks": [
        {"image": "any", "runtime": "singularity", "cmd": "true $i", "env": {"A": "b"}, "workdir": "", "stdout": "s",
         "type": "basic", "procsPerNode": 1}
    ],
    "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1},
    "inputs": [{"filename": "f", "content": "eA==", "executable": True}],
    "artifacts": [],
    "outputFiles": ["o"],
    "outputDirs": ["d"],
    "labels": {"k": "v"},
    "policies": {"maximumRetries": 1, "maximumTimeInQueue": 1, "priority": 1, "leaveInQueue": False},
    "notifications": [{"event": "jobFinished", "type": "email"}],
}  # fmt: skip
WITH_ARTIFACT = {**JOB, "artifacts": [{"url": "http://127.0.0.1:1/a", "mountpoint": "a:/home/user/a"}]}
WORKFLOW: dict[str, Any] = {
    "name": "fuzz",
    "jobs": [{**JOB, "name": "first"}, {**WITH_ARTIFACT, "name": "second"}, {**JOB, "name": "third"}],
    "dependencies": {"first": ["second"]},
    "labels": {"k": "v"},
    "policies": {"maximumRetries": 1},
    "factories": [
        {"type": "zip", "name": "z", "jobs": ["first"],
         "parameters": [{"name": "h", "values": [1, 2]}, {"name": "i", "values": ["a", "b"]}]},
        {"type": "parameterSweep", "name": "s", "jobs": ["second"],
         "parameters": [{"name": "i", "start": 0, "end": 1, "step": 1}]},
        {"type": "repeat", "name": "r", "jobs": ["third"], "number": 2},
    ],
}  # fmt: skip
ASKED = {"filename": "name", "checksum": None, "name": "name"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each part of a document, itself included."""
    found = [path]
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(part, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """A document with another part at a place."""
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A job of which one part is anything, or is followed by anything."""
    job = draw(st.sampled_from([JOB, WITH_ARTIFACT]))
    place = draw(st.sampled_from([place for place in places(job) if place]))
    changed: dict[str, Any] = replaced(job, place, draw(values))
    return changed


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON of which one or two parts are anything, or text that is nearly JSON."""
    document: Any = draw(st.sampled_from([JOB, WITH_ARTIFACT, WORKFLOW, ASKED]))
    for _ in range(draw(st.integers(0, 2))):
        document = replaced(document, draw(st.sampled_from(places(document))), draw(values))
    text = json.dumps(document)
    nearly = draw(st.integers(0, 9))
    if nearly == 0:
        text = text.replace('"', draw(st.sampled_from(["", "'", '\\"', "NaN", DEEP])), 1)
    elif nearly == 1:
        text = text[: draw(st.integers(0, len(text)))]
    elif nearly == 2:
        text = text.replace("1", draw(st.sampled_from(["NaN", "-Infinity", "1e999", "9" * 5_000, "01", DEEP])))
    elif nearly == 3:
        text = '{"name": "twice", ' + text[1:]
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-32", "utf-8-sig"])))


kinds = st.sampled_from(
    [b"application/json", b"application/json", b"application/json; charset=latin-1", b"text/plain", b"", b"a/b;=;",
     b"multipart/form-data", b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", None]
)  # fmt: skip
whose = st.sampled_from(["own", "own", "own", "own", "job's", "other", "", "expired", "garbage"])

# -- paths and headers -------------------------------------------------------------------------------------------------

methods = st.sampled_from(["GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
ids = st.sampled_from(["RUNNING", "ENDED", "WORKFLOW", "0", "1", "-1", "99999999999999999999", "9" * 5_000, "1e3",
                       "%D9%A3", "0000", "1%00", "1.0", "%ff"])  # fmt: skip
segments = st.one_of(
    ids, texts.map(lambda text: quote(text, safe="")), st.sampled_from(["stdout", "..", "%2e%2e", "%", "%zz", ""])
)
PATHS = [
    "/health", "/resources", "/jobs", "/jobs/{}", "/jobs/{}/remove", "/jobs/{}/clone", "/jobs/{}/stdout",
    "/jobs/{}/stderr", "/jobs/{}/exec", "/jobs/{}/snapshot", "/jobs/{}/{}", "/workflows", "/workflows/{}",
    "/workflows/{}/clone", "/workflows/{}/remove", "/workflows/{}/{}/stdout", "/workflows/{}/{}/{}/stderr",
    "/data", "/data/{}", "/data/{}/{}", "/data/upload", "/data/output", "/kv", "/kv/{}", "/kv/{}/{}", "/{}", "",
]  # fmt: skip
QUERY = ["id", "num", "limit", "constraint", "name", "status", "all", "completed", "detail", "workflow", "node",
         "offset", "command", "path", "list", "values", "prefix", "prev", "checksum"]  # fmt: skip
query_values = st.one_of(
    texts, ids, st.sampled_from(["true", "1,2,,3", "1," * 9_999 + "1", "k=v", "k=v=w", "-5", "true,-x", ".", "../..",
                                 "sh,-c,exit 1", "x" * 60_000, "9" * 19, "f" * 64, "é" * 64]),
)  # fmt: skip


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A path and query; RUNNING, ENDED and WORKFLOW stand for what is there."""
    path = BASE + draw(st.sampled_from(PATHS))
    while "{}" in path:
        path = path.replace("{}", draw(segments), 1)
    if asked := draw(st.dictionaries(st.sampled_from(QUERY), query_values, max_size=3)):
        return f"{path}?{urlencode(asked, errors='replace')}"
    return path + draw(st.sampled_from(["", "", "?", "?&=&", "?a=%ff%00", "?=", "?%"]))


HEADERS = ["Authorization", "Range", "If-Range", "If-Modified-Since", "If-None-Match", "Accept", "Expect", "Cookie",
           "X-Forwarded-For", "X-HTTP-Method-Override", "Accept-Encoding", "Content-Encoding", "Origin"]  # fmt: skip
header_values = st.one_of(
    texts.map(lambda text: text.encode(errors="replace").translate(None, bytes(range(32)) + b"\x7f")),
    st.sampled_from(
        [b"bytes=0-", b"bytes=5-1", b"bytes=-5", b"bytes=" + b"9" * 5_000 + b"-", b"bytes=0-0,1-1", b"x" * 9_000,
         b"Mon, 01 Jan 99999 00:00:00 GMT", b'"tag"', b"W/\xff", b"100-continue", b"Bearer " + b"x." * 3_000,
         b"Bearer \xff.\xfe.\xfd", b"Basic YTpi", b"a, b, c", b"-1", b"identity"]
    ),
)  # fmt: skip

# -- forms -------------------------------------------------------------------------------------------------------------

FIELDS = [b"key", b"policy", b"signature", b"x-amz-meta-prominence_sha256", b"file"]
part_heads = st.sampled_from(
    [b'; filename="f"', b"", b'; filename=""', b'; filename="\xff\\"', b"\r\nContent-Type: a/b",
     b"; filename*=utf-8''%ff", b'; filename="a"\r\nContent-Length: -1', b"\r\nbroken"]
)  # fmt: skip
parts = st.lists(
    st.tuples(st.sampled_from([*FIELDS, b"file", b"", b"\xff"]), part_heads,
              st.binary(max_size=40) | st.just(b"x" * 600_000)),
    max_size=4,
)  # fmt: skip
boundaries = st.sampled_from([b"form", b"form", b"form", b"other", b"", b"f" * 100])

# -- what is hardly HTTP -----------------------------------------------------------------------------------------------

first_lines = st.sampled_from(
    [b"ODD /prominence/v1/jobs HTTP/1.1",
     b"GET /prominence/v1/jobs HTTP/1.1", b"GET /prominence/v1/health HTTP/1.0", b"GET  /  HTTP/1.1", b"GET", b"\0",
     b"GET /prominence/v1/\xff\xfe HTTP/1.1", b"GET http://[::1 HTTP/1.1", b"GET * HTTP/1.1", b"CONNECT a:1 HTTP/1.1",
     b"POST /prominence/v1/jobs HTTP/1.1", b"POST /prominence-objects HTTP/1.1", b"PUT /prominence-objects/a HTTP/1.1",
     b"GET / HTTP/9.9", b"get /prominence/v1/health http/1.1", b"PRI * HTTP/2.0", b"GET /" + b"a" * 300_000,
     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"POST /prominence/v1/kv/" + b"k" * 9_000 + b" HTTP/1.1"]
)  # fmt: skip
header_lines = st.sampled_from(
    [b"Host: a", b"Content-Length: 5", b"Content-Length: -5", b"Content-Length: 99999999999999999999", b"no colon",
     b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 1048577", b"Transfer-Encoding: chunked",
     b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \xff", b"Expect: 100-continue", b": no name",
     b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13", b" folded",
     b"Name:\0", b"A: " + b"b" * 300_000, b"\r\n", b"Content-Length: " + b"9" * 5_000, b"Content-Length: x",
     b"Content-Type: application/json", b"Content-Type: multipart/form-data; boundary=" + b"x" * 5_000, *[b"B: c"] * 3]
)  # fmt: skip
bodies = st.sampled_from(
    [b"", b"5\r\nhello\r\n0\r\n\r\n", b"-5\r\n", b"ffffffffffffffffff\r\nx", b"5;" + b"e" * 9_000, b"zz\r\n", b"hello",
     b"{}", b"GET / HTTP/1.1\r\n\r\n" * 50, b"\r\n" * 100]
)  # fmt: skip
