"""Downloads by HTTP, for artifacts and images. Knows no sandbox and no runtime.

What lies on this machine, the service's own signed URLs first of all, is never asked for through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from pathlib import Path
from typing import Any

from .archives import Budget, copy, new_file

_SECONDS = 20  # without a byte, after which a download has failed
_LOOPBACK = "localhost,127.0.0.1,::1"


class _Proxies(urllib.request.ProxyHandler):
    """The user's proxies, for other machines. Asked for every request, so that redirects are covered, too."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        if is_loopback(req.host):
            return None
        return super().proxy_open(req, proxy, type)


def is_loopback(host: str) -> bool:
    """Return whether HOST or HOST:PORT is this machine by name or number."""
    name = host.rpartition("@")[2]
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1 is a number as well
        except OSError:
            return False
    return address.is_loopback or address.is_unspecified


def open_url(url: str | urllib.request.Request) -> Any:
    """Open an http or https URL as urlopen does. Raises OSError, and ValueError for other schemes."""
    address = url if isinstance(url, str) else url.full_url
    if not address.lower().startswith(("http://", "https://")):
        raise ValueError("only http and https")
    return urllib.request.build_opener(_Proxies()).open(url, timeout=_SECONDS)


def receive(response: Any, path: Path, budget: Budget) -> None:
    """Write a download to a file, in the place of whatever has its name.

    Raises:
        OSError: it did not come whole.
        OverBudget, Stopped: see `Budget`.
    """
    with new_file(path) as file:
        copy(response, file, budget)
        expected = response.headers.get("Content-Length")
        if expected is not None and file.tell() != int(expected):
            raise OSError("the download ended early")


def proxy_variables() -> dict[str, str]:
    """Return the user's proxies as variables for a program that downloads, with this machine exempt from them."""
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    exempt = proxies.get("no_proxy") or proxies.get("NO_PROXY")
    if proxies and exempt != "*":
        proxies["no_proxy"] = proxies["NO_PROXY"] = ",".join(filter(None, [exempt, _LOOPBACK]))
    return proxies
