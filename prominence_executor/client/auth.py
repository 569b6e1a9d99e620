"""Where the service is, who asks, and whom to trust: URL, token and certificates, from argument, environment or file.

Nothing here sends anything, and nothing here shows a token: not in a repr, not in an exception, not in a pickle.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import AuthenticationError, InvalidRequestError
from .profiles import checked_url, find_profile, service_url

__all__ = ["TOKEN_FILE", "TokenSource", "base_url", "expiry", "verification"]

TOKEN_FILE = os.path.join("~", ".prominence", "token")
_VARIABLE = "PROMINENCE_TOKEN"
_LATEST = 1e11  # seconds since the epoch, beyond which a token says that it never expires


class TokenSource:
    """Find the token when it is first asked for, keep it, and look again when told that it was refused.

    It looks at the argument, then at the environment variable ``PROMINENCE_TOKEN``, then into the profile (before the
    variable, if the profile was asked for), then at the file ``~/.prominence/token``: JSON with an ``access_token``, as
    upstream's ``prominence login`` writes it, or plain text. A profile's token goes to the profile's own service alone:
    with another ``url`` it is passed over. Nor does a profile that was asked for, and names another service than
    ``PROMINENCE_URL``, borrow the variable's or the file's.

    May be used by several threads at once; a callable is called by one of them at a time, while the others wait.
    """

    def __init__(
        self, token: str | Callable[[], str] | None = None, profile: str | None = None, url: str | None = None
    ) -> None:
        self._argument = token
        self._profile = profile
        self._url = url
        self._token: str | None = None
        self._expires: tuple[str | None, float | None] = (None, None)  # a token, and when it does
        self._origin = "no source yet"
        self.is_missing = False  # nobody has said anything, when it was last looked for
        self._lock = threading.Lock()

    def get(self) -> str:
        """Return the token; look for another one first if this one is known to have expired.

        Raises:
            AuthenticationError: there is none, it is unusable, or it has expired.
        """
        with self._lock:
            token = self._token
            if token is None or self._expired(token):
                token = self._token = self._look()
            if self._expired(token):
                when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expiry(token)))
                raise AuthenticationError(
                    f"the token from {self._origin} expired on {when} by this machine's clock; get a new one"
                )
            return token

    def refresh(self, refused: str | None = None) -> str:
        """Look again: read the file again, call the callable again. Return what was found, even if unchanged.

        Args:
            refused: the token that the service refused; when another thread has replaced it already, its replacement
                is returned.
        """
        with self._lock:
            if self._token is None or refused is None or self._token == refused:
                self._token = self._look()
            return self._token

    def _expired(self, token: str) -> bool:
        if self._expires[0] != token:  # each request asks, and a token says always the same
            self._expires = token, expiry(token)
        at = self._expires[1]
        return at is not None and at <= time.time()

    @property
    def origin(self) -> str:
        """Where the token came from, in words."""
        return self._origin

    def _look(self) -> str:
        if callable(self._argument):
            self._origin = "the callable given as token"
            return self._checked(self._call(self._argument))
        if self._argument is not None:
            self._origin = "the token argument"
            return self._checked(self._argument)
        if os.environ.get(_VARIABLE) and not self._profile:
            self._origin = f"the environment variable {_VARIABLE}"
            return self._checked(os.environ[_VARIABLE])
        profile = find_profile(self._profile)
        if profile.is_for(self._url) and (text := profile.token()) is not None:
            self._origin = f"the profile {profile.name!r}"
            return self._checked(_in_json(text, self._origin))
        if profile.asked_for and profile.is_for(self._url) and not profile.is_for(os.environ.get("PROMINENCE_URL")):
            raise AuthenticationError(
                f"the profile {profile.name!r} has no token, and those of {_VARIABLE} and {TOKEN_FILE} are not sent to "
                "its URL, since PROMINENCE_URL names another one: give it a token or a token_file "
                "(prominence-executor config set token), or unset PROMINENCE_URL"
            )
        if os.environ.get(_VARIABLE):
            self._origin = f"the environment variable {_VARIABLE}"
            return self._checked(os.environ[_VARIABLE])
        self._origin = f"the file {TOKEN_FILE}"
        return self._checked(self._read())

    def _call(self, function: Callable[[], str]) -> str:
        try:
            return function()
        except Exception as error:  # the user's own code: whatever it raises means that there is no token
            raise AuthenticationError(f"the callable given as token raised {type(error).__name__}") from error

    def _read(self) -> str:
        try:
            with open(os.path.expanduser(TOKEN_FILE), encoding="utf-8") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            self.is_missing = True
            raise AuthenticationError(
                f"there is no token: give the token argument, set {_VARIABLE}, or put one into {TOKEN_FILE}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            # A UnicodeDecodeError holds the bytes it stumbled over, so the cause stays out.
            raise AuthenticationError(f"{TOKEN_FILE} cannot be read: {type(error).__name__}") from None
        return _in_json(text, TOKEN_FILE)

    def _checked(self, token: Any) -> str:
        """Return the token without surrounding white space, if a header line can hold it at all."""
        if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token.strip()):
            return token.strip()
        raise AuthenticationError(f"{self._origin} holds no token: it must be one word of printable ASCII")

    def __repr__(self) -> str:
        return f"<TokenSource: {self._origin}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("TokenSource cannot be pickled: the token stays in this process")


def _in_json(text: str, where: str) -> str:
    """Return the ``access_token``, if the text is JSON, else the text."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    if not isinstance(content, dict):
        return text
    if not isinstance(content.get("access_token"), str):
        raise AuthenticationError(f"{where} holds JSON without an access_token")
    return str(content["access_token"])


def expiry(token: str) -> float | None:
    """Return the seconds since the epoch at which a JWT says that it expires; None if it does not say, or is not a JWT.

    The signature is not verified: this is for a clear sentence before a request, not for trust.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        at = float(payload["exp"])
        return at if abs(at) <= _LATEST else None
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError):
        return None


def base_url(url: str | None = None, profile: str | None = None) -> str:
    """Return the API's address, from the argument, ``PROMINENCE_URL`` or a profile, without a slash at its end."""
    url = url or service_url(profile)
    if not url:
        raise InvalidRequestError(
            "there is no URL of the service: give the url argument or set PROMINENCE_URL, or have one in a profile "
            "(prominence-executor config set url=...)"
        )
    return checked_url(url)


def verification(verify: bool | str | os.PathLike[str] | None = None) -> bool | str:
    """Return whether to verify certificates, or the CA bundle to do so with.

    It comes from the argument, else from the variable ``PROMINENCE_SSL_VERIFY``, and is True by default.
    """
    given = os.environ.get("PROMINENCE_SSL_VERIFY", "") if verify is None else verify
    if isinstance(given, bool):
        return given
    given = str(os.fspath(given))
    if given.lower() in ("", "1", "true", "yes", "on"):
        return True
    if given.lower() in ("0", "false", "no", "off"):
        return False
    if not os.path.exists(given):
        raise InvalidRequestError(f"verify or PROMINENCE_SSL_VERIFY names a CA bundle that does not exist: {given}")
    return given
