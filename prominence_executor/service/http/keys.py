"""/kv: small texts under keys, private to a user and the user's jobs."""

from __future__ import annotations

import json

from ..schema.bounds import LONGEST_KEY
from .context import BASE, TEXT, Answer, Ask, jsonify, refuse
from .routes import Routes

LARGEST_LISTING = 4 << 20  # bytes as they are stored; the service lists through etcd, whose answers are limited
LARGEST_VALUE = 15967  # bytes; the service measures a Python object of 16,000
_TOO_LARGE = "Unable to access key-value store"  # the real service's sentence when its store does not answer

routes = Routes()


@routes.get(f"{BASE}/kv")
@routes.get(f"{BASE}/kv/<path:key>")
def get_value(ask: Ask, key: str = "") -> Answer:
    """Return a value, or a list of keys."""
    if ask.flag("list"):
        return _listing(ask, key, ask.flag("values"))
    if not key:
        return refuse("Key not specified")
    value = ask.api.pairs.get(ask.me.username, key)
    if value is None:
        return refuse("No such key", 404)
    return Answer(content_type=TEXT, body=value.encode())


@routes.post(f"{BASE}/kv")
@routes.post(f"{BASE}/kv/<path:key>")
def set_value(ask: Ask, key: str = "") -> Answer:
    """Set or replace a value."""
    if not key:
        return refuse("Key not specified")
    content = ask.body
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
    return _store(ask, key, value, ask.args.get("prev"))


@routes.delete(f"{BASE}/kv")
@routes.delete(f"{BASE}/kv/<path:key>")
def delete_value(ask: Ask, key: str = "") -> Answer:
    """Delete a key, or all that begin so."""
    if not key:
        return refuse("Key not specified")
    if ask.flag("prefix"):
        ask.api.pairs.delete_prefix(ask.me.username, key)
    else:
        ask.api.pairs.delete(ask.me.username, key)
    return jsonify({})


def _store(ask: Ask, key: str, value: str, previous: str | None) -> Answer:
    """Set a value; or, given a previous one, replace exactly that one in one step (never create)."""
    if previous is None:
        ask.api.pairs.set(ask.me.username, key, value)
    elif not ask.api.pairs.replace(ask.me.username, key, previous, value):
        return refuse("Atomic replacement not successful")
    return jsonify({}, 201)


def _listing(ask: Ask, prefix: str, values: bool) -> Answer:
    """Return keys with a leading slash, in order; with values, each as an object of its own."""
    if ask.api.pairs.stored(ask.me.username, prefix) > LARGEST_LISTING:  # not read before that is known
        return refuse(_TOO_LARGE)
    pairs = ask.api.pairs.under(ask.me.username, prefix)
    listed = [{"/" + key: value} if values else "/" + key for key, value in pairs]
    return Answer(body=(json.dumps(listed) + "\n").encode())
