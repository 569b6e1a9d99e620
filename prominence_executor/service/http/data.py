"""/data and the object store behind it: signed URLs here, bytes there, on the same port.

Bytes go from the socket to the disk in pieces; an object is never held in memory.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import IO, Any

from flask import Blueprint, Request, Response, abort, jsonify, request, send_file
from werkzeug.wsgi import wrap_file

from ..sandbox.staging import upload_key
from ..state.objects import PIECE, ObjectStore, sha256_of
from ..state.tokens import BUCKET, UPLOAD_SECONDS
from .context import BASE, api, document, me, owns, refuse

Answer = Response | tuple[Response, int]

routes = Blueprint("data", __name__)


class UploadRequest(Request):
    """Receives the files of posted forms where the object store can simply keep them.

    Whatever becomes of the request, a form that is cut off and a second file of one name too: what was received and is
    not kept is removed by `forget`.
    """

    objects: ObjectStore
    received: tuple[IO[bytes], ...] = ()

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        file = self.objects.incoming_file()
        self.received += (file,)
        return file


@routes.teardown_app_request
def forget(error: BaseException | None) -> None:
    """Remove what a form has left."""
    for file in getattr(request, "received", ()):
        file.close()
        Path(file.name).unlink(missing_ok=True)


@routes.post(f"{BASE}/data/upload")
@routes.post(f"{BASE}/data")
def new_upload() -> Answer:
    """Return where an object can be uploaded: a form for one with a checksum, else a URL."""
    name, checksum = request.args.get("name"), request.args.get("checksum")
    if not name or not checksum:
        asked = document()
        asked = asked if isinstance(asked, dict) else {}
        name, checksum = name or asked.get("filename"), checksum or asked.get("checksum")
    if not isinstance(name, str) or not name:
        return refuse("An object name must be specified")
    if checksum is not None and not isinstance(checksum, str):
        return refuse("The checksum must be a string")
    if checksum and not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
        return refuse("The checksum must be a SHA-256 sum in hexadecimal digits")
    if not owns(name):
        return refuse("Not authorized to access upload with this path", 403)
    key = upload_key(me().username, name)
    api.service.objects.path(key)
    if checksum:
        fields = api.service.signer.form_fields(key, checksum)
        return jsonify({"fields": fields, "url": f"{api.object_base}/{BUCKET}"}), 201
    return jsonify({"url": _put_url(key)}), 201


@routes.post(f"{BASE}/data/output")
def new_output() -> Answer:
    """Return where a job can upload an output by itself."""
    asked = document()
    name = asked.get("name") if isinstance(asked, dict) else None
    if not isinstance(name, str) or not name:
        return jsonify({"error": "Name not specified"})  # with status 200, as recorded
    row = api.store.job(me().job or 0)
    if row is None or row["user"] != me().username:
        return refuse("Unspecified error")
    key = f"scratch/{row['place']}/{name.rsplit('/', 1)[-1]}"
    api.service.objects.path(key)
    return jsonify({"url": _put_url(key)}), 201


@routes.get(f"{BASE}/data")
def list_own() -> Answer:
    """List the asking user's uploads."""
    return jsonify(api.service.objects.uploads(me().username))


@routes.get(f"{BASE}/data/<path:path>")
def list_group(path: str) -> Answer:
    """List a group's uploads."""
    group, slash, rest = path.partition("/")
    if group not in me().groups:
        return refuse("Not authorized to access this path", 403)
    listed = api.service.objects.uploads(group, f"{group}/")
    return jsonify([item for item in listed if item["name"].startswith(path if rest else group + "/")])


@routes.delete(f"{BASE}/data/<path:name>")
def delete_object(name: str) -> Answer:
    """Delete an uploaded object."""
    if not owns(name):
        return refuse("Not authorized to access this object", 403)
    api.service.objects.delete(upload_key(me().username, name))
    return Response(status=204, content_type="application/json")


@routes.get(f"/{BUCKET}/<path:key>")
def get_object(key: str) -> Answer:
    """Return an object by its signed URL."""
    path = _allowed("GET", key)
    if not path.is_file():
        abort(404)
    answer = send_file(path, mimetype="application/octet-stream", conditional=True, max_age=0)
    if answer.status_code == 206:  # sent by the server itself; werkzeug's own way reads 8 kB at a time
        answer.close()
        file = path.open("rb")
        file.seek(answer.content_range.start or 0)
        answer.response = wrap_file(request.environ, file, PIECE)
    return answer


@routes.put(f"/{BUCKET}/<path:key>")
def put_object(key: str) -> Answer:
    """Receive an object by its signed URL."""
    _allowed("PUT", key)
    api.service.objects.put_stream(key, request.stream)
    return Response(status=200)


@routes.post(f"/{BUCKET}")
def post_object() -> Answer:
    """Receive an object by its signed form."""
    return _posted()


def _put_url(key: str) -> str:
    return api.service.signer.signed_url(api.object_base, "PUT", key, UPLOAD_SECONDS)


def _allowed(method: str, key: str) -> Path:
    if not api.service.signer.may(method, key, request.args.get("Expires", ""), request.args.get("Signature", "")):
        abort(403)
    return api.service.objects.path(key)


def _posted() -> Answer:
    """Keep the file of a form with the signed policy's fields; its checksum must be the one that was announced."""
    received: Any = request.files.get("file")
    fields = request.form
    key = fields.get("key", "")
    checksum = api.service.signer.form_allows(key, fields.get("policy", ""), fields.get("signature", ""))
    if checksum is None or fields.get("x-amz-meta-prominence_sha256") != checksum:
        abort(403)
    if received is None:
        return refuse("the form must contain a file")
    received.stream.flush()
    path = Path(received.stream.name)
    if not hmac.compare_digest(sha256_of(path), checksum.lower()):
        return refuse("the file does not have the checksum that was announced")
    api.service.objects.keep(path, key)
    return Response(status=204)
