"""Bearer tokens (HS256 JWTs) and signed object URLs.

Holds the secret of one service. Decides who is asking; what they may see is decided where the rows are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt

from .clock import Clock
from .directory import own_file, write_whole
from .proof import proof_of

BUCKET = "prominence-objects"
UPLOAD_SECONDS = 600
OVERWRITE_SECONDS = 7200  # likewise for an output of a job, by that job's token
OUTPUT_SECONDS = 7 * 86400
SECRET_BYTES = 32
_LONGEST_TOKEN = 8192
_KNOWN = 2048  # tokens that are not verified anew each time: those of jobs that run, and of users
# When it ends is looked at here, by the service's own clock.
_CHECKED: Any = {"require": ["exp"], "verify_exp": False, "verify_iat": False}


@dataclass(frozen=True)
class Identity:
    """Who a token speaks for: a user, or one job of that user."""

    username: str
    groups: tuple[str, ...] = ()
    job: int | None = None
    expired: bool = False  # which a job's token may be whose job has waited for long


def load_secret(path: Path) -> bytes:
    """Return the service's secret, which is made on first use and its owner's only.

    Raises:
        RuntimeError: others may know or have chosen what lies there, or it is too short to be a secret.
    """
    if not own_file(path, private=True):
        write_whole(path, os.urandom(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise RuntimeError(f"{path} is too short to be a secret: remove it (tokens made with it then end)")
    return secret


def _same(wanted: str, found: str) -> bool:
    return hmac.compare_digest(wanted.encode(), found.encode(errors="surrogatepass"))


class Signer:
    """Makes and checks tokens, signed URLs and upload policies."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._clock = clock
        self._token_key = hashlib.sha256(b"token" + secret).digest()
        self._url_key = hashlib.sha256(b"url" + secret).digest()
        self._secret = secret
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()  # tokens, and when they expire

    # Tokens

    def token(self, username: str, expires_in: float, *, groups: Sequence[str] = (), job: int | None = None) -> str:
        """Make a token for a user, or for one job of that user, that expires in so many seconds."""
        claims: dict[str, object] = {"username": username, "exp": int(self._clock.steady() + expires_in)}
        if groups:
            claims["groups"] = list(groups)
        if job is not None:
            claims["job"] = job
        return jwt.encode(claims, self._token_key, algorithm="HS256")

    def identify(self, authorization: str | None) -> Identity | None:
        """Return whom an Authorization header speaks for. The service accepts any scheme, so only the token counts.

        The token of a job may have expired, which its identity says: it counts from the submission.
        """
        parts = (authorization or "").split(" ")
        if len(parts) != 2 or len(parts[1]) > _LONGEST_TOKEN:
            return None
        found = self._known.get(parts[1]) or self._verified(parts[1])
        if found is None or found[0] > self._clock.steady():
            return None if found is None else found[1]
        return None if found[1].job is None else replace(found[1], expired=True)

    def _verified(self, token: str) -> tuple[float, Identity] | None:
        """Return when a token expires, and whom it speaks for: of all that a request costs that is the most."""
        try:
            claims = jwt.decode(token, self._token_key, algorithms=["HS256"], options=_CHECKED)
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):  # what is in it may be anything
            return None
        username, job, expires = claims.get("username"), claims.get("job"), claims["exp"]
        if not isinstance(username, str) or not username or not isinstance(expires, (int, float)):
            return None
        groups = claims.get("groups", claims.get("group", []))
        names = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        identity = Identity(username, tuple(str(name) for name in names), job if isinstance(job, int) else None)
        self._known[token] = expires, identity  # each step by itself is whole, whatever other threads do
        while len(self._known) > _KNOWN:
            with suppress(KeyError):
                self._known.popitem(last=False)
        return expires, identity

    def proof(self, challenge: str, url: str, client: tuple[str, int]) -> str | None:
        """Return what proves that this service knows its secret; None where the challenge is none."""
        return proof_of(self._secret, challenge, url, client)

    # Signed URLs: good for one method, one key, until one second

    def _signature(self, *parts: str) -> str:
        digest = hmac.new(self._url_key, "\n".join(parts).encode(errors="surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def signed_url(self, base: str, method: str, key: str, expires_in: int) -> str:
        """Make a URL that is good for one method and key, for so many seconds."""
        expires = str(int(self._clock.steady()) + expires_in)
        signature = self._signature(method, key, expires)
        return f"{base}/{BUCKET}/{quote(key)}?Expires={expires}&Signature={signature}"

    def may(self, method: str, key: str, expires: str, signature: str) -> bool:
        """Return whether a signed URL allows what is asked, now."""
        if not re.fullmatch(r"[0-9]{1,12}", expires, re.ASCII) or int(expires) < self._clock.steady():
            return False
        return _same(self._signature(method, key, expires), signature)

    # Upload forms: a policy names the key and the checksum of what may be posted

    def form_fields(self, key: str, checksum: str) -> dict[str, str]:
        """Make the fields of a form with which a file of this checksum may be posted."""
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.steady() + UPLOAD_SECONDS))
        conditions = [{"x-amz-meta-prominence_sha256": checksum}, {"bucket": BUCKET}, {"key": key}]
        document = json.dumps({"expiration": expiration, "conditions": conditions})
        policy = base64.b64encode(document.encode()).decode()
        return {
            "AWSAccessKeyId": "local",
            "key": key,
            "policy": policy,
            "signature": self._signature("POST", policy),
            "x-amz-meta-prominence_sha256": checksum,
        }

    def form_allows(self, key: str, policy: str, signature: str) -> str | None:
        """Return the checksum that a form's file must have, or None when the form may not be posted."""
        if not _same(self._signature("POST", policy), signature):
            return None
        document = json.loads(base64.b64decode(policy))
        named: dict[str, str] = {}
        for condition in document["conditions"]:
            named.update(condition)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.steady()))
        if document["expiration"] < now or named["key"] != key:
            return None
        return named["x-amz-meta-prominence_sha256"]
