"""Who listens at the address of a service that was found by its directory must prove to be that service.

The proof is asked for on each new connection, before anything else is sent on it. Only who can read the directory's
secret can give it, and for this connection alone. Over TLS the certificate does that, and without TLS a service is
reached on its own host only.
"""

from __future__ import annotations

import hmac
import http.client
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .state.proof import CHALLENGE, PROOF, proof_of

_MOST = 65_536  # bytes of an answer


class Unproven(OSError):
    """Whoever answers there is not that service; the text says so."""


@dataclass(frozen=True)
class Expected:
    """The service that is expected at an address: called with each new connection and its address.

    Raises OSError, or Unproven, which is one, where another one answers.
    """

    url: str
    directory: Path
    secret: bytes = field(repr=False)

    def __call__(self, connection: socket.socket, host: str, port: int) -> None:
        """Have who is at the other end of a connection prove to be the service, if that is its address here."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or (host, port) != (parts.hostname, parts.port or 80) or not host.startswith("127."):
            return
        challenge = os.urandom(32).hex()
        request = f"GET {parts.path}/health HTTP/1.1\r\nHost: {parts.netloc}\r\n{CHALLENGE}: {challenge}\r\n\r\n"
        connection.sendall(request.encode())
        given, own = _proof(connection), connection.getsockname()
        wanted = proof_of(self.secret, challenge, self.url, (own[0], own[1]))
        if given is None or wanted is None or not hmac.compare_digest(given, wanted):
            raise Unproven(
                f"who listens at {parts.netloc} does not prove to be the service of {self.directory} and was told "
                "nothing; it is another program, or a service of an earlier version, which is to be ended"
            )

    def answers(self, seconds: float) -> bool:
        """Return whether the service answers at its address; blocks so long at most. Raises Unproven."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or 80
        try:
            with socket.create_connection((host, port), seconds) as connection:
                self(connection, host, port)
        except Unproven:
            raise
        except OSError:
            return False
        return True


def expected(url: str, directory: Path) -> Expected:
    """Return the service of a directory as it is expected at a URL. Raises OSError when there is no secret to read."""
    return Expected(url, directory, (directory / "secret").read_bytes())


def _proof(connection: socket.socket) -> str | None:
    """Read one answer, and nothing beyond it; return the proof that it holds."""
    with http.client.HTTPResponse(connection) as answer:
        try:
            answer.begin()
            body = answer.read(_MOST)
        except (ConnectionError, http.client.IncompleteRead) as error:
            raise ConnectionError("the service has ended the connection") from error
        except http.client.HTTPException as error:
            raise Unproven(f"the answer is none of a service: {type(error).__name__}") from error
        if len(body) == _MOST or answer.will_close:
            raise ConnectionError("the service has ended the connection")
        given = answer.getheader(PROOF)
        return given if given is not None and given.isascii() else None
