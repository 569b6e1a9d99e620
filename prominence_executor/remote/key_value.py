"""The service's key-value store, as a warm worker asks it: one connection, not more often than is fair to others.

A service may let requests wait until there is something (`Prefer: wait`), and says so in its answer; one that does not
answers at once.

It knows nothing of mailboxes and their messages.
"""

import http.client
import os
import ssl
import sys
import time
from urllib.parse import quote, urlsplit

from . import bare
from .tls import ssl_context

AWAY = 900.0  # seconds without an answer after which a worker ends
SILENCE = 60.0  # seconds in which an answer begins, waits included
PAUSE = 5.0  # seconds until a request is to stand again that could not
WAIT = 50  # seconds that a request may wait for something to come
LATE = 10.0  # seconds beyond that after which no answer is expected any more
CONNECT = 5.0  # seconds for a connection that is not needed
UNREACHED = (
    "prominence-executor: the service listens on 127.0.0.1 of another machine, so this one was given no token for it: "
    "start it with --bind ADDRESS, or engine={'bind': ADDRESS}, of an address that reaches it from here"
)


class Service:
    """The key-value store, over one connection that stays.

    ``rate``: requests per second, counted over a second. ``tls``: what the client's settings say of certificates.
    """

    def __init__(self, rate, tls=None):
        self.rate = rate
        self.requests = 0
        self.waits = False  # the last answer to a request that was to wait says that it can
        self.free_at = 0.0
        self.left = None  # type: tuple[str, str] | None  # a request whose answer is still to be read
        if not os.environ["PROMINENCE_TOKEN"]:
            sys.exit(UNREACHED)
        url = urlsplit(os.environ["PROMINENCE_URL"])
        self.prefix = url.path.rstrip("/") + "/kv/"
        self.headers = {"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"], "Content-Type": "text/plain"}
        self.headers["Accept-Encoding"] = "identity"
        self.connection = connection_to(url, tls)
        self.host = bare.host_of(self.connection.host, self.connection.port, self.connection.default_port)
        self.watch = Watch(self, connection_to(url, tls, CONNECT))

    def leave(self, method, key):
        """Send a request, and read its answer before the next one: nothing waits for it now."""
        self.read_left()
        self.keep_rate()
        try:
            self.send(method, self.target(key), self.headers)
        except (OSError, http.client.HTTPException):
            self.connection.close()
        self.left = method, key

    def read_left(self):
        """Read the answer to a request that was left; it is made again if none came."""
        if self.left is None:
            return
        (method, key), self.left = self.left, None
        try:
            if self.connection.sock is not None and is_answered(*self.read(method)):
                return
        except (OSError, http.client.HTTPException):
            self.connection.close()
        self.call(method, key)

    def target(self, key):
        """Return path and query of a key, which may have a query."""
        path, _, query = key.partition("?")
        return self.prefix + quote(path) + ("?" + query if query else "")

    def call(self, method, key, body=None, wait=0):
        """Return the answer's body, None for a key that is not there; wait for a service that is away for a while.

        ``wait``: seconds for which the service may let a request wait for the key, if it can: then `waits` is True.
        One that fails meanwhile is repeated without: something on the way may not be as patient.
        """
        self.read_left()
        target = self.target(key)
        pause = 0.0  # a connection that the service has closed meanwhile is simply made again
        until = time.monotonic() + AWAY
        while True:
            self.keep_rate()
            headers = dict(self.headers, Prefer="wait=%d" % wait) if wait > 0 else self.headers
            try:
                self.send(method, target, headers, body)
                response, content = self.read(method)
                if wait > 0:
                    self.waits = can_wait(response)
                if is_answered(response, content):
                    return None if response.status == 404 else content
            except (OSError, http.client.HTTPException):
                self.connection.close()
            wait = 0
            if time.monotonic() > until:
                sys.exit("prominence-executor: the service has not answered for %d s" % AWAY)
            time.sleep(pause)
            pause = min(max(pause * 2, 0.1), 10.0)

    def send(self, method, target, headers, body=None):
        """Send one request, over a connection that is made if there is none."""
        if self.connection.sock is None:
            self.connection.connect()
        self.connection.sock.sendall(bare.request(method, target, self.host, headers, body))

    def read(self, method):
        """Return the next answer, and its body."""
        response = bare.answer(self.connection.sock, method)
        content = response.read()
        if not response.stays:
            self.connection.close()
        return response, content

    def keep_rate(self):
        """Wait until the next request is due."""
        self.requests += 1
        now = time.monotonic()
        self.free_at = max(self.free_at, now - 1.0) + 1.0 / self.rate
        if self.free_at > now:
            time.sleep(self.free_at - now)

    def close(self):
        """Close the connections."""
        self.connection.close()
        self.watch.close()


