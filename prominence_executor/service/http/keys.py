"""/kv: small texts under keys, private to a user and the user's jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial

from ..schema.bounds import LONGEST_KEY
from .context import BASE, TEXT, Answer, Ask, jsonify, refuse
from .preferences import answered
from .routes import Routes
from .transfer import LARGEST_BODY, read_body
from .waiting import Topic

LARGEST_LISTING = 4 << 20  # bytes as they are stored; the service lists through etcd, whose answers are limited
LARGEST_VALUE = 15967  # bytes; the service measures a Python object of 16,000
_TOO_LARGE = "Unable to access key-value store"  # the real service's sentence when its store does not answer

routes = Routes()


@routes.get(f"{BASE}/kv")
@routes.get(f"{BASE}/kv/<path:key>")
async def get_value(ask: Ask, key: str = "") -> Answer:
    """Return a value, or a list of keys; see preferences.py for one that waits."""
    listed = ask.flag("list")
    if not key and not listed:
        return refuse("Key not specified")
    if not listed:
        return await answered(ask, _topic(ask, key, prefix=False), partial(_soon, ask, partial(_value, ask, key)))
    values = ask.flag("values")
    look, glance = partial(_listing, ask, key, values), partial(_short_listing, ask, key, values)
    return await answered(ask, _topic(ask, key, prefix=True), partial(_soon, ask, look, glance=glance))


@routes.post(f"{BASE}/kv")
@routes.post(f"{BASE}/kv/<path:key>")
async def set_value(ask: Ask, key: str = "") -> Answer:
    """Set or replace a value."""
    content = await read_body(ask.request, LARGEST_BODY)
    if not key:
        return refuse("Key not specified")
    if not content:
        return refuse("No value provided")
    if len(content) > LARGEST_VALUE:
        return refuse("Content of value too large")
    if len(key.encode()) > LONGEST_KEY:
        return refuse(f"the key must be at most {LONGEST_KEY} bytes in length")
    try:
        value = content.decode()
    except UnicodeDecodeError:
        # The real service stores it, and then can neither return it nor list its neighbours.
        return refuse("The value must be UTF-8 text")
    answer = await _soon(ask, partial(_store, ask, key, value, ask.args.get("prev")), writes=True)
    await asyncio.sleep(0)  # who waits for the value hears of it first
    return answer


@routes.delete(f"{BASE}/kv")
@routes.delete(f"{BASE}/kv/<path:key>")
async def delete_value(ask: Ask, key: str = "") -> Answer:
    """Delete a key, or all that begin so."""
    if not key:
        return refuse("Key not specified")
    if not ask.flag("prefix"):
        return await _soon(ask, partial(_delete, ask, key, prefix=False), writes=True)
    work = partial(_delete, ask, key, prefix=True)
    return await _soon(ask, work, glance=partial(_short_delete, ask, key), writes=True)


async def _soon(
    ask: Ask,
    work: Callable[[], Answer],
    *,
    glance: Callable[[], Answer | None] | None = None,
    writes: bool = False,
) -> Answer:
    """Do what SQLite does in a moment here in the event loop, which is faster than a thread that is told to.

    What may take longer goes into a thread: where somebody uses the database now, or where a ``glance``, which takes a
    moment, finds too much for it and returns None.
    """
    with ask.api.store.at_hand(writes) as free:
        if free:
            answer = work() if glance is None else glance()
            if answer is not None:
                return answer
    return await ask.run(work)


def _topic(ask: Ask, key: str, *, prefix: bool) -> Topic:
    return Topic(("kv", ask.me.username), key, prefix)


def _value(ask: Ask, key: str) -> Answer:
    value = ask.api.pairs.get(ask.me.username, key)
    if value is None:
        return refuse("No such key", 404)
    return Answer(content_type=TEXT, body=value.encode())


def _store(ask: Ask, key: str, value: str, previous: str | None) -> Answer:
    """Set a value; or, given a previous one, replace exactly that one in one step (never create)."""
    if previous is None:
        ask.api.pairs.set(ask.me.username, key, value)
    elif not ask.api.pairs.replace(ask.me.username, key, previous, value):
        return refuse("Atomic replacement not successful")
    ask.api.changes.announce(_topic(ask, key, prefix=False))
    return jsonify({}, 201)


def _short_delete(ask: Ask, prefix: str) -> Answer | None:
    return _delete(ask, prefix, prefix=True) if ask.api.pairs.few_under(ask.me.username, prefix) is not None else None


def _delete(ask: Ask, key: str, *, prefix: bool) -> Answer:
    delete = ask.api.pairs.delete_prefix if prefix else ask.api.pairs.delete
    if delete(ask.me.username, key):
        ask.api.changes.announce(_topic(ask, key, prefix=prefix))
    return jsonify({})


def _listing(ask: Ask, prefix: str, values: bool) -> Answer:
    """Return keys with a leading slash, in order; with values, each as an object of its own."""
    if ask.api.pairs.stored(ask.me.username, prefix) > LARGEST_LISTING:  # not read before that is known
        return refuse(_TOO_LARGE)
    return _listed(ask.api.pairs.under(ask.me.username, prefix), values)


def _short_listing(ask: Ask, prefix: str, values: bool) -> Answer | None:
    pairs = ask.api.pairs.few_under(ask.me.username, prefix)
    return None if pairs is None else _listed(pairs, values)


def _listed(pairs: list[tuple[str, str]], values: bool) -> Answer:
    listed = [{"/" + key: value} if values else "/" + key for key, value in pairs]
    return Answer(body=(json.dumps(listed) + "\n").encode())
