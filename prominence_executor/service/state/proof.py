"""How a service proves to who can read its directory that it can, too, before it is told a token. Pure.

After a service was killed anybody on its host may listen at its port. The proof is of the service's address as well,
and of the client's: one that somebody in between has asked for, from the service where it listens now, is none.
"""

from __future__ import annotations

import hashlib
import hmac
import re

CHALLENGE, PROOF = "X-Challenge", "X-Proof"  # headers of a request for /health, and of its answer
_CHALLENGE = re.compile(r"[0-9a-f]{32,128}")


def proof_of(secret: bytes, challenge: str, url: str, client: tuple[str, int]) -> str | None:
    """Return what only a service of this secret and URL answers to a client's challenge; None where that is none.

    client: host and port of its end of the connection.
    """
    if not _CHALLENGE.fullmatch(challenge):
        return None
    key = hashlib.sha256(b"proof" + secret).digest()
    return hmac.new(key, "\n".join([challenge, url, *map(str, client)]).encode(), hashlib.sha256).hexdigest()
