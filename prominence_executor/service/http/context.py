"""What all views share: the request as they see it, the state they answer from, answers, and reading the query string.

Views know nothing of the server: they take an `Ask` and return an `Answer`. Those that are plain functions run in a
thread and may block; those that are coroutines run in the server's event loop, hold no thread while they wait, and may
not block (`Ask.run` is for what does).

The real service answers an HTML page where a number or JSON was expected; here that is a sentence.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from typing import Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import parse_qsl

from aiohttp import web

from ..execution.context import ServiceContext
from ..execution.scheduler import Scheduler
from ..execution.workflows import Workflows
from ..sandbox.staging import upload_key
from ..schema.bounds import MOST_IDS
from ..schema.document import read_document
from ..schema.items import Refused
from ..state.pairs import Pairs
from ..state.store import Store
from ..state.tokens import OUTPUT_SECONDS, Identity
from .costs import RequestCosts
from .waiting import Changes

BASE = "/prominence/v1"
JSON = "application/json"
TEXT = "text/html; charset=utf-8"  # which the real service calls every text

# What the real service's pages say.
_TEXTS = {
    404: "The requested URL was not found on the server.",
    405: "The method is not allowed for the requested URL.",
    413: "The data value transmitted exceeds the capacity limit.",
    415: "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
}
_NAMES = {413: "Request Entity Too Large"}  # newer versions of Python call it otherwise

Result = TypeVar("Result")


@dataclass(frozen=True)
class Api:
    """What views answer from."""

    service: ServiceContext
    store: Store
    scheduler: Scheduler
    workflows: Workflows
    pairs: Pairs
    changes: Changes
    costs: RequestCosts

    @property
    def object_base(self) -> str:
        """Return the URL below which signed objects lie."""
        return self.service.url.removesuffix(BASE)

    def output_url(self, key: str) -> str:
        """Sign the URL of an output."""
        return self.service.signer.signed_url(self.object_base, "GET", key, OUTPUT_SECONDS)


@dataclass(frozen=True)
class Answer:
    """An answer: its body, or an open file of which `length` bytes are sent from where it stands, and then closed."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    file: BinaryIO | None = None
    length: int = 0


class Aborted(Exception):
    """Ends a view with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Ask:
    """One request, as views see it. The body is there, unless the view reads it from the request by itself."""

    def __init__(self, api: Api, request: web.BaseRequest, query: str, pool: Executor) -> None:
        self.api = api
        self.request = request
        self.headers = request.headers
        self.body = b""
        self.identity: Identity | None = None
        self._query, self._pool = query, pool

    @cached_property
    def args(self) -> dict[str, str]:
        """The query string; of several values of one name the first."""
        found: dict[str, str] = {}
        for name, value in parse_qsl(self._query, keep_blank_values=True, errors="replace"):
            found.setdefault(name, value)
        return found

    @property
    def me(self) -> Identity:
        """Return who is asking."""
        if self.identity is None:
            raise LookupError("nobody asks where no token is wanted")
        return self.identity

    def json(self) -> Any:
        """Return the body's document. Raises Refused when it is none, and Aborted when it is not called so."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
            abort(415)
        return read_document(self.body)

    async def run(self, function: Callable[..., Result], *values: Any) -> Result:
        """Await what blocks, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *values)

    def owns(self, name: str) -> bool:
        """Return whether the user may use a name: one with a slash lies in a group's place, for its members."""
        owner, slash, _ = name.partition("/")
        return not slash or owner in (*self.me.groups, self.me.username)

    def uploaded(self, name: str) -> bool:
        """Return whether the asking user may use an uploaded object of this name."""
        return self.owns(name) and self.api.service.objects.exists(upload_key(self.me.username, name))

    # The query string

    def flag(self, name: str) -> bool:
        """Read a truth value of the query string."""
        return self.args.get(name, "").lower() in ("true", "1", "yes")

    def whole(self, name: str, default: int, least: int | None = None) -> int:
        """Read an integer of the query string. Raises Refused."""
        text = self.args.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or (least is not None and int(text) < least):
            raise Refused(f"{name} must be an integer" + ("" if least is None else f" of at least {least}"))
        return int(text)

    def wholes(self, name: str) -> list[int] | None:
        """Read integers separated by commas. Raises Refused."""
        text = self.args.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", text):
            raise Refused(f"{name} must be an integer or a list of integers separated by commas")
        if text.count(",") >= MOST_IDS:
            raise Refused(f"{name} must be at most {MOST_IDS} integers")
        return [int(number) for number in text.split(",")]

    def constraint(self) -> tuple[str, str] | None:
        """Read a label, as `key=value`. Raises Refused."""
        text = self.args.get("constraint")
        if text is None:
            return None
        found = re.fullmatch(r"([a-zA-Z0-9]+)=([\w./\-]+)", text)
        if found is None:
            raise Refused("Invalid constraint")
        return found[1], found[2]


def jsonify(value: Any, status: int = 200) -> Answer:
    """Return a JSON answer, written as the real service writes it."""
    return Answer(status, (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode())


def refuse(sentence: str, status: int = 400) -> Answer:
    """Return an error with a sentence."""
    return jsonify({"error": sentence}, status)


def failure(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error that has no sentence of its own."""
    name = _NAMES.get(status) or HTTPStatus(status).phrase
    text = _TEXTS.get(status) or HTTPStatus(status).description
    return replace(refuse(f"{status} {name}: {text}", status), headers=headers or {})


def abort(status: int) -> NoReturn:
    """End a view with an error."""
    raise Aborted(failure(status))
