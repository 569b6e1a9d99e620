"""The one way that every request takes: sessions, timeouts, the token, and the count of requests.

    call -> repeats -> _send -> _exchange     the API: one session, one timeout, the bearer token
    call_store -> _exchange                   the object store: another session, which has no credentials at all

It knows no verb of the API; those are in client.py, data.py and keys.py.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlencode

import requests

from ..errors import (
    AuthenticationError,
    InvalidRequestError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
)
from .auth import TokenSource, base_url, verification
from .bodies import AnotherService, path_of, read_error, read_whole, unreachable
from .connections import STORE_PORT, Connections, Known, another_port, no_credentials, trusted
from .outages import Outages, is_outage
from .repeats import Repeats
from .responses import refusal
from .transfers import transferring
from .watching import Cuts, Watch, preference, seen, take

T = TypeVar("T")

_log = logging.getLogger("prominence_executor")


class ApiSession:
    """Send requests for one user; needs no token and no network until the first one.

    Any number of threads may use one session. The arguments are those of `ProminenceClient`.

    Attributes:
        url: the API's base, without a slash at its end.
        timeout: seconds to connect, and seconds to wait for the next bytes of an answer.
        repeats: tries again what time may heal.
        known: what looks at new connections, if anything.
        outages: what is told of answers, and of requests that have none.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | TokenSource | None = None,
        *,
        timeout: tuple[float, float] = (10.0, 60.0),
        retry_for: float = 30.0,
        verify: bool | str | os.PathLike[str] | None = None,
        profile: str | None = None,
    ) -> None:
        self.url = base_url(url, profile)
        self._tokens = token if isinstance(token, TokenSource) else TokenSource(token, profile, self.url)
        self.timeout = timeout
        self.repeats = Repeats(retry_for)
        self.outages = Outages(lambda: self.retry_for)
        self._verify = verification(verify)
        self._session = Connections()
        self._bare = Connections()
        self.known: Known | None = None
        self._moved = False  # the service has signed addresses of its port before
        self._has_answered = False  # as the service does, once
        self._closed = threading.Event()
        self._cuts = Cuts()
        self._counted = threading.Lock()
        self._counts: Counter[str] = Counter()

    def known_by(self, known: Known) -> None:
        """Have a function look at each new connection without TLS, before a token or anything else is sent on it."""
        self.known = known
        for connections in (self._session, self._bare):
            connections.known_by(known)

    def move(self, url: str, known: Known) -> None:
        """Send all that follows to the same service at another address, and have its connections looked at."""
        self.known_by(known)
        self._moved = True
        self.outages.forget(self.url)
        self.url = base_url(url)

    @property
    def retry_for(self) -> float:
        """Seconds for which a request that may be repeated is tried again while the service is away."""
        return self.repeats.seconds

    @retry_for.setter
    def retry_for(self, seconds: float) -> None:
        self.repeats.seconds = seconds

    @property
    def verify(self) -> bool | str:
        """Whether certificates are verified, or the path of the bundle that they are verified with."""
        verify: bool | str = trusted(self._verify)
        return verify

    @property
    def requests_sent(self) -> Counter[str]:
        """How many requests went out so far, by kind ("GET /jobs", "PUT upload", ...); repeats count."""
        with self._counted:
            return Counter(self._counts)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called; nothing can be sent any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close the connections, and end the waits of all threads that would have tried again."""
        self._closed.set()
        self.repeats.stop()
        self._session.close()
        self._bare.close()

    def abandon(self) -> None:
        """Close it, and have requests fail that still wait for an answer: nobody needs that any more."""
        self.close()
        self._cuts.cut()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled: its token stays in this process")

    def call(
        self,
        method: str,
        path: str,
        read: Callable[[requests.Response], T],
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        repeat: bool = True,
        accept: int = 200,
        wait: float | None = None,
        since: Watch | None = None,
        limit: int | None = None,
    ) -> T:
        """Send a request to the API and return what ``read`` makes of the answer; blocks.

        A token that is refused is looked up once more. A failure that time may heal is tried again.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below the API's base, with a leading slash, quoted.
            read: a reader of responses.py; what it raises counts as the request's failure.
            params: of the query.
            body: as it is sent.
            kind: its Content-Type.
            repeat: False for what must not happen twice.
            accept: a status that is accepted besides 2xx.
            wait: seconds for which the service may wait for a change before it answers, if it can; at most half of
                the time in which an answer must begin, and none if that is less than a second: then it is not asked
                whether it can. One that does so is not tried again.
            since: what the caller has seen; it is told what the answer says of that.
            limit: bytes that the answer may have: of a longer one no more is read.
        """
        headers = {} if body is None else {"Content-Type": kind}
        if since is not None:
            params = {**(params or {}), **seen(since)}
            patience = self.timeout[1] / 2
            told = preference(since, min(wait or 0.0, patience))
            headers |= told if patience >= 1.0 else {}  # else an answer would come at once, and say that it has waited
            repeat = repeat and not wait
        url = self.url + path + ("?" + urlencode(params, safe="/,") if params else "")

        def once(token: str) -> T:
            place, began = self.url, self.outages.now()
            try:
                answer = read(self._send(method, path, url, token, body, headers, accept, since, limit))
            except ProminenceError as error:
                # One that waits may have been cut by whoever needs it no more.
                self._note(place, error, began, may_be_cut=bool(wait))
                if isinstance(error, AuthenticationError):
                    raise self._refused(error) from None
                raise
            self.outages.answered(place)
            return answer

        def with_token() -> T:
            token = self._tokens.get()
            try:
                return once(token)
            except AuthenticationError:
                renewed = self._tokens.refresh(token)
                if renewed == token:
                    raise
            return once(renewed)

        try:
            answer = self.repeats.call(with_token, repeat)
        except AnotherService as error:
            if self._has_answered or (method != "GET" and error.may_have_arrived):
                raise ServiceError(str(error), error.status_code) from error.__cause__
            # Nothing says that there ever was a service: waiting for it, as for one that is away, would help nobody.
            raise InvalidRequestError(str(error), error.status_code) from None
        self._has_answered = True
        return answer

    def _note(self, place: str, error: ProminenceError, began: float, *, may_be_cut: bool = False) -> None:
        """Note that a request has failed, which may mean that nobody answers."""
        if not is_outage(error):
            if error.status_code is not None:
                self.outages.answered(place)
        elif not (self.repeats.stopped or (may_be_cut and error.may_have_arrived)):
            self.outages.unanswered(place, error, began)

    def _refused(self, error: AuthenticationError) -> AuthenticationError:
        """Say of a token that was refused where it came from."""
        refused = AuthenticationError(f"{error}: {self.url} does not take the token from {self._tokens.origin}")
        refused.status_code = error.status_code
        return refused

    def _send(
        self,
        method: str,
        path: str,
        url: str,
        token: str,
        body: bytes | None,
        headers: dict[str, str],
        accept: int,
        since: Watch | None,
        limit: int | None,
    ) -> requests.Response:
        """Exchange one request with the API; return a whole response of status 2xx, or of the accepted one."""
        # Redirects are not followed: the token is for this address and no other.
        kind = kind_of(method, path)
        response = self._exchange(kind, method, url, lambda: self._ask_api(method, url, token, body, headers), since)
        if since is not None:
            take(since, response.headers)
        if response.status_code // 100 != 2 and response.status_code != accept:
            raise refusal(read_error(response), token)
        return read_whole(response, limit)

    def call_store(
        self, method: str, url: str, data: Any = None, headers: Mapping[str, str] | None = None, *, stream: bool = False
    ) -> requests.Response:
        """Exchange one request with the object store: no token, the bytes as they are stored.

        It is tried once; a caller that may repeat it does so by `Repeats`. With ``stream`` the body is left to be read.
        """
        kind = "GET output" if method == "GET" else f"{method} upload"
        place, began = self._place_of(url), self.outages.now()
        # Where the service is its own store, it may well answer all other requests in between.
        files = f"{place} for files" if place == self.url else place
        with transferring():
            try:
                response = self._exchange(kind, method, url, lambda: self._ask_store(method, url, data, headers))
            except ServiceUnavailableError as error:
                self._note(place, error, began)
                if not error.may_have_arrived and not self._moved and another_port(self.url, url):
                    raise InvalidRequestError(f"{error}: {STORE_PORT}") from None
                raise
            if response.status_code // 100 != 2:
                refused = refusal(read_error(response))
                if refused.status_code is None or refused.status_code < 500 or self.repeats.stopped:
                    self.outages.answered(place)
                else:  # a full disk, for example: who asks again does so for as long as without an answer
                    self.outages.unanswered(files, refused, began)
                raise refused
            self.outages.answered(place)
            self.outages.answered(files)
            return response if stream else read_whole(response)

    def _place_of(self, url: str) -> str:
        """Name the store of an address, which may be the service itself; never by path or query, which are signed."""
        scheme, _, rest = url.partition("://")  # whatever it is like: it may be none
        store = f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"
        return self.url if self.url == store or self.url.startswith(store + "/") else store

    def _ask_api(
        self, method: str, url: str, token: str, body: bytes | None, headers: Mapping[str, str]
    ) -> requests.Response:
        bearing = {**headers, "Authorization": f"Bearer {token}"}
        response = self._session.send_directly(method, url, body, bearing, self.timeout, self._verify)
        if response is not None:
            return response

        def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # A callable: for a mere header, requests would take credentials that it finds elsewhere.
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return self._request(self._session, method, url, body, headers, bearer, redirects=False)

    def _ask_store(self, method: str, url: str, data: Any, headers: Mapping[str, str] | None) -> requests.Response:
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        return self._request(self._bare, method, url, data, headers, no_credentials, redirects=method == "GET")

    def _request(
        self,
        session: requests.Session,
        method: str,
        url: str,
        data: Any,
        headers: Mapping[str, str],
        auth: Callable[[requests.PreparedRequest], requests.PreparedRequest],
        *,
        redirects: bool,
    ) -> requests.Response:
        return session.request(
            method,
            url,
            data=data,
            headers=headers,
            auth=auth,
            timeout=self.timeout,
            verify=self._verify,
            stream=True,
            allow_redirects=redirects,
        )

    def _exchange(
        self, kind: str, method: str, url: str, send: Callable[[], requests.Response], since: Watch | None = None
    ) -> requests.Response:
        """Exchange one request; the body of the answer is left to be read."""

        def what() -> str:
            return f"{method} {path_of(url)}"  # never the query: it may hold a signature

        with self._cuts.reaching(since):
            if self._closed.is_set():
                raise ServiceUnavailableError(f"{what()}: this client has been closed", request_sent=False)
            with self._counted:
                self._counts[kind] += 1
            began = time.monotonic()
            try:
                response = send()
            except requests.RequestException as error:
                raise unreachable(error, what()) from error
            except ValueError as error:  # of an address that requests cannot take apart
                raise InvalidRequestError(f"{what()}: {error}") from error
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s: HTTP %d after %.3f s", what(), response.status_code, time.monotonic() - began)
        return response


def kind_of(method: str, path: str) -> str:
    """Return the kind under which a request is counted: without the numbers and names in its path."""
    _, root, *rest = path.split("/", 2)
    if root in ("kv", "data") and rest not in ([], ["upload"], ["output"]):
        return f"{method} /{root}"
    return f"{method} " + re.sub(r"/\d+", "/id", path)
