"""What networks and services do to a request: the faults that the proxy of proxy.py injects, each by its name.

A fault acts upon an exchange; it knows neither sockets nor when it is its turn.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy import Exchange


@dataclass
class Answer:
    """A whole answer of the service, or one in its place. Its length is not among the headers."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_json(self) -> bool:
        return any(name.lower() == "content-type" and "json" in value for name, value in self.headers)


@dataclass(frozen=True)
class Fault:
    """What to do with a request instead of forwarding it, and the name by which it is counted."""

    name: str
    act: Callable[[Exchange], None]


def reset_before() -> Fault:
    """The connection is reset; the service never sees the request."""
    return Fault("reset before", lambda exchange: exchange.reset())


def reset_after() -> Fault:
    """The service carries the request out, then the connection is reset."""

    def act(exchange: Exchange) -> None:
        exchange.forward()
        exchange.reset()

    return Fault("reset after", act)


def dropped() -> Fault:
    """The service carries the request out, then the connection is closed without an answer."""

    def act(exchange: Exchange) -> None:
        exchange.forward()
        exchange.close()

    return Fault("dropped", act)


def hang(seconds: float | None = None) -> Fault:
    """Nothing happens: for some seconds, then the connection is reset; or as long as the proxy stands."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        exchange.pause(seconds)
        exchange.reset()

    return Fault("hang", act)


def late(seconds: float) -> Fault:
    """The client gets a reset at once, but the request reaches the service some seconds later all the same."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        exchange.reset()
        if exchange.pause(seconds):
            exchange.forward()

    return Fault("late", act)


def status(code: int, *, retry_after: float | str | None = None, forwarded: bool = False, body: str = "") -> Fault:
    """An answer with this status in place of the service's, whether or not the service saw the request.

    ``retry_after``: what its header says: seconds, or whatever.
    """

    def act(exchange: Exchange) -> None:
        exchange.forward() if forwarded else exchange.read()
        page = body or f"<html><head><title>{code} Not Now</title></head><body>something is wrong</body></html>"
        headers = [("Content-Type", "application/json" if body else "text/html")]
        if retry_after is not None:
            headers.append(("Retry-After", retry_after if isinstance(retry_after, str) else f"{retry_after:g}"))
        exchange.answer(Answer(code, headers, page.encode()))

    return Fault(f"{code} {'after' if forwarded else 'before'}", act)


def refused_token(token: str | None = None) -> Fault:
    """The service's own answer to a token that has expired: to any token, or to one."""
    refusal = status(401, body='{"error": "Authentication failure"}')

    def act(exchange: Exchange) -> None:
        if token is None or exchange.headers.get("Authorization") == f"Bearer {token}":
            refusal.act(exchange)
        else:
            exchange.answer(exchange.forward())

    return Fault("401", act)


def html(*, forwarded: bool = False) -> Fault:
    """An error page, but with status 200, as some portals and balancers do."""
    return Fault("html 200", status(200, forwarded=forwarded).act)


def truncated() -> Fault:
    """Half of the body that was announced, then the end."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        half = Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
        exchange.answer(half, announced=max(len(answer.body), 1))
        exchange.close()

    return Fault("truncated", act)


def shortened() -> Fault:
    """Half of the body, announced as if it were all."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.answer(Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))

    return Fault("shortened", act)


