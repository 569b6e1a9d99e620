"""The connections that requests are sent by: pools, proxies, certificates, and no credentials but those that are given.

It knows neither the API nor the object store.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv4Address, ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout, connection
from urllib3 import exceptions as urllib3_errors

from ..version import __version__
from .bodies import Whole, request_of
from .direct import exchange
from .watching import interruptible

_POOL_SIZE = 32
# A NAT or firewall between may forget idle connections after some minutes, without a word, and a request over such a
# one has no answer.
_KEPT_ALIVE = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, times
_SOCKET_OPTIONS = [
    *connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _KEPT_ALIVE.items()
        if hasattr(socket, name)
    ),
]
_PROXY_VARIABLES = (
    "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
    "REQUEST_METHOD",  # in a CGI program, HTTP_PROXY is a header's
)  # fmt: skip
_ANY = {"cert_reqs": "CERT_NONE"}  # any certificate will do
Known = Callable[[socket.socket, str, int], None]  # looks at a new connection to a host and port; raises OSError


class Connections(requests.Session):
    """Takes proxies and certificates from the environment as requests does, but no proxy to this machine, and no netrc.

    A proxy would see all that is sent to the embedded service (token, jobs, the key of a run), and could not reach it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # with it, requests would look into ~/.netrc, too; what else it means stands here
        adapter = _Adapter(pool_connections=4, pool_maxsize=_POOL_SIZE)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self._manager = adapter.poolmanager
        self._pools: dict[tuple[str, Any], HTTPConnectionPool] = {}
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["User-Agent"] = f"prominence-executor/{__version__} {requests.utils.default_user_agent()}"
        self._always = {name: str(value) for name, value in self.headers.items()}

    def known_by(self, known: Known) -> None:
        """Have a function look at each new connection without TLS and proxy, before anything is sent on it."""
        pools = {**self._manager.pool_classes_by_scheme, "http": partial(_Pool, known=known)}
        self._manager.pool_classes_by_scheme = pools

    def send_directly(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: tuple[float, float],
        verify: bool | str,
    ) -> requests.Response | None:
        """Exchange one request as `request` does, in a third of its time; the body of the answer is left to be read.

        No redirect is followed. None: a proxy stands between, of which `request` knows more. Raises as `request`.
        """
        if _proxies_to(url):
            return None
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        target, headers = url[len(origin) :], {**self._always, **headers}
        found: Any
        try:
            pool = self._pool(origin, trusted(verify))
            found = exchange(pool, method, target, body, headers, timeout[1])
            if found is None:
                found = pool.urlopen(
                    method,
                    target,
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    timeout=Timeout(connect=timeout[0], read=timeout[1]),
                    preload_content=False,
                    decode_content=False,
                )
        except urllib3_errors.ReadTimeoutError as error:
            raise requests.ReadTimeout(error) from error
        except urllib3_errors.SSLError as error:
            raise requests.exceptions.SSLError(error) from error
        except urllib3_errors.LocationParseError as error:
            raise requests.exceptions.InvalidURL(error) from error
        except (urllib3_errors.HTTPError, OSError) as error:
            raise requests.ConnectionError(error) from error
        if isinstance(found, Whole):
            found.url = url
            return found
        response = requests.Response()
        response.status_code, response.reason, response.url = found.status, found.reason or "", url
        response.headers = requests.structures.CaseInsensitiveDict(found.headers)
        response.raw = found
        response.request = request_of(method)
        return response

    def close(self) -> None:
        """Close the connections that are not in use, and the others when they are free."""
        super().close()
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _pool(self, origin: str, verify: bool | str) -> HTTPConnectionPool:
        """Return the connections to a service; made once for each way to trust it."""
        if (origin, verify) not in self._pools:
            parts = urlsplit(origin)
            kwargs: dict[str, Any] = {}
            if parts.scheme == "https":
                authorities = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
                where = "ca_cert_dir" if os.path.isdir(authorities or "") else "ca_certs"
                kwargs = {"cert_reqs": "CERT_REQUIRED", where: authorities} if authorities else _ANY
            host, manager = parts.hostname or "", self._manager
            self._pools[origin, verify] = manager.connection_from_host(host, parts.port, parts.scheme, kwargs)
        return self._pools[origin, verify]

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Make the settings of one request; the session has none."""
        return super().merge_environment_settings(url, _proxies_to(url), stream, trusted(verify), cert)

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, proxies: Any) -> Any:
        """Return the proxies of the address that a redirect leads to."""
        proxies = _proxies_to(prepared_request.url or "")
        return super().rebuild_proxies(prepared_request, proxies)  # type: ignore[no-untyped-call]


# Errors show the names of these two.
class HTTPConnection(connection.HTTPConnection):
    """A connection whose wait for an answer can be ended. `known` looks at who is at its other end."""

    known: Known | None = None

    def connect(self) -> None:
        """Make the connection. Raises NewConnectionError when another one is there than should be."""
        super().connect()
        if self.known is not None:
            try:
                self.known(self.sock, self.host, self.port)
            except OSError as error:
                self.close()
                raise urllib3_errors.NewConnectionError(self, str(error)) from error

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answer."""
        return interruptible(self, lambda: super(HTTPConnection, self).getresponse(*args, **kwargs))


