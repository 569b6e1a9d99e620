"""/kv: small texts under keys, private to a user and the user's jobs."""

from __future__ import annotations

import json

from flask import Blueprint, Response, jsonify, request

from ..schema.bounds import LONGEST_KEY
from .context import BASE, api, flag, me, refuse

LARGEST_LISTING = 2 << 20  # bytes; the service lists through etcd, whose answers are limited
LARGEST_VALUE = 15967  # bytes; the service measures a Python object of 16,000
_TOO_LARGE = "Unable to access key-value store"  # the real service's sentence when its store does not answer

Answer = Response | tuple[Response, int]

routes = Blueprint("kv", __name__)


@routes.get(f"{BASE}/kv", defaults={"key": ""})
@routes.get(f"{BASE}/kv/<path:key>")
def get_value(key: str) -> Answer:
    """Return a value, or a list of keys."""
    if flag("list"):
        return _listing(key, flag("values"))
    if not key:
        return refuse("Key not specified")
    value = api.pairs.get(me().username, key)
    if value is None:
        return refuse("No such key", 404)
    return Response(value, content_type="text/html; charset=utf-8")


@routes.post(f"{BASE}/kv", defaults={"key": ""})
@routes.post(f"{BASE}/kv/<path:key>")
def set_value(key: str) -> Answer:
    """Set or replace a value."""
    if not key:
        return refuse("Key not specified")
    content = request.get_data()
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
    return _store(key, value, request.args.get("prev"))


@routes.delete(f"{BASE}/kv", defaults={"key": ""})
@routes.delete(f"{BASE}/kv/<path:key>")
def delete_value(key: str) -> Answer:
    """Delete a key, or all that begin so."""
    if not key:
        return refuse("Key not specified")
    if flag("prefix"):
        api.pairs.delete_prefix(me().username, key)
    else:
        api.pairs.delete(me().username, key)
    return jsonify({})


def _store(key: str, value: str, previous: str | None) -> Answer:
    """Set a value; or, given a previous one, replace exactly that one in one step (never create)."""
    if previous is None:
        api.pairs.set(me().username, key, value)
    elif not api.pairs.replace(me().username, key, previous, value):
        return refuse("Atomic replacement not successful")
    return jsonify({}), 201


def _listing(prefix: str, values: bool) -> Answer:
    """Return keys with a leading slash, in order; with values, each as an object of its own."""
    if api.pairs.size(me().username, prefix, values) > LARGEST_LISTING:  # not read before that is known
        return refuse(_TOO_LARGE)
    pairs = api.pairs.under(me().username, prefix)
    listed = [{"/" + key: value} if values else "/" + key for key, value in pairs]
    content = json.dumps(listed) + "\n"
    if len(content) > LARGEST_LISTING:
        return refuse(_TOO_LARGE)
    return Response(content, content_type="application/json")
