"""Listens to all requests of a program, in a proxy before the real service, and tells which kinds there were.

    with Listener(service.url) as listener:
        ProminenceExecutor(listener.url, service.token)
    listener.summary(run_id)

A summary has the number of each request that changes something or fetches a result, and of polls, whose number depends
on the clock, that there were some. Warm workers of a service that tells its jobs a listener's URL are heard, too.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote

from formats import (
    by_kind,
    content,
    joined,
    paths,
    record_headers,
    runner_members,
    spelled,
    spoken,
    unsealed,
    without_numbers,
)
from proxy import Exchange, Fault, FaultProxy

_VALUES_THAT_VARY = ("id", "node", "offset", "Expires", "Signature")


@dataclass(frozen=True)
class Request:
    """One request and its answer."""

    method: str
    path: str  # below the API's base, or of an object in the store
    query: dict[str, str]
    sender: str  # "client" or "worker"
    to_the_store: bool
    in_part: bool  # it asks for a range of bytes
    body: bytes
    answer: bytes

    def kind(self, run_id: str) -> str:
        """Method, path and query, with words in place of what differs from run to run."""
        if self.to_the_store:
            name = spelled(self.path.rpartition("/")[2], run_id)
            return f"{self.method} {'part of ' if self.in_part else ''}object {name}"
        path = spelled(unquote(self.path), run_id)
        path = without_numbers(path) if path.startswith("/kv/") else re.sub(r"/\d+(?=/|$)", "/ID", path)
        asked = sorted(
            key if key in _VALUES_THAT_VARY else f"{key}={spelled(value, run_id)}"
            for key, value in self.query.items()
            if key != "since"  # how far somebody has seen: it depends on chance whether a request says that
        )
        return f"{self.method} {path}" + (f"?{'&'.join(asked)}" if asked else "")


class Listener:
    """A proxy that keeps all requests, from ``with`` to its end."""

    def __init__(self, service_url: str) -> None:
        self._proxy = FaultProxy(service_url)
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._proxy.inject(Fault("kept", self._keep))

    @property
    def url(self) -> str:
        return self._proxy.url

    def __enter__(self) -> Listener:
        self._proxy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._proxy.__exit__(kind, error, trace)

    def _keep(self, exchange: Exchange) -> None:
        body, answer = exchange.read(), exchange.forward()
        path, _, query = exchange.target.partition("?")
        ours = str(exchange.headers.get("User-Agent", "")).startswith("prominence-executor/")
        request = Request(
            exchange.method,
            path,
            dict(parse_qsl(query)),
            sender="client" if ours else "worker",
            to_the_store=not exchange.path.startswith(f"{self._proxy.base}/"),
            in_part="Range" in exchange.headers,
            body=body,
            answer=answer.body,
        )
        with self._lock:
            self._requests.append(request)  # before its sender has the answer: what it asked is here when it goes on
        exchange.answer(answer)

    def requests(self, method: str, path: str, sender: str = "client") -> list[Request]:
        """Those of a method, whose path matches as a whole."""
        with self._lock:
            heard = list(self._requests)
        return [
            item
            for item in heard
            if (item.method, item.sender) == (method, sender) and re.fullmatch(path, unquote(item.path))
        ]

    # -- what there was ----------------------------------------------------------------------------------------------

    def summary(self, run_id: str, perhaps: frozenset[str]) -> dict[str, Any]:
        """All that is compared; ``perhaps`` names the kinds of polls that may be, or not."""
        found = {
            **self._kinds(run_id, perhaps),
            "jobs": self._descriptions("/jobs", run_id),
            "workflows": self._descriptions("/workflows", run_id),
            "uploads": self._uploads(run_id),
            "bodies of other requests": self._bodies(run_id),
            "outcomes": self._outcomes(run_id),
            "mailboxes": self._mailboxes(run_id),
        }
        return {what: told for what, told in found.items() if told}

    def _kinds(self, run_id: str, perhaps: frozenset[str]) -> dict[str, Any]:
        counted = Counter(item.kind(run_id) for item in self._requests if not _is_poll(item))
        polls = {(item.sender, item.kind(run_id)) for item in self._requests if _is_poll(item)}
        return {
            "requests": dict(sorted(counted.items())),
            "polls": sorted(kind for sender, kind in polls if sender == "client" and kind not in perhaps),
            "polls of workers": sorted(kind for sender, kind in polls if sender == "worker" and kind not in perhaps),
            "polls, perhaps": sorted(perhaps),
        }

    def _descriptions(self, path: str, run_id: str) -> dict[str, Any]:
        """Names of what was created, and what the descriptions are like, which may be the same for many."""
        bodies = [json.loads(item.body) for item in self.requests("POST", path)]
        unique = {json.dumps(_description(body, run_id)) for body in bodies}
        names = sorted(spelled(body["name"], run_id) for body in bodies)
        return {"names": names, "described": [json.loads(text) for text in sorted(unique)]} if bodies else {}

    def _uploads(self, run_id: str) -> dict[str, Any]:
        found = {}
        for item in self.requests("PUT", ".*"):
            if item.to_the_store:
                found[spelled(item.path.rpartition("/")[2], run_id)] = content(item.body, run_id)
        return dict(sorted(found.items()))

    def _bodies(self, run_id: str) -> dict[str, list[str]]:
        """The keys of JSON that is neither a job nor a workflow."""
        found: dict[str, list[str]] = {}
        for item in self.requests("POST", "/(?!kv/|jobs$|workflows$).*"):
            if item.body.startswith(b"{"):
                found[item.kind(run_id)] = sorted(paths(json.loads(item.body), run_id))
        return dict(sorted(found.items()))

    def _outcomes(self, run_id: str) -> dict[str, list[str]]:
        """The headers of records, from the files that were fetched, workers' messages and their standard output."""
        files = [item.answer for item in self.requests("GET", ".*/pxoutcome") if not item.in_part]
        messages = [body for box, _, body in self._messages() if "/o/" in box]
        printed = [body for item in self.requests("GET", r"/jobs/\d+/stdout") for _, body in spoken(item.answer)]
        headers = [header for data in (*files, *messages, *printed) for header in record_headers(data)]
        return by_kind(headers, run_id)

    def _mailboxes(self, run_id: str) -> dict[str, Any]:
        """The keys that were written, and the headers of the messages below them."""
        found: dict[str, set[str]] = {}
        for box, header, _ in self._messages():
            if header.get("final", True):  # news of a call that takes long
                found.setdefault(without_numbers(spelled(box, run_id)), set()).update(paths(header, run_id))
        for item in self.requests("GET", r"/jobs/\d+/stdout"):
            for header, _ in spoken(item.answer):
                found.setdefault("standard output", set()).update(paths(header, run_id))
        return {box: sorted(found[box]) for box in sorted(found)}

    def _messages(self) -> list[tuple[str, dict[str, Any], bytes]]:
        """What client and workers have written into mailboxes: (mailbox, header, body)."""
        found, parts = [], {}
        for sender in ("client", "worker"):
            for item in self.requests("POST", "/kv/.*", sender):
                box, value = unquote(item.path).removeprefix("/kv/"), item.body.decode()
                if ":" not in value:  # a call that is to be ended
                    found.append((box, *unsealed(value)))
                    continue
                parts[box] = value
                if box.endswith("/0"):  # the part that is written last
                    found += [(box, *unsealed(text)) for box, text in joined(parts)]
                    parts = {}
        return found

    def members(self) -> list[list[str]]:
        """What the runners' archives that were sent consist of."""
        sent = [item.body for item in self.requests("PUT", ".*")]
        for path in ("/jobs", "/workflows"):
            for item in self.requests("POST", path):
                sent += [data for job in _jobs_in(json.loads(item.body)) for data in _inputs(job).values()]
        found = {tuple(members) for data in sent if (members := runner_members(data))}
        return [list(members) for members in sorted(found)]