def connection_to(url, tls=None, timeout=SILENCE):
    """Return a connection to the host of a split URL, which is not made yet."""
    host = url.hostname or ""
    if url.scheme != "https":
        return http.client.HTTPConnection(host, url.port, timeout=timeout)
    return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=ssl_context(tls))


def is_answered(response, content):
    """Return whether the service has done what it was asked for, or has no such key: no page of somebody in between."""
    return response.status == 404 or (response.status < 300 and not content.lstrip().startswith(b"<"))


def can_wait(response):
    """Return whether an answer comes from a service that lets requests wait."""
    applied = response.headers.get("preference-applied", "")
    return any(part.partition("=")[0].strip().lower() == "wait" for part in applied.split(","))


class Watch:
    """A request that stands at the service until a key changes, while its worker does other things.

    It has a connection of its own, which `fileno` tells to `select`. A request that has been made stands for as long
    as the service lets it, whether anybody is interested or not: a key is asked for once in a while at most.
    """

    def __init__(self, service, connection):
        self.service = service
        self.connection = connection
        self.key = None  # that is asked for now
        self.asked_at = 0.0  # when it was, by time.monotonic()
        self.not_before = 0.0  # when it may be tried again, by time.monotonic()
        self.since = ""  # as the last answer says

    def stands(self):
        """Return whether there is a request without an answer."""
        return self.key is not None

    def fileno(self):
        """Return the descriptor that becomes readable when an answer comes."""
        return self.connection.sock.fileno()

    def ask(self, key):
        """Send the request, unless the service was away a moment ago, or could not let it wait."""
        if time.monotonic() < self.not_before:
            return
        target = "%s%s%s" % (self.service.prefix, quote(key), self.since)
        try:
            if self.connection.sock is None:
                self.connection.connect()
            headers = dict(self.service.headers, Prefer="wait=%d" % WAIT)
            self.service.requests += 1
            self.connection.sock.sendall(bare.request("GET", target, self.service.host, headers))
            self.key, self.asked_at = key, time.monotonic()
        except (OSError, http.client.HTTPException):
            self.give_up()

    def answer(self):
        """Return the value that has come, or None: without one, or because the answer has not come yet."""
        try:
            self.connection.sock.settimeout(0.0)
            try:
                begun = self.connection.sock.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):  # TLS has read something for itself
                return None
            finally:
                self.connection.sock.settimeout(SILENCE)
            response = bare.unusual(begun, self.connection.sock, "GET")
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.give_up()
            return None
        self.key = None
        revision = response.headers.get("x-revision", "")
        self.since = "?since=" + revision if revision.isdigit() else ""
        if not can_wait(response):
            self.give_up()
        elif not response.stays:
            self.close()
        return content if response.status == 200 and is_answered(response, content) else None

    def end_if_late(self):
        """Give up a request that should have been answered by now: nobody says that a connection is dead."""
        if self.stands() and time.monotonic() > self.asked_at + WAIT + LATE:
            self.give_up()

    def give_up(self):
        """Ask for nothing for a while, and then for what there is."""
        self.close()
        self.since = ""
        self.not_before = time.monotonic() + PAUSE

    def close(self):
        """Close the connection, with a request that stands."""
        self.connection.close()
        self.key = None
