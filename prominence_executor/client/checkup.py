"""What a mail to somebody who is to help would say: versions, what is set and from where, what the service says.

It makes three requests at most, and shows no token.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version

import requests

from ..errors import AuthenticationError, ProminenceError, ServiceUnavailableError
from ..version import __version__
from .auth import TokenSource, expiry
from .client import ProminenceClient
from .profiles import Profile, find_profile, profiles_file, service_url, shown_url

_SKEW = 60.0  # seconds by which two clocks may differ
_SOON = 86_400.0  # seconds: a token that expires earlier is worth a word
_PATIENCE = 5.0  # seconds for which a service that does not answer is asked again
LIBRARIES = ("requests", "cloudpickle", "aiohttp", "tqdm", "rich", "shtab")


@dataclass(frozen=True)
class Fact:
    """One line of it.

    Attributes:
        error: what is wrong, if something is.
    """

    name: str
    value: str
    error: ProminenceError | None = None
    doubtful: bool = False  # nothing fails for it, but it is worth a look


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of what it uses; "" of what is not installed."""
    found = {"prominence-executor": __version__, "Python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def check_up(profile: str | None = None) -> Iterator[Fact]:
    """Yield the facts one after the other; blocks for the service's answers, at most three.

    Raises:
        InvalidRequestError: the file of profiles cannot be read, or has no such profile.
    """
    for name, text in versions().items():
        yield Fact(name, text or "not installed")
    yield Fact("executable", sys.executable)
    found = find_profile(profile)
    chosen = f"{found.name} ({found.chosen_by or 'the usual one'})" if found.name else "none"
    yield _profile(found, f"{chosen}; file {profiles_file()}")
    url = service_url(profile)
    yield _url(url, found)
    tokens = TokenSource(None, profile, url)
    if url in ("local", "slurm"):
        yield Fact("service", f"{url}: it is started, or found, by the program that uses it")
        return
    token = _token(tokens)
    yield token
    if url and token.error is None:
        yield from _service(url, tokens)


def _profile(profile: Profile, text: str) -> Fact:
    try:
        profile.resources()
    except ProminenceError as error:
        return Fact("profile", f"{text}: {error}", error)
    return Fact("profile", text)


def _url(url: str | None, profile: Profile) -> Fact:
    if not url:
        text = "not set: PROMINENCE_URL, url=..., or prominence-executor config set url=..."
        return Fact("URL", text, AuthenticationError("there is no URL of a service"))
    of_profile = profile.get("url") == url and (profile.asked_for or not os.environ.get("PROMINENCE_URL"))
    return Fact("URL", f"{shown_url(url)} (from {f'profile {profile.name!r}' if of_profile else 'PROMINENCE_URL'})")


def _token(tokens: TokenSource) -> Fact:
    try:
        token = tokens.get()
    except ProminenceError as error:
        return Fact("token", str(error), error)
    at = expiry(token)
    if at is None:
        return Fact("token", f"from {tokens.origin}; it does not say when it expires")
    left = at - time.time()
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    return Fact("token", f"from {tokens.origin}; good until {when}, for {_long(left)}", doubtful=left < _SOON)


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"


def _service(url: str, tokens: TokenSource) -> Iterator[Fact]:
    began = time.monotonic()
    try:
        with ProminenceClient(url, tokens, retry_for=_PATIENCE) as client:
            yield Fact("certificates", _certificates(client))
            count, date = client.api.call("GET", "/jobs", _read)
            yield Fact("service", f"answers after {time.monotonic() - began:.2f} s, and takes the token")
            yield _clock(date)
            yield Fact("active jobs", str(count))
            health = client.health()
            said = health.get("errors") or health.get("error")
            yield Fact("its health", str(said or "well"), doubtful=bool(said))
    except ServiceUnavailableError as error:
        yield Fact("service", f"does not answer: {error}", error)
    except ProminenceError as error:
        yield Fact("service", str(error), error)


def _certificates(client: ProminenceClient) -> str:
    if not client.url.startswith("https:"):
        return "none: the URL is not https"
    verify = client.api.verify
    return "verified" + (f" by {verify}" if isinstance(verify, str) else "") if verify else "NOT verified"


def _read(response: requests.Response) -> tuple[int, str]:
    from .responses import read_jobs

    return len(read_jobs(response)), response.headers.get("Date", "")


def _clock(date: str) -> Fact:
    try:
        skew = time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return Fact("clock", "the service does not say what time it is")
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the service's"
    return Fact("clock", text, doubtful=abs(skew) > _SKEW)
