"""The service's key-value store, as a warm worker asks it: one connection, not more often than is fair to others.

It knows nothing of mailboxes and their messages.
"""

import http.client
import os
import sys
import time
from urllib.parse import quote, urlsplit

from .tls import ssl_context

AWAY = 900.0  # seconds without an answer after which a worker ends


class Service:
    """The key-value store, over one connection that stays.

    ``rate``: requests per second, counted over a second. ``tls``: what the client's settings say of certificates.
    """

    def __init__(self, rate, tls=None):
        self.rate = rate
        self.requests = 0
        self.free_at = 0.0
        url = urlsplit(os.environ["PROMINENCE_URL"])
        self.prefix = url.path.rstrip("/") + "/kv/"
        self.headers = {"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"], "Content-Type": "text/plain"}
        self.connection = connection_to(url, tls)

    def call(self, method, key, body=None):
        """Return the answer's body, None for a key that is not there; wait for a service that is away for a while."""
        path, _, query = key.partition("?")
        target = self.prefix + quote(path) + ("?" + query if query else "")
        wait = 0.0  # a connection that the service has closed meanwhile is simply made again
        until = time.monotonic() + AWAY
        while True:
            self.keep_rate()
            try:
                self.connection.request(method, target, body=body, headers=self.headers)
                response = self.connection.getresponse()
                content = response.read()
                if response.status < 300 and not content.lstrip().startswith(b"<"):  # a page of somebody in between
                    return content
                if response.status == 404:
                    return None
            except (OSError, http.client.HTTPException):
                self.connection.close()
            if time.monotonic() > until:
                sys.exit("prominence-executor: the service has not answered for %d s" % AWAY)
            time.sleep(wait)
            wait = min(max(wait * 2, 0.1), 10.0)

    def keep_rate(self):
        """Wait until the next request is due."""
        now = time.monotonic()
        self.requests += 1
        self.free_at = max(self.free_at, now - 1.0) + 1.0 / self.rate
        if self.free_at > now:
            time.sleep(self.free_at - now)

    def close(self):
        """Close the connection."""
        self.connection.close()


def connection_to(url, tls=None):
    """Return a connection to the host of a split URL, which is not made yet."""
    host = url.hostname or ""
    if url.scheme != "https":
        return http.client.HTTPConnection(host, url.port, timeout=60)
    return http.client.HTTPSConnection(host, url.port, timeout=60, context=ssl_context(tls))
