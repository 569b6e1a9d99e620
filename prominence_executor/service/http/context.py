"""What all views share: the state they answer from, error answers, and reading the query string.

The real service answers an HTML page where a number was expected; here that is a 400 and a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import Response, current_app, g, jsonify, request
from werkzeug.local import LocalProxy

from ..execution.context import ServiceContext
from ..execution.scheduler import Scheduler
from ..execution.workflows import Workflows
from ..sandbox.staging import upload_key
from ..schema.items import Refused
from ..state.objects import PIECE
from ..state.pairs import Pairs
from ..state.store import Store
from ..state.tokens import OUTPUT_SECONDS, Identity
from .costs import RequestCosts

BASE = "/prominence/v1"


@dataclass(frozen=True)
class Api:
    """What views answer from."""

    service: ServiceContext
    store: Store
    scheduler: Scheduler
    workflows: Workflows
    pairs: Pairs
    costs: RequestCosts

    @property
    def object_base(self) -> str:
        """Return the URL below which signed objects lie."""
        return self.service.url.removesuffix(BASE)

    def output_url(self, key: str) -> str:
        """Sign the URL of an output."""
        return self.service.signer.signed_url(self.object_base, "GET", key, OUTPUT_SECONDS)

    def uploaded(self, name: str) -> bool:
        """Return whether the asking user may use an uploaded object of this name."""
        return owns(name) and self.service.objects.exists(upload_key(me().username, name))


# The asking application's; views use it as if it were a plain object.
api = cast(Api, LocalProxy(lambda: current_app.extensions["prominence"]))


def me() -> Identity:
    """Return who is asking."""
    identity: Identity = g.identity
    return identity


def owns(name: str) -> bool:
    """Return whether the user may use a name: one with a slash lies in a group's place, for its members."""
    owner, slash, _ = name.partition("/")
    return not slash or owner in (*me().groups, me().username)


def refuse(sentence: str, status: int = 400) -> tuple[Response, int]:
    """Return an error with a sentence."""
    return jsonify({"error": sentence}), status


def flag(name: str) -> bool:
    """Read a truth value of the query string."""
    return request.args.get(name, "").lower() in ("true", "1", "yes")


def whole(name: str, default: int, least: int | None = None) -> int:
    """Read an integer of the query string. Raises Refused."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or (least is not None and int(text) < least):
        raise Refused(f"{name} must be an integer" + ("" if least is None else f" of at least {least}"))
    return int(text)


def wholes(name: str) -> list[int] | None:
    """Read integers separated by commas. Raises Refused."""
    text = request.args.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", text):
        raise Refused(f"{name} must be an integer or a list of integers separated by commas")
    return [int(number) for number in text.split(",")]


def constraint() -> tuple[str, str] | None:
    """Read a label, as `key=value`. Raises Refused."""
    text = request.args.get("constraint")
    if text is None:
        return None
    found = re.fullmatch(r"([a-zA-Z0-9]+)=([\w./\-]+)", text)
    if found is None:
        raise Refused("Invalid constraint")
    return found[1], found[2]


def raw(path: Path, offset: int) -> Response:
    """Return the bytes of a log file from an offset up to its present end; '' when there is none."""
    size = max(0, path.stat().st_size - offset) if path.exists() else 0

    def pieces() -> Iterator[bytes]:
        left = size
        with open(path, "rb") as file:
            file.seek(offset)
            while left and (piece := file.read(min(left, PIECE))):
                left -= len(piece)
                yield piece

    answer = Response(pieces() if size else b"", content_type="text/html; charset=utf-8")
    answer.content_length = size
    return answer
