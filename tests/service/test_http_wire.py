"""The embedded service answers as the real one did when it was recorded.

The recordings themselves lie beside the repository where the project is developed; where they do not, those tests are
skipped, and the sentences written down here still hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from paths import WIRE

from prominence_executor.service import LocalService

GOOD = {
    "name": "wire",
    "tasks": [{"image": "image.sif", "runtime": "singularity", "cmd": "true"}],
    "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
}


class Http:
    """Requests to the service as one user."""

    def __init__(self, service: LocalService, username: str) -> None:
        self.url = service.url
        self._headers = {"Authorization": f"Bearer {service.token_for(username)}"}

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {**self._headers, **options.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=30, **options)

    def upload(self, name: str, content: bytes) -> None:
        url = self("POST", "/data/upload", json={"filename": name, "checksum": None}).json()["url"]
        requests.put(url, data=content, timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def http(service: LocalService) -> Http:
    user = Http(service, "wire")
    for name in ("image.sif", "py313.sif", "py313.tar", "p0.txt"):
        user.upload(name, b"content")
    return user


def recordings(pattern: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(WIRE.glob(pattern))] or [
        pytest.param(None, marks=pytest.mark.skip(reason="the recordings are not beside this repository"))
    ]


@pytest.mark.parametrize("path", recordings("create-bad-*.json") + recordings("workflow-bad-*.json"))
def test_a_bad_description_is_refused_with_the_recorded_sentence(path: Path, http: Http) -> None:
    exchange = json.loads(path.read_text())
    request, answer = exchange["request"], exchange["response"]
    body = request.get("json", request.get("body"))
    if "__truncated__" in (body or {}) or (isinstance(body, str) and "characters in all" in body):
        pytest.skip("the recording holds only a part of the request")
    path_of_request = request["path"].removeprefix("/prominence/v1")
    headers = {key: value for key, value in request.get("headers", {}).items() if key.lower() == "content-type"}
    data = body if isinstance(body, str) else b"" if body is None else json.dumps(body)
    ours = http(request["method"], path_of_request, data=data, headers=headers)
    if answer["status"] == 500:
        assert ours.status_code == 400
        assert ours.json()["error"]
    elif "json" in answer:
        assert (ours.status_code, ours.json()) == (answer["status"], answer["json"])
    else:  # a page there, a sentence here
        assert ours.status_code == answer["status"]
        assert ours.json()["error"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"foo": 1}, 'invalid item "foo" in job description'),
        ({"name": "a:b"}, "invalid job name"),
        ({"labels": {"a-b": "c"}}, 'label name "a-b" is invalid'),
        ({"labels": {"a": "c d"}}, 'label value "c d" is invalid'),
        ({"tasks": []}, "a job cannot contain only sidecar tasks"),
        ({"tasks": [{"image": "image.sif", "cmd": "true"}]}, "a container runtime must be defined"),
        ({"tasks": [{"image": "no.sif", "runtime": "udocker"}]}, "Image no.sif does not exist"),
        ({"artifacts": [{"url": "no.bin"}]}, "Artifact no.bin does not exist"),
        ({"policies": {"maximumRetries": 7}}, "the number of retries must be less than 6"),
        ({"resources": {"cpus": 1, "memory": 1.5, "disk": 1, "nodes": 1}}, "memory must be an integer"),
        ({"resources": {"cpus": 1, "disk": 1, "nodes": 1}}, "memory or memoryPerCpu (in GB) must be defined"),
    ],
)
def test_the_sentences_of_refusals(change: dict[str, Any], sentence: str, http: Http) -> None:
    answer = http("POST", "/jobs", json={**GOOD, **change})
    assert (answer.status_code, answer.json()) == (400, {"error": sentence})


def test_a_request_of_exactly_one_mebibyte_is_read_and_one_byte_more_is_not(http: Http) -> None:
    body = json.dumps(GOOD)
    kind = {"Content-Type": "application/json"}
    assert http("POST", "/jobs", data=body.ljust(1_048_576), headers=kind).status_code == 201
    refused = http("POST", "/jobs", data=body.ljust(1_048_577), headers=kind)
    assert refused.status_code == 413
    assert "413 Request Entity Too Large" in refused.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "answer"),
    [
        ("GET", "/jobs/999999", 200, []),
        ("GET", "/jobs?status=completed", 200, {"error": "invalid status specified"}),
        ("GET", "/jobs?constraint=run", 400, {"error": "Invalid constraint"}),
        ("GET", "/jobs?constraint=a=b=c", 400, {"error": "Invalid constraint"}),
        ("DELETE", "/jobs/999999", 400, {"error": "No such job(s)"}),
        ("DELETE", "/jobs", 400, {"error": "a job id or list of job ids must be provided"}),
        ("PUT", "/jobs/999999/remove", 400, {"error": "Job does not exist"}),
        ("PUT", "/jobs/999999/clone", 400, {"error": "Job does not exist"}),
        ("GET", "/jobs/999999/stdout", 400, {"error": "Job does not exist"}),
        ("GET", "/jobs/99999999999999999999", 200, []),
        ("GET", "/jobs/99999999999999999999/stdout", 400, {"error": "Job does not exist"}),
        ("DELETE", "/jobs/99999999999999999999", 400, {"error": "No such job(s)"}),
        ("GET", "/workflows/99999999999999999999", 200, []),
        ("GET", "/workflows/999999", 200, []),
        ("DELETE", "/workflows/999999", 400, {"error": "No such workflow(s)"}),
        ("DELETE", "/data/nosuch", 204, None),
        ("GET", "/data/zzz", 403, {"error": "Not authorized to access this path"}),
        ("GET", "/kv", 400, {"error": "Key not specified"}),
        ("GET", "/kv/none", 404, {"error": "No such key"}),
        ("DELETE", "/kv/none", 200, {}),
        ("GET", "/kv?list=true", 200, []),
    ],
)
def test_answers_about_what_is_not_there(method: str, path: str, status: int, answer: object, http: Http) -> None:
    ours = http(method, path)
    assert ours.status_code == status
    assert (ours.json() if ours.content else None) == answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/jobs/abc", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/jobs", 405),
        ("POST", "/jobs", 415),
        ("POST", "/workflows", 415),
        ("POST", "/data/upload", 415),
    ],
)
def test_what_is_no_part_of_the_api_is_refused_with_a_sentence(method: str, path: str, status: int, http: Http) -> None:
    ours = http(method, path)
    assert ours.status_code == status
    assert ours.json()["error"]


@pytest.mark.parametrize("path", ["/jobs?id=1,a", "/jobs?completed=true&num=x", "/jobs/1/stdout?offset=x"])
def test_what_is_no_number_is_refused_with_a_sentence(path: str, http: Http) -> None:
    ours = http("GET", path)
    assert ours.status_code == 400
    assert ours.json()["error"]


def test_the_key_value_store(http: Http) -> None:
    def post(key: str, value: str | bytes, **params: str) -> tuple[int, Any]:
        answer = http("POST", f"/kv/{key}", data=value, params=params)
        return answer.status_code, answer.json()

    refused = (400, {"error": "Atomic replacement not successful"})
    assert post("a/b", "v1") == (201, {})
    assert post("a/b", "v2") == (201, {})
    assert post("a/b", "v3", prev="v2") == (201, {})
    assert post("a/b", "v4", prev="v2") == refused
    assert post("a/none", "v4", prev="v2") == refused
    assert post("a/new", "v", prev="") == refused
    assert post("a/e", "") == (400, {"error": "No value provided"})
    assert post("a/big", "x" * 15_967) == (201, {})
    assert post("a/big2", "x" * 15_968) == (400, {"error": "Content of value too large"})
    assert post("a/c", "é€".encode()) == (201, {})
    assert http("GET", "/kv/a/b").content == b"v3"
    assert http("GET", "/kv/a/c").content == "é€".encode()
    assert http("GET", "/kv/a?list=true").json() == ["/a/b", "/a/big", "/a/c"]
    assert http("GET", "/kv/a?list=true&values=true").json()[0] == {"/a/b": "v3"}
    assert post("a/bin", b"\xff\xfe")[0] == 400  # the real one takes it, and breaks on reading it
    assert http("DELETE", "/kv/a?prefix=true").json() == {}
    assert http("GET", "/kv/a?list=true").json() == []


def test_a_key_has_a_length(http: Http) -> None:
    assert http("POST", "/kv/" + "k" * 4_096, data="v").status_code == 201
    assert "4096 bytes" in http("POST", "/kv/" + "k" * 4_097, data="v").json()["error"]


@pytest.mark.parametrize(
    ("checksum", "status"), [("0" * 64, 201), ("0" * 63, 400), ("é" * 64, 400), ("", 201), (None, 201), (1, 400)]
)
def test_a_checksum_is_one(checksum: Any, status: int, http: Http) -> None:
    answer = http("POST", "/data/upload", json={"filename": "sum", "checksum": checksum})
    assert (answer.status_code, bool(answer.json().get("error"))) == (status, status == 400)


def test_uploads_with_and_without_checksum(http: Http) -> None:
    import hashlib

    content = b"some content"
    digest = hashlib.sha256(content).hexdigest()
    plain = http("POST", "/data/upload", json={"filename": "plain", "checksum": None})
    assert (plain.status_code, set(plain.json())) == (201, {"url"})
    put = requests.put(plain.json()["url"], data=content, headers={"x-ms-blob-type": "BlockBlob"}, timeout=30)
    assert put.ok
    form = http("POST", "/data/upload", json={"filename": "form", "checksum": digest})
    assert (form.status_code, set(form.json())) == (201, {"url", "fields"})
    ask = form.json()
    assert requests.post(ask["url"], data=ask["fields"], files={"file": content}, timeout=30).ok
    other = http("POST", "/data/upload", json={"filename": "other", "checksum": digest}).json()
    assert not requests.post(other["url"], data=other["fields"], files={"file": b"damaged"}, timeout=30).ok
    listed = {item["name"]: item["size"] for item in http("GET", "/data").json()}
    assert (listed["plain"], listed["form"], "other" in listed) == (12, 12, False)
    assert http("POST", "/data/upload", json={"checksum": None}).json() == {"error": "An object name must be specified"}
    foreign = http("POST", "/data/upload", json={"filename": "zzz/art", "checksum": None})
    assert (foreign.status_code, foreign.json()) == (403, {"error": "Not authorized to access upload with this path"})


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer garbage", "abc"])
def test_a_token_is_asked_for(header: str | None, http: Http) -> None:
    answer = requests.get(f"{http.url}/jobs", headers={"Authorization": header} if header else {}, timeout=30)
    assert (answer.status_code, answer.json()) == (401, {"error": "Authentication failure"})


def test_an_expired_token_is_refused_and_any_scheme_is_taken(http: Http, service: LocalService) -> None:
    expired = service.token_for("wire", expires_in=-1)
    assert (
        requests.get(f"{http.url}/jobs", headers={"Authorization": f"Bearer {expired}"}, timeout=30).status_code == 401
    )
    good = service.token_for("wire")
    assert requests.get(f"{http.url}/jobs", headers={"Authorization": f"Token {good}"}, timeout=30).status_code == 200
