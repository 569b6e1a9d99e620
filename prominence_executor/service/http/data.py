"""/data and the object store behind it: signed URLs here, bytes there, on the same port.

A form is read in the order in which it is sent: its signed fields first, and nothing of a file that they do not allow.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import BodyPartReader, MultipartReader

from ..sandbox.staging import upload_key
from ..state.tokens import BUCKET, OVERWRITE_SECONDS, UPLOAD_SECONDS
from .context import BASE, Aborted, Answer, Ask, abort, jsonify, refuse
from .routes import Routes
from .transfer import PIECE, Arriving, arriving, go_on, in_time, object_answer, pieces_of, write_all

_LONGEST_FIELD = 1 << 14  # bytes
_MOST_FIELDS = 50

routes = Routes()


@routes.post(f"{BASE}/data/upload")
@routes.post(f"{BASE}/data")
def new_upload(ask: Ask) -> Answer:
    """Return where an object can be uploaded: a form for one with a checksum, else a URL."""
    name, checksum = ask.args.get("name"), ask.args.get("checksum")
    if not name or not checksum:
        document = ask.json()
        document = document if isinstance(document, dict) else {}
        name, checksum = name or document.get("filename"), checksum or document.get("checksum")
    if not isinstance(name, str) or not name:
        return refuse("An object name must be specified")
    if checksum is not None and not isinstance(checksum, str):
        return refuse("The checksum must be a string")
    if checksum and not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
        return refuse("The checksum must be a SHA-256 sum in hexadecimal digits")
    if not ask.owns(name):
        return refuse("Not authorized to access upload with this path", 403)
    key = upload_key(ask.me.username, name)
    ask.api.service.objects.path(key)
    if checksum:
        fields = ask.api.service.signer.form_fields(key, checksum)
        return jsonify({"fields": fields, "url": f"{ask.api.object_base}/{BUCKET}"}, 201)
    return jsonify({"url": _put_url(ask, key)}, 201)


@routes.post(f"{BASE}/data/output")
def new_output(ask: Ask) -> Answer:
    """Return where a job can upload an output by itself."""
    document = ask.json()
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name:
        return jsonify({"error": "Name not specified"})  # with status 200, as recorded
    row = ask.api.store.job(ask.me.job or 0)
    if row is None or row["user"] != ask.me.username:
        return refuse("Unspecified error")
    key = f"scratch/{row['place']}/{name.rsplit('/', 1)[-1]}"
    ask.api.service.objects.path(key)
    return jsonify({"url": _put_url(ask, key, OVERWRITE_SECONDS)}, 201)


@routes.get(f"{BASE}/data")
def list_own(ask: Ask) -> Answer:
    """List the asking user's uploads."""
    return jsonify(ask.api.service.objects.uploads(ask.me.username))


@routes.get(f"{BASE}/data/<path:path>")
def list_group(ask: Ask, path: str) -> Answer:
    """List a group's uploads."""
    group, slash, rest = path.partition("/")
    if group not in ask.me.groups:
        return refuse("Not authorized to access this path", 403)
    listed = ask.api.service.objects.uploads(group, f"{group}/")
    return jsonify([item for item in listed if item["name"].startswith(path if rest else group + "/")])


@routes.delete(f"{BASE}/data/<path:name>")
def delete_object(ask: Ask, name: str) -> Answer:
    """Delete an uploaded object."""
    if not ask.owns(name):
        return refuse("Not authorized to access this object", 403)
    ask.api.service.objects.delete(upload_key(ask.me.username, name))
    return Answer(204)


@routes.get(f"/{BUCKET}/<path:key>")
def get_object(ask: Ask, key: str) -> Answer:
    """Return an object by its signed URL."""
    path = _allowed(ask, "GET", key)
    if not path.is_file():
        abort(404)
    return object_answer(ask, path)


@routes.put(f"/{BUCKET}/<path:key>")
async def put_object(ask: Ask, key: str) -> Answer:
    """Receive an object by its signed URL."""
    _allowed(ask, "PUT", key)
    async with arriving(ask) as file:
        await write_all(ask, file, pieces_of(ask.request))
        await ask.run(file.keep, key)
    return Answer(200)


@routes.post(f"/{BUCKET}")
async def post_object(ask: Ask) -> Answer:
    """Receive an object by its signed form: fields first, then the file, and nothing after it."""
    if not ask.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        return refuse("the form must be multipart/form-data", 415)
    await go_on(ask.request)
    fields: dict[str, str] = {}
    try:
        parts = await ask.request.multipart()
        while part := await in_time(parts.next()):
            if not isinstance(part, BodyPartReader) or not part.name or part.name in fields:
                return refuse("each part of the form must have a name of its own")
            if part.name == "file":
                return await _posted(ask, fields, part, parts)
            fields[part.name] = await _field(part)
            if len(fields) > _MOST_FIELDS:
                return refuse("the form has too many fields")
    except (ValueError, AssertionError, RuntimeError, RuntimeWarning):  # what the reader says of a form that is none
        return refuse("the form is not as its header says")
    _form_allows(ask, fields)
    return refuse("the form must contain a file")


def _put_url(ask: Ask, key: str, seconds: int = UPLOAD_SECONDS) -> str:
    return ask.api.service.signer.signed_url(ask.api.object_base, "PUT", key, seconds)


def _allowed(ask: Ask, method: str, key: str) -> Path:
    signer = ask.api.service.signer
    if not signer.may(method, key, ask.args.get("Expires", ""), ask.args.get("Signature", "")):
        abort(403)
    return ask.api.service.objects.path(key)


async def _field(part: BodyPartReader) -> str:
    content = bytearray()
    async for piece in _pieces(part):
        content += piece
        if len(content) > _LONGEST_FIELD:
            raise Aborted(refuse(f"a field of the form is longer than {_LONGEST_FIELD} bytes"))
    return content.decode()


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while not part.at_eof():
        if piece := await in_time(part.read_chunk(PIECE)):
            yield piece


def _form_allows(ask: Ask, fields: dict[str, str]) -> str:
    """Return the checksum that the file must have. Raises Aborted, with 403, for fields that are not as signed."""
    policy, signature = fields.get("policy", ""), fields.get("signature", "")
    checksum = ask.api.service.signer.form_allows(fields.get("key", ""), policy, signature)
    if checksum is None or fields.get("x-amz-meta-prominence_sha256") != checksum:
        abort(403)
    ask.api.service.objects.path(fields["key"])
    return checksum


async def _posted(ask: Ask, fields: dict[str, str], part: BodyPartReader, parts: MultipartReader) -> Answer:
    """Keep the file of a form; its checksum must be the one that was announced."""
    checksum = _form_allows(ask, fields)
    async with arriving(ask) as file:
        await write_all(ask, file, _pieces(part))
        if await in_time(parts.next()) is not None:
            return refuse("the file must be the form's last part, and the only one")
        return await _kept(ask, file, fields["key"], checksum)


async def _kept(ask: Ask, file: Arriving, key: str, checksum: str) -> Answer:
    if not hmac.compare_digest(file.sha256().encode(), checksum.lower().encode()):
        return refuse("the file does not have the checksum that was announced")
    await ask.run(file.keep, key)
    return Answer(204)