class HTTPSConnection(connection.HTTPSConnection):
    """A connection by TLS whose wait for an answer can be ended."""

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answer."""
        return interruptible(self, lambda: super(HTTPSConnection, self).getresponse(*args, **kwargs))


class _Pool(HTTPConnectionPool):
    ConnectionCls = HTTPConnection

    def __init__(self, *args: Any, known: Known | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known = known

    def _new_conn(self) -> Any:
        made: Any = super()._new_conn()
        made.known = self._known
        return made


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = HTTPSConnection


class _Adapter(HTTPAdapter):
    """Makes connections whose wait for an answer can be ended, through proxies, too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        _interruptible(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        return _interruptible(super().proxy_manager_for(proxy, socket_options=_SOCKET_OPTIONS, **kwargs))


def _interruptible(manager: PoolManager) -> PoolManager:
    if not type(manager).__name__.startswith("SOCKS"):  # whose connections are made in a way of their own
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def trusted(verify: Any) -> Any:
    """Return what ``verify`` comes to: without a bundle of its own, that of the environment."""
    if verify is True:
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return verify


STORE_PORT = (
    "the service answers here at another port than it knows of, so its objects cannot be reached: forward that port "
    "under the same number, or start the service with --public-url and the address that is used here"
)


def another_port(service: str, store: str) -> bool:
    """Return whether a service of this machine answers, but sends clients to another port: one that is forwarded."""
    here, there = urlsplit(service), urlsplit(store)
    if not (_is_loopback(here.hostname or "") and _is_loopback(there.hostname or "")) or here.port == there.port:
        return False
    try:
        with socket.create_connection((here.hostname, here.port or 80), 1.0):
            return True
    except OSError:
        return False


def _proxies_to(url: str) -> dict[str, str]:
    """Return the environment's proxies for an address; none for one of this machine."""
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or ""):
        return {}
    if sys.platform in ("darwin", "win32"):  # where proxies are set elsewhere, too
        return dict(requests.utils.get_environ_proxies(url))
    told = tuple(os.environ.get(name) for name in _PROXY_VARIABLES)
    return dict(_environment_proxies(f"{parts.scheme}://{parts.netloc}/", told))


@lru_cache(maxsize=64)
def _environment_proxies(origin: str, told: tuple[str | None, ...]) -> Mapping[str, str]:
    """Find that out; ``told``: what the environment says, as to look through all of it takes half a millisecond."""
    return requests.utils.get_environ_proxies(origin)


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    """Return whether a host's name or address always means this machine. Nothing is looked up."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            address = IPv4Address(socket.inet_aton(host))  # 127.1 and the like
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add nothing to a request; without any auth, requests would take what an address holds before its @."""
    return request
