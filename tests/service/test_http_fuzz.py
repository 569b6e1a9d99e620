"""Anything may be sent to the service: it answers at once, never with 500, and goes on as before.

Knows nothing of how the service is built, but for `incoming/` of its directory, where nothing may stay. Half a minute
as it is; PROMINENCE_FUZZ=20 makes twenty times as many requests. What once broke the service is sent every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import any_requests as some
import pytest
import raw_http
from any_requests import BASE, BUCKET, DEEP, HUGE, JOB, WORKFLOW, replaced
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from people import Person
from raw_http import Answer

from prominence_executor.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.filterwarnings("ignore:Generating overly large repr")]

TIMES = float(os.environ.get("PROMINENCE_FUZZ", "1"))
NOBODY = ("", "expired", "garbage")


def requests(number: int) -> Callable[..., Any]:
    return settings(
        max_examples=int(number * TIMES), deadline=None, database=None, print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


class Target:
    """A service with a user who has a job that runs, one that has ended and left an output, and a workflow."""

    def __init__(self, service: LocalService) -> None:
        self._incoming = service.dir / "objects" / "incoming"
        self.port = int(urlsplit(service.url).port or 0)
        self.person = Person(service.url, service.token_for("fuzz"))
        self.ended = self.person.create("sh -c 'echo content > o'", outputFiles=["o"])
        self.stored = path_of(self.person.ended(self.ended)["outputFiles"][0]["url"])
        asked = self.person("POST", "/data/upload", json={"filename": "a"}).json()["url"]
        assert raw_http.exchange(self.port, raw_http.request("PUT", path_of(asked).encode(), [], b"x")).status == 200
        self.workflow = int(self.person("POST", "/workflows", json=WORKFLOW).json()["id"])
        self.running = self.person.create("sh -c 'echo $PROMINENCE_TOKEN; sleep 3600'")
        while not (token := self.person.stdout(self.running).strip()):
            time.sleep(0.05)
        self._tokens = {
            "own": service.token_for("fuzz"), "job's": token, "expired": service.token_for("fuzz", expires_in=-1),
            "other": service.token_for("o" * 300, groups=("g", "fuzz")), "garbage": "a.b.c",
        }  # fmt: skip

    def authorization(self, who: str) -> list[tuple[str, bytes]]:
        return [("Authorization", f"Bearer {self._tokens[who]}".encode())] if who else []

    def ask(
        self, method: str, path: str, who: str = "", body: bytes | None = None, kind: bytes | None = None,
        more: tuple[tuple[str, bytes], ...] = (),
    ) -> Answer:  # fmt: skip
        headers = [*self.authorization(who), *more]
        if kind is not None and body is not None:
            headers.append(("Content-Type", kind))
        target = path.replace(" ", "").encode(errors="replace")
        answer = raw_http.exchange(self.port, raw_http.request(method, target, headers, body))
        shown = f"{answer.status} for {method} {path[:200]!r} {(body or b'')[:200]!r}: {answer.content[:300]!r}"
        # A connection may end without an answer where a request is refused before it is read.
        assert answer.status or len(body or b"") + len(target) > 1 << 16, shown
        assert answer.status < 500, shown
        # What is longer than a server reads at all, it may refuse in its own way.
        if answer.status >= 400 and method != "HEAD" and len(target) + sum(len(value) for _, value in more) < 8_000:
            assert answer.error, shown
        return answer

    def check(self) -> None:
        """Nothing is left, everything lives, and jobs are run as before."""
        deadline = time.monotonic() + 10
        while left := list(self._incoming.iterdir()):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        assert self.person("GET", "/health").status_code == 200
        for job in self.person("GET", "/jobs").json():  # those that are too large for the machine, too
            if job["id"] != self.running:
                self.person("DELETE", f"/jobs/{job['id']}")
        assert self.person.ended(self.person.create("true"))["status"] == "completed"
        every = self.person("GET", "/jobs?all=true").json()
        assert [job for job in every if "nternal error" in job.get("statusReason", "")] == []
        running = self.person.job(self.running)
        assert running["status"] == "running", running


def path_of(url: str) -> str:
    return url[url.index(BUCKET) :]


@pytest.fixture(scope="module")
def target(nothing_is_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with LocalService(tmp_path_factory.mktemp("fuzz"), cpus=4, memory=16) as service:
        yield Target(service)


@pytest.fixture(autouse=True)
def as_before(target: Target) -> Iterator[None]:
    yield
    target.check()


def described(document: dict[str, Any], place: tuple[Any, ...], by: Any) -> bytes:
    return json.dumps(replaced(document, place, by)).encode()


@requests(500)
@example(path="/jobs", document=b'{"resources": ' + DEEP.encode(), who="own")
@example(path="/jobs", document=described(JOB, ("tasks", 0, "cmd"), "x" * 1_000_000), who="own")
@example(path="/jobs", document=described(JOB, ("resources", "walltime"), 10**9), who="own")
@example(path="/jobs", document=described(JOB, ("policies", "maximumTimeInQueue"), 10**9), who="own")
@example(path="/workflows", document=described(WORKFLOW, ("factories", 2, "number"), HUGE), who="own")
@example(path="/workflows", document=described(WORKFLOW, ("factories", 1, "parameters", 0, "end"), 1e18), who="own")
@example(path="/workflows", document=described(WORKFLOW, ("labels", "k"), float("nan")), who="own")
@given(
    path=st.sampled_from(["/jobs", "/workflows", "/data/upload", "/data/output", "/data"]),
    document=some.documents(), who=some.whose,
)  # fmt: skip
def test_any_document(path: str, document: bytes, who: str, target: Target) -> None:
    answer = target.ask("POST", BASE + path, who, document, b"application/json")
    assert answer.status in (401, 413) if who in NOBODY else answer.status != 401
    if answer.status == 201 and "id" in (created := json.loads(answer.content)):
        described = target.ask("GET", f"{BASE}{path}/{created['id']}", who)
        assert json.loads(described.content)[0]["id"] == created["id"]


@requests(1_500)
@example(method="GET", path=f"{BASE}/jobs/99999999999999999999", who="own", body=None, kind=None)
@example(method="GET", path=f"{BASE}/jobs/{'9' * 5_000}", who="own", body=None, kind=None)
@example(method="POST", path=f"{BASE}/jobs/RUNNING/exec?command=a%00b", who="own", body=None, kind=None)
@example(method="PUT", path=f"{BASE}/jobs/RUNNING/snapshot?path=.", who="own", body=None, kind=None)
@example(method="PUT", path=f"{BASE}/jobs/RUNNING/snapshot?path={'x' * 5_000}", who="own", body=None, kind=None)
@example(method="GET", path=f"{BASE}/data", who="other", body=None, kind=None)
@given(
    method=some.methods, path=some.targets(), who=some.whose, kind=some.kinds,
    body=st.none() | st.binary(max_size=20) | some.documents(),
)  # fmt: skip
def test_any_path_and_query(
    method: str, path: str, who: str, body: bytes | None, kind: bytes | None, target: Target
) -> None:
    running = "0" if method == "DELETE" else str(target.running)  # that one must live until the end
    path = (
        path.replace("RUNNING", running).replace("ENDED", str(target.ended)).replace("WORKFLOW", str(target.workflow))
    )
    target.ask(method, path, who, body, kind)


@requests(500)
@given(
    path=st.sampled_from(["", "/jobs", "/health", "/kv/a"]),
    name=st.sampled_from(some.HEADERS),
    value=some.header_values,
)
def test_any_header(path: str, name: str, value: bytes, target: Target) -> None:
    who = "own" if path and name != "Authorization" else ""
    target.ask("GET", BASE + path if path else target.stored, who, more=((name, value),))


def longer(at: str, by: str) -> Callable[[str], str]:
    return lambda path: path.replace(at, at + quote(by, errors="replace"), 1)


@requests(400)
@example(method="GET", change=longer("Expires=", "9" * 5_000), body=b"")
@example(method="PUT", change=longer("Expires=", "9" * 5_000), body=b"x")
@given(
    method=st.sampled_from(["PUT", "PUT", "GET", "HEAD", "POST", "DELETE"]),
    change=st.just(str)
    | st.builds(longer, st.sampled_from(["Expires=", "Signature=", BUCKET + "/", "?"]), some.query_values),
    body=st.binary(max_size=50),
)
def test_any_signed_url(method: str, change: Callable[[str], str], body: bytes, target: Target) -> None:
    path = target.stored
    if method == "PUT":
        path = path_of(target.person("POST", "/data/upload", json={"filename": "put"}).json()["url"])
    target.ask(method, change(path), body=body if method in ("PUT", "POST") else None)


FILE = b"content of a form"


@requests(150)
@example(missing=[], more=[(b"file", b'; filename="g"', b"y")] * 2, cut=None, boundary=b"form", framing="whole")
@example(
    missing=[], more=[(b"file", b'; filename="g"', b"x" * 600_000)], cut=300_000, boundary=b"form", framing="whole"
)
@example(missing=[], more=[(b"file", b'; filename="g"', b"x" * 3_000_000)], cut=None, boundary=b"form", framing="short")
@example(missing=[], more=[(b"key", b"", b"x" * 3_000_000)], cut=None, boundary=b"form", framing="whole")
@example(missing=[], more=[], cut=-3, boundary=b"form", framing="long")
@given(
    missing=st.lists(st.sampled_from(some.FIELDS), max_size=2), more=some.parts,
    cut=st.none() | st.integers(-50, 2_000), boundary=some.boundaries,
    framing=st.sampled_from(["whole", "whole", "chunked", "short", "long"]),
)  # fmt: skip
def test_any_form(
    missing: list[bytes], more: list[tuple[bytes, bytes, bytes]], cut: int | None, boundary: bytes, framing: str,
    target: Target,
) -> None:  # fmt: skip
    asked = {"filename": "form", "checksum": hashlib.sha256(FILE).hexdigest()}
    signed = target.person("POST", "/data/upload", json=asked).json()["fields"]
    fields = [(name.encode(), b"", value.encode()) for name, value in signed.items() if name.encode() not in missing]
    fields += [] if b"file" in missing else [(b"file", b'; filename="form"', FILE)]
    body = raw_http.form(b"form", fields + more)[:cut]
    kind = b"multipart/form-data; boundary=" + boundary
    sent = raw_http.request("POST", BUCKET.encode(), [("Content-Type", kind)], body, framing)
    answer = raw_http.exchange(target.port, sent, cut_off=framing != "whole")
    assert answer.status < 500, answer
    if framing == "whole" and boundary == b"form" and cut is None and not (missing or more):
        assert answer.status == 204


@requests(400)
@given(
    line=some.first_lines, heads=st.lists(some.header_lines, max_size=4), body=some.bodies,
    who=st.sampled_from(["own", ""]),
)  # fmt: skip
def test_what_is_hardly_http(line: bytes, heads: list[bytes], body: bytes, who: str, target: Target) -> None:
    authorization = [name.encode() + b": " + value for name, value in target.authorization(who)]
    sent = b"\r\n".join([line, *authorization, *heads]) + b"\r\n\r\n" + body
    answer = raw_http.exchange(target.port, sent, cut_off=True)
    # 501 and 505 are what HTTP wants to be said of encodings and versions that a server does not know.
    assert answer.status < 500 or answer.status in (501, 505), (sent[:300], answer)


@requests(150)
@given(job=some.jobs())
def test_a_job_that_is_accepted_can_be_run(job: dict[str, Any], target: Target) -> None:
    answer = target.ask("POST", BASE + "/jobs", "own", json.dumps(job).encode(), b"application/json")
    if answer.status == 201 and max(job["resources"]["cpus"], job["resources"]["memory"]) <= 4:
        ended = target.person.ended(int(json.loads(answer.content)["id"]))
        assert ended["status"] in ("completed", "failed")
        assert "nternal error" not in ended.get("statusReason", "")


def test_nothing_of_an_upload_stays_when_its_client_goes_away(target: Target) -> None:
    url = path_of(target.person("POST", "/data/upload", json={"filename": "gone"}).json()["url"])
    for body in (b"", b"x" * 1_000_000):
        sent = raw_http.request("PUT", url.encode(), [], body, "long")
        assert raw_http.exchange(target.port, sent, cut_off=True).status < 500
    assert [item for item in target.person("GET", "/data").json() if item["name"] == "gone"] == []
