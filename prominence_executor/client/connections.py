"""The connections that requests are sent by: pools, proxies, certificates, and no credentials but those that are given.

It knows neither the API nor the object store.
"""

from __future__ import annotations

import os
import socket
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv4Address, ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ..version import __version__

_POOL_SIZE = 32


class Connections(requests.Session):
    """Takes proxies and certificates from the environment as requests does, but no proxy to this machine, and no netrc.

    A proxy would see all that is sent to the embedded service (token, jobs, the key of a run), and could not reach it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # with it, requests would look into ~/.netrc, too; what else it means stands here
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_POOL_SIZE)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["User-Agent"] = f"prominence-executor/{__version__} {requests.utils.default_user_agent()}"

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Make the settings of one request; the session has none."""
        return super().merge_environment_settings(url, _proxies_to(url), stream, trusted(verify), cert)

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, proxies: Any) -> Any:
        """Return the proxies of the address that a redirect leads to."""
        proxies = _proxies_to(prepared_request.url or "")
        return super().rebuild_proxies(prepared_request, proxies)  # type: ignore[no-untyped-call]


def trusted(verify: Any) -> Any:
    """Return what ``verify`` comes to: without a bundle of its own, that of the environment."""
    if verify is True:
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return verify


def _proxies_to(url: str) -> dict[str, str]:
    """Return the environment's proxies for an address; none for one of this machine."""
    return {} if _is_loopback(urlsplit(url).hostname or "") else dict(requests.utils.get_environ_proxies(url))


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
