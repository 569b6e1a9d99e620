"""/kv: small texts under keys, private to a user and the user's jobs."""

from __future__ import annotations

import json

from flask import Blueprint, Response, abort, jsonify, request

from .context import BASE, api, flag, me, refuse

LARGEST_LISTING = 2 << 20  # bytes; the service lists through etcd, whose answers are limited
LARGEST_VALUE = 15967  # bytes; the service measures a Python object of 16,000
_LAST = "\U0010ffff"  # sorts after every other character

Answer = Response | tuple[Response, int]

routes = Blueprint("kv", __name__)


@routes.get(f"{BASE}/kv", defaults={"key": ""})
@routes.get(f"{BASE}/kv/<path:key>")
def get_value(key: str) -> Answer:
    if flag("list"):
        return _listing(key, flag("values"))
    if not key:
        return refuse("Key not specified")
    row = api.store.row("SELECT value FROM pairs WHERE user = ? AND key = ?", me().username, key)
    if row is None:
        return refuse("No such key", 404)
    return Response(row["value"], content_type="text/html; charset=utf-8")


@routes.post(f"{BASE}/kv", defaults={"key": ""})
@routes.post(f"{BASE}/kv/<path:key>")
def set_value(key: str) -> Answer:
    if not key:
        return refuse("Key not specified")
    content = request.get_data()
    if not content:
        return refuse("No value provided")
    if len(content) > LARGEST_VALUE:
        return refuse("Content of value too large")
    try:
        value = content.decode()
    except UnicodeDecodeError:
        # The real service stores it, and then can neither return it nor list its neighbours.
        return refuse("The value must be UTF-8 text")
    return _store(key, value, request.args.get("prev"))


@routes.delete(f"{BASE}/kv", defaults={"key": ""})
@routes.delete(f"{BASE}/kv/<path:key>")
def delete_value(key: str) -> Answer:
    if not key:
        return refuse("Key not specified")
    with api.store.transaction() as db:
        if flag("prefix"):
            db.execute("DELETE FROM pairs WHERE user = ? AND key >= ? AND key < ?", (me().username, key, key + _LAST))
        else:
            db.execute("DELETE FROM pairs WHERE user = ? AND key = ?", (me().username, key))
    return jsonify({})


def _store(key: str, value: str, previous: str | None) -> Answer:
    """Set a value; or, given a previous one, replace exactly that one in one step (never create)."""
    user = me().username
    with api.store.transaction() as db:
        if previous is None:
            db.execute(
                "INSERT INTO pairs VALUES (?, ?, ?) ON CONFLICT (user, key) DO UPDATE SET value = excluded.value",
                (user, key, value),
            )
            swapped = True
        else:
            done = db.execute(
                "UPDATE pairs SET value = ? WHERE user = ? AND key = ? AND value = ?", (value, user, key, previous)
            )
            swapped = done.rowcount == 1
    return (jsonify({}), 201) if swapped else refuse("Atomic replacement not successful")


def _listing(prefix: str, values: bool) -> Answer:
    """Keys with a leading slash, in order; with values, each as an object of its own."""
    rows = api.store.rows(
        "SELECT key, value FROM pairs WHERE user = ? AND key >= ? AND key < ? ORDER BY key",
        me().username,
        prefix,
        prefix + _LAST,
    )
    listed = [{"/" + row["key"]: row["value"]} if values else "/" + row["key"] for row in rows]
    content = json.dumps(listed) + "\n"
    if len(content) > LARGEST_LISTING:
        abort(500)
    return Response(content, content_type="application/json")
