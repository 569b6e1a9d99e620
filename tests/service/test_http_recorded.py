"""Jobs and workflows that were recorded on the real service, created again here: the same ends, the same outputs.

What differs stands in DIFFERENT, with the reason. Skipped where the recordings do not lie beside the repository.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from paths import WIRE

from prominence_executor.service import LocalService

ENDED = ("completed", "failed", "killed", "deleted")
NO_CONTAINER = "tasks here are plain processes"
DIFFERENT = {
    "odd-artifact-mount": NO_CONTAINER + ": nothing can be mounted at /mnt",
    "odd-cmd-dollar": "HOME is the sandbox, and refers to it",
    "odd-cmd-unbalanced": "refused; the real worker crashes",
    "odd-cmd-verylong": "refused; the real worker crashes",
    "odd-env-quote": NO_CONTAINER + ": another environment is printed",
    "odd-env-space-udocker": NO_CONTAINER + ": no udocker command line to break",
    "odd-input-awkward-names": "refused; the real job is held, then fails",
    "odd-input-comma-name": "refused; the real job is held, then fails",
    "odd-input-name-job.json": "refused; the real worker crashes",
    "odd-memory-hog": "takes 1.5 GB",
    "odd-workdir-abs": "/tmp is the sandbox's own, and has another name",
    "odd-symlink-output": "refused as missing; there it is the container's own file",
}
REFUSED = [name for name, reason in DIFFERENT.items() if reason.startswith("refused;")]


def recorded(name: str, part: str) -> dict[str, Any]:
    exchange: dict[str, Any] = json.loads((WIRE / f"{name}-{part}.json").read_text())
    return exchange


def whole(name: str) -> bool:
    return "characters in all>" not in (WIRE / f"{name}-create.json").read_text()


NAMES = sorted(path.name.removesuffix("-create.json") for path in WIRE.glob("odd-*-create.json"))
pytestmark = pytest.mark.skipif(not NAMES, reason="the recordings are not beside this repository")


@pytest.fixture(scope="module")
def call(service: LocalService) -> Callable[..., requests.Response]:
    headers = {"Authorization": f"Bearer {service.token_for('odd')}"}

    def request(method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, service.url + path, headers=headers, timeout=30, **options)

    for name in ("py313.sif", "py313.tar", "p0.txt"):
        url = request("POST", "/data/upload", json={"filename": name}).json()["url"]
        requests.put(url, data=b"param 0", timeout=30).raise_for_status()
    return request


def await_end(call: Callable[..., requests.Response], path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        described: dict[str, Any] = call("GET", path).json()[0]
        if described["status"] in ENDED:
            return described
        assert time.monotonic() < deadline, described
        time.sleep(0.03)


def outputs(description: dict[str, Any]) -> list[tuple[str, bool, int | None]]:
    return [(item["name"], bool(item["url"]), item.get("size")) for item in description.get("outputFiles", [])]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DIFFERENT and whole(name)])
def test_an_odd_job_ends_as_it_did_on_the_real_service(name: str, call: Callable[..., requests.Response]) -> None:
    created = call("POST", "/jobs", json=recorded(name, "create")["request"]["json"])
    assert created.status_code == 201, created.text
    job = created.json()["id"]
    ours, theirs = await_end(call, f"/jobs/{job}"), recorded(name, "describe")["response"]["json"][0]
    for key in ("name", "status", "statusReason", "tasks", "labels", "inputs", "artifacts", "resources"):
        assert ours.get(key) == theirs.get(key), key
    if "outputFiles" in theirs:
        assert outputs(ours) == outputs(theirs)
    entries = [(task["exitCode"], task["retries"], task["imagePullStatus"]) for task in ours["execution"]["tasks"]]
    assert entries == [
        (task["exitCode"], task["retries"], task["imagePullStatus"]) for task in theirs["execution"]["tasks"]
    ]
    assert set(ours) == set(theirs)
    for stream in ("stdout", "stderr"):
        response = recorded(name, stream)["response"]
        text = response.get("text", json.dumps(response.get("json", "")))
        ours_text = call("GET", f"/jobs/{job}/{stream}").content.decode(errors="replace")
        if "characters in all>" not in text and "drwx" not in text:  # cut recordings, listings with dates and owners
            assert ours_text == text


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_the_real_service_without_a_word_is_refused(
    name: str, call: Callable[..., requests.Response]
) -> None:
    body = recorded(name, "create")["request"]["json"]
    if name == "odd-cmd-verylong":
        body["tasks"][0]["cmd"] = "echo " + "x" * 140_000
    answer = call("POST", "/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "name",
    ["dag", "dag-fail", "repeat", "sweep-step", "sweep-2d", "zip-onebad", "zip1-5", "zip2-output-by-last-param"],
)
def test_a_workflow_ends_as_it_did_on_the_real_service(name: str, call: Callable[..., requests.Response]) -> None:
    name = f"workflow-{name}"
    created = call("POST", "/workflows", json=recorded(name, "create")["request"]["json"])
    assert created.status_code == 201, created.text
    workflow = created.json()["id"]
    ours = await_end(call, f"/workflows/{workflow}")
    theirs = recorded(name, "describe")["response"]["json"][0]
    for key in ("name", "status", "progress", "jobs", "factories", "dependencies", "labels"):
        assert ours.get(key) == theirs.get(key), key
    assert set(ours) == set(theirs)
    path = "jobs-all-detail" if (WIRE / f"{name}-jobs-all-detail.json").exists() else "jobs-detail"
    listed = call("GET", "/jobs", params={"workflow": "true", "id": workflow, "all": "true", "detail": "true"}).json()
    wanted = {job["name"]: job for job in recorded(name, path)["response"]["json"] if isinstance(job, dict)}
    assert {job["name"] for job in listed} >= set(wanted)
    for job in listed:
        if job["name"] in wanted:
            theirs = wanted[job["name"]]
            assert (job["status"], job.get("parameters")) == (theirs["status"], theirs.get("parameters"))
            if name != "workflow-repeat":  # whose instances overwrite one another's outputs there
                assert outputs(job) == outputs(theirs)


ACCEPTED_VALUES = ("big", "bool", "colon", "comma", "dollar", "float", "neg", "percent", "semicolon", "slash", "small",
                   "trail0", "unicode")  # fmt: skip
REFUSED_VALUES = ("b64", "backslash", "dquote", "empty", "equals", "list", "space", "squote")


@pytest.mark.parametrize("value", ACCEPTED_VALUES + REFUSED_VALUES)
def test_values_of_a_zip_arrive_as_they_are_or_are_refused(value: str, call: Callable[..., requests.Response]) -> None:
    body = recorded(f"workflow-zipvalue-{value}", "create")["request"]["json"]
    answer = call("POST", "/workflows", json=body)
    if value in REFUSED_VALUES:
        assert answer.status_code == 400
        assert "zip factory" in answer.json()["error"]
        return
    workflow = answer.json()["id"]
    assert await_end(call, f"/workflows/{workflow}")["status"] == "completed"
    job = call("GET", "/jobs", params={"workflow": "true", "id": workflow, "all": "true"}).json()[0]["id"]
    text = str(body["factories"][0]["parameters"][0]["values"][0])
    assert call("GET", f"/jobs/{job}/stdout").content.decode() == f"{[text]} {[text]}\n"