def _is_poll(item: Request) -> bool:
    """Whether the clock says how many of them there are."""
    if item.path.startswith("/kv"):
        return item.method == "GET" or item.sender == "worker" or "/o/" in item.path
    return item.method == "GET" and not item.to_the_store


def _description(body: dict[str, Any], run_id: str) -> dict[str, Any]:
    """The keys of a job's or a workflow's JSON, and the values that are the same in every run."""
    jobs = _jobs_in(body)
    for task in [task for job in jobs for task in job["tasks"] if "env" in task]:
        task["env"].pop("PROMINENCE_URL", None)  # a listener's
        if not task["env"]:
            del task["env"]
    found = {
        "keys": sorted(paths(body, run_id)),
        "labels": _labels(body, run_id),
        "labels inside": [_labels(job, run_id) for job in body.get("jobs", ())],
        "commands": [task.get("cmd") for job in jobs for task in job["tasks"]],
        "outputs": [name for job in jobs for name in job.get("outputFiles", ())],
        "artifacts": [spelled(artifact["url"], run_id) for job in jobs for artifact in job.get("artifacts", ())],
        "inputs": {
            spelled(name, run_id): content(data, run_id) for job in jobs for name, data in sorted(_inputs(job).items())
        },
        "factories": [
            {key: factory[key] for key in ("name", "type", "jobs")}
            | {"parameters": [parameter["name"] for parameter in factory["parameters"]]}
            for factory in body.get("factories", ())
        ],
    }
    return {what: told for what, told in found.items() if told}


def _labels(description: dict[str, Any], run_id: str) -> dict[str, str]:
    labels = description.get("labels", {})
    return {spelled(name, run_id): spelled(value, run_id) for name, value in sorted(labels.items())}


def _jobs_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = body.get("jobs") or [body]
    return jobs


def _inputs(job: dict[str, Any]) -> dict[str, bytes]:
    return {item["filename"]: base64.b64decode(item["content"]) for item in job.get("inputs", ())}