def corrupted(at: int | None = None) -> Fault:
    """A body in which the highest bit of some bytes is flipped: at random places, or at one.

    JSON of this service is ASCII, so that it cannot be read any more. (A number changed into another number is
    nothing that a reader of JSON could notice; see `edited`.)
    """

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        body = bytearray(answer.body)
        places = [at] if at is not None else exchange.some_of(range(len(body)), 1 + len(body) // 200)
        for place in places:
            body[place] ^= 0x80
        exchange.answer(Answer(answer.status, answer.headers, bytes(body)))

    return Fault("corrupted", act)


def dripped(seconds: float) -> Fault:
    """An answer that comes in small pieces over some seconds."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.answer(Answer(answer.status, answer.headers, b""), announced=len(answer.body))
        size = max(1, len(answer.body) // 20)
        for start in range(0, len(answer.body), size):
            exchange.pause(seconds / 20)
            exchange.write(answer.body[start : start + size])

    return Fault("slow drip", act)


def slow(seconds: float) -> Fault:
    """The answer, but some seconds later: the service is busy."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        if exchange.pause(seconds):
            exchange.answer(answer)

    return Fault("slow", act)


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Fault:
    """A successful answer whose body has been changed, with the length that it then has."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        if answer.status // 100 == 2:
            answer.body = change(answer.body)
        exchange.answer(answer)

    return Fault(name, act)


def edited(name: str, change: Callable[[Any], Any]) -> Fault:
    """A successful answer whose JSON has been changed."""
    return rewritten(name, lambda body: json.dumps(change(json.loads(body))).encode())


def relisted(name: str, change: Callable[[list[Any]], list[Any]]) -> Fault:
    """A successful list that has been changed; what is no list stays as it is."""
    return edited(name, lambda content: change(content) if isinstance(content, list) else content)


ODD_PAUSES = (
    "3600",
    "9" * 400,
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -0000",
    "\u00b2",
    "-1",
    "nan",
)
"""What services and balancers have been seen to say of when to try again, and what they could say as well."""


def told_to_wait() -> Fault:
    """A 503 that asks to be tried again after an hour, in a thousand years, or at no time at all: each in turn."""
    pauses = itertools.cycle(ODD_PAUSES)

    def act(exchange: Exchange) -> None:
        status(503, retry_after=next(pauses)).act(exchange)

    return Fault("odd Retry-After", act)


def _items(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Change each item of a list, or the one object that an answer is."""

    def changed(content: Any) -> Any:
        if isinstance(content, list):
            return [change(item) if isinstance(item, dict) else item for item in content] or [change({})]
        return change(content) if isinstance(content, dict) else None

    return changed


ODD_SHAPES: dict[str, Callable[[Any], Any]] = {
    "[null]": lambda content: [None],
    "[{}]": lambda content: [{}],
    "null": lambda content: None,
    "a number": lambda content: 7,
    "items in place of an object, and the other way round": lambda content: {} if isinstance(content, list) else [],
    "no id": _items(lambda item: {key: value for key, value in item.items() if key not in ("id", "name", "url")}),
    "ids as strings": _items(lambda item: {**item, "id": str(item.get("id")), "url": ["x"], "size": "1"}),
    "negative ids": _items(lambda item: {**item, "id": -1, "url": "", "size": -1}),
    "ids true": _items(lambda item: {**item, "id": True, "url": True, "size": True}),
    "no status": _items(lambda item: {"id": str(item.get("id"))}),
    "nested deeply": lambda content: json.loads("[" * 300 + "]" * 300),
}


def misshapen(*kinds: str) -> Fault:
    """A successful answer whose JSON has another shape: each of these kinds of `ODD_SHAPES` in turn, or all of them.

    What is no JSON stays as it is, and so does what lists no more than strings.
    """
    in_turn = itertools.cycle(kinds or ODD_SHAPES)

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        if answer.status // 100 == 2 and answer.is_json and answer.body not in (b"{}", b"{}\n"):
            answer.body = json.dumps(ODD_SHAPES[next(in_turn)](json.loads(answer.body))).encode()
        exchange.answer(answer)

    return Fault("misshapen", act)


def too_deep() -> Fault:
    """JSON that is nested so deeply that it takes a reader's stack to its end."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        if answer.is_json:
            answer.body = b"[" * 200_000 + b"]" * 200_000
        exchange.answer(answer)

    return Fault("too deep", act)


def bomb() -> Fault:
    """An answer that is small on its way, and 300 MB when it is unpacked."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        packed = _bomb(300)
        exchange.answer(Answer(answer.status, [*answer.headers, ("Content-Encoding", "gzip")], packed))

    return Fault("gzip bomb", act)


@lru_cache
def _bomb(megabytes: int) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        for _ in range(megabytes):
            file.write(b" " * 1_000_000)
    return buffer.getvalue()


def endless() -> Fault:
    """An answer that begins as it should, and then does not end; no length is announced."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.answer_without_end(answer)

    return Fault("endless", act)


def omitting() -> Fault:
    """A list without every second of its jobs, the first among them."""
    return relisted("list omits", lambda jobs: jobs[1::2])


def naming_twice() -> Fault:
    """A list with every job twice, the second time as if it were still idle."""
    return relisted("list names twice", lambda jobs: jobs + [{**job, "status": "idle"} for job in jobs])


def unknown_status() -> Fault:
    """A list in which every job has a status that nobody knows."""
    return relisted("unknown status", lambda jobs: [{**job, "status": "pondering"} for job in jobs])


def held(name: str = "") -> Fault:
    """Lists and descriptions in which jobs of such names are held, as the service shows it: failed, without an end.

    ``name``: a pattern; all jobs, or workflows, by default.
    """

    def change(jobs: list[Any]) -> list[Any]:
        for job in jobs:
            if re.search(name, str(job.get("name"))):
                job["status"] = "failed"
                job.pop("statusReason", None)
                job["events"].pop("endTime", None)
                job.get("execution", {}).pop("tasks", None)
                for output in job.get("outputFiles", ()):
                    output["url"] = ""
        return jobs

    return relisted("held", change)


def away(seconds: float) -> Fault:
    """This connection and all others are reset, and new ones are refused for some seconds."""

    def act(exchange: Exchange) -> None:
        exchange.reset()
        exchange.proxy.refuse(seconds)

    return Fault("refused", act)
