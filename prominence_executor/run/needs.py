"""What a journal keeps of calls that need results of others, beside their pickles: as text, in JSON.

Pure functions. A future of the run itself is kept as the number of its call; any other one ends with its program.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ..errors import NotSubmittedError
from ..payload.calls import Payload
from ..payload.dependencies import StoredResult, Value, Waits
from .future import ProminenceFuture, call_of, need, settle


@dataclass(frozen=True)
class Needs:
    """What a call needs.

    Attributes:
        results: that its job fetches.
        waits: what it waits for, without the futures.
        calls: in their place, by the numbers in its pickle, calls of the run; None for another future.
    """

    results: frozenset[StoredResult] = frozenset()
    waits: Waits | None = None
    calls: Mapping[int, int | None] | None = None

    def added_to(self, payload: Payload) -> Payload:
        """Return a payload that a journal has kept, with what its calls need."""
        return replace(payload, results=self.results, waits=self.waits)


def kept_needs(run_id: str, payload: Payload) -> str | None:
    """Return what is to be kept; None where there is nothing."""
    waits = payload.waits
    if waits is None and not payload.results:
        return None
    kept: dict[str, Any] = {"results": [item.plain() for item in payload.results]}
    if waits is not None:
        kept["waits"] = {
            "calls": {number: _number(run_id, future) for number, future in waits.futures.items()},
            "known": {number: _plain_value(value) for number, value in waits.known.items()},
            "modules": sorted(waits.modules),
            "data_limit": waits.data_limit,
        }
    return json.dumps(kept)


def needs_from(text: str) -> Needs:
    """Invert `kept_needs`."""
    kept = json.loads(text)
    results = frozenset(StoredResult.from_plain(plain) for plain in kept["results"])
    found = kept.get("waits")
    if found is None:
        return Needs(results)
    known = {int(number): _value(plain) for number, plain in found["known"].items()}
    waits = Waits({}, known, frozenset(found["modules"]), frozenset(), found["data_limit"])
    return Needs(results, waits, {int(number): call for number, call in found["calls"].items()})


def found_again(payload: Payload, needs: Needs, calls: Mapping[int, ProminenceFuture[Any]]) -> Payload:
    """Return a kept payload, which waits for the run's futures again; ``calls`` are these by their numbers."""
    if payload.waits is None or needs.calls is None:
        return payload
    futures: dict[int, Future[Any]] = {}
    for number, call in needs.calls.items():
        future = calls.get(-1 if call is None else call) or _lost()
        need(future)
        futures[number] = future
    return replace(payload, waits=replace(payload.waits, futures=futures))


def _number(run_id: str, future: Future[Any]) -> int | None:
    found = call_of(future)
    return found[1] if found is not None and found[0] == run_id else None


def _lost() -> ProminenceFuture[Any]:
    """Return what stands for a future that was none of the run's."""
    future: ProminenceFuture[Any] = ProminenceFuture()
    settle(future, False, NotSubmittedError("it was no future of this run, and has ended with its program"))
    return future


def _plain_value(value: Value) -> dict[str, Any]:
    content = value.content
    return {
        "pickle": None if isinstance(content, str) else base64.b64encode(content).decode("ascii"),
        "apart": content if isinstance(content, str) else None,
        "modules": sorted(value.modules),
        "stored": value.stored and value.stored.plain(),
    }


def _value(plain: Mapping[str, Any]) -> Value:
    content = plain["apart"] if plain["pickle"] is None else base64.b64decode(plain["pickle"])
    stored = plain["stored"] and StoredResult.from_plain(plain["stored"])
    return Value(content, frozenset(plain["modules"]), stored=stored)
