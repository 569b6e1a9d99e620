"""Profiles: where a service is and how jobs run there, under a name, in one file of the user's.

    [default]                                  [slurm-test]
    url = https://host/prominence/v1           url = http://login1:8080/prominence/v1
    token_file = ~/secrets/prominence          image = /shared/images/py311.sif
    image = python:3.11-slim                   cpus = 2

It reads and writes that file, and sends nothing. A token in it is shown to nobody: not in a repr, not in a message.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import AuthenticationError, InvalidRequestError

__all__ = [
    "FIELDS", "SECRET", "Profile", "change_profile", "checked_url", "find_profile", "profiles", "profiles_file",
    "service_url", "shown_url",
]  # fmt: skip

DEFAULT = "default"
SECRET = "token"  # noqa: S105  the name of the field
RESOURCES = ("cpus", "memory", "disk", "nodes", "walltime")
FIELDS = ("url", SECRET, "token_file", "image", "runtime", *RESOURCES)
STARTED = ("local", "slurm")  # instead of an address: services that are started, or found
_VARIABLE = "PROMINENCE_PROFILE"


@dataclass(frozen=True)
class Profile:
    """One profile, as it stands in the file.

    Attributes:
        chosen_by: how it came to be chosen, in words; "" where nobody named one.
        asked_for: it was named in the program or on the command line, and so goes before environment variables.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    chosen_by: str = ""
    asked_for: bool = False

    def get(self, name: str) -> str | None:
        """Return a field's text; None where the profile does not have it."""
        return self.values.get(name) or None

    def is_for(self, url: str | None) -> bool:
        """Return whether its token may go to this service: the one that it names, any if it names none."""
        own = self.get("url")
        return own is None or not url or own.rstrip("/") == url.rstrip("/")

    def resources(self) -> dict[str, int]:
        """Return what it says of a job's resources, by the names of `Resources`.

        Raises:
            InvalidRequestError: one of them is no number.
        """
        found = {name: self.values[name] for name in RESOURCES if name in self.values}
        for name, text in found.items():
            if not re.fullmatch("[0-9]{1,9}", text):
                raise InvalidRequestError(f"{name} of profile {self.name!r} must be a whole number, not {text!r}")
        return {name: int(text) for name, text in found.items()}

    def token(self) -> str | None:
        """Return the text that the token is in: its own, or what is in its ``token_file``; None where it has neither.

        Raises:
            AuthenticationError: the file cannot be read, or others can read the one in which a token itself stands.
        """
        if (text := self.get(SECRET)) is not None:
            if _others_may_read(profiles_file()):
                raise AuthenticationError(
                    f"{profiles_file()} holds a token, and others can read it: chmod 600 {profiles_file()}"
                )
            return text
        if (path := self.get("token_file")) is None:
            return None
        try:
            return Path(path).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            # A UnicodeDecodeError holds the bytes it stumbled over, so the cause stays out.
            what = f"the token_file of profile {self.name!r}, {path}, cannot be read: {type(error).__name__}"
            raise AuthenticationError(what) from None


def profiles_file() -> Path:
    """Return where the profiles are: ``PROMINENCE_CONFIG``, or ``~/.prominence/config.ini``."""
    return Path(os.environ.get("PROMINENCE_CONFIG") or os.path.join("~", ".prominence", "config.ini")).expanduser()


def profiles() -> dict[str, Profile]:
    """Read all profiles, by their names; none where there is no file.

    Raises:
        InvalidRequestError: the file is not one of profiles.
    """
    return _parsed(_read(profiles_file()))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {type(error).__name__}") from None


def _parsed(text: str) -> dict[str, Profile]:
    if not text:
        return {}
    import configparser  # only who has such a file needs it

    parser = configparser.ConfigParser(interpolation=None, default_section="")
    path = profiles_file()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # Its own text holds lines of the file, in which a token may be.
        number = getattr(error, "lineno", None)
        where = f", line {number}" if number else ""
        raise InvalidRequestError(f"{path}{where} is not as a file of profiles is ({type(error).__name__})") from None
    found = {}
    for name in parser.sections():
        values = dict(parser.items(name))
        for unknown in values.keys() - set(FIELDS):
            raise InvalidRequestError(f"{path}: profile {name!r} has {unknown!r}, which is none of {', '.join(FIELDS)}")
        found[name] = Profile(name, values)
    return found


def find_profile(name: str | None = None) -> Profile:
    """Return the profile of this name, else the one that ``PROMINENCE_PROFILE`` names, else ``default``, if any.

    Raises:
        InvalidRequestError: there is none of the name that was asked for.
    """
    asked, by = name or os.environ.get(_VARIABLE), "as asked" if name else f"by {_VARIABLE}"
    known = profiles()
    if not asked:
        return known.get(DEFAULT, Profile(""))
    if asked not in known:
        others = f"; there are {', '.join(sorted(known))}" if known else ", nor any other one"
        raise InvalidRequestError(f"there is no profile {asked!r} in {profiles_file()}{others}")
    return Profile(asked, known[asked].values, by, asked_for=bool(name))


def service_url(profile: str | None = None) -> str | None:
    """Return what the environment or a profile says where the service is; a profile that is asked for goes first."""
    variable = os.environ.get("PROMINENCE_URL") or None
    if variable is not None and not profile:
        return variable
    return find_profile(profile).get("url") or variable


def checked_url(url: str) -> str:
    """Return the API's address without a slash at its end.

    Raises:
        InvalidRequestError: it is none, or has a password in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidRequestError(f"the service's URL is none: {shown_url(url)!r}") from None
    if parts.username or parts.password:
        raise InvalidRequestError(
            "the service's URL must not contain a user name or password: the service takes tokens"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidRequestError(
            f"the service's URL must look like https://host/prominence/v1, not {shown_url(url)!r}"
        )
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """Return it without the user name and password that may stand in it."""
    scheme, colon, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{colon}(hidden)@{rest.rpartition('@')[2]}" if "@" in rest else url


def change_profile(name: str, changes: Mapping[str, str | None]) -> Profile | None:
    """Set fields of a profile, which need not exist; None takes one away, and the last one the profile.

    The file appears whole, with its other lines as they were, and is for the user alone. Returns the profile as it is
    then.

    Raises:
        InvalidRequestError: a field that there is not, or a value that it cannot have.
        OSError: the file cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
        raise InvalidRequestError(f"a profile's name must be letters, digits, '_', '.' or '-', not {name!r}")
    text = _read(profiles_file())
    known = {other: dict(profile.values) for other, profile in _parsed(text).items()}
    if name not in known and all(value is None for value in changes.values()):
        raise InvalidRequestError(f"there is no profile {name!r} in {profiles_file()}")
    values = known.setdefault(name, {})
    wanted: dict[str, str | None] = {}
    for field_name, value in changes.items():
        if field_name not in FIELDS:
            raise InvalidRequestError(f"a profile has no {field_name!r}: it has {', '.join(FIELDS)}")
        if value is None:
            values.pop(field_name, None)
        elif not value.strip() or "\n" in value or "\r" in value:
            raise InvalidRequestError(f"{field_name} must be one line that is not empty")
        else:
            values[field_name] = value.strip()
            if field_name == "url" and value.strip() not in STARTED:
                checked_url(value.strip())
        wanted[field_name] = values.get(field_name)
    Profile(name, values).resources()
    changed = _edited(text, name, wanted)
    there = {other: profile.values for other, profile in _parsed(changed).items() if profile.values}
    if there != {other: fields for other, fields in known.items() if fields}:
        raise InvalidRequestError(
            f"{profiles_file()} has profile {name!r} in a form that cannot be changed here "
            "(as values of several lines): edit the file"
        )
    _write(changed)
    return Profile(name, values) if values else None


def _edited(text: str, name: str, changes: Mapping[str, str | None]) -> str:
    """Change lines of a profile, and leave the others as they are, comments too; its head goes with its last field."""
    lines = text.splitlines()
    heads = [at for at, line in enumerate(lines) if re.match(r"\[.+\]", line)]
    start = next((at for at in heads if lines[at].strip() == f"[{name}]"), None)
    if start is None:
        lines += [*([""] if lines and lines[-1].strip() else []), f"[{name}]"]
        start = len(lines) - 1
    end = next((at for at in heads if at > start), len(lines))
    body = lines[start + 1 : end]
    for field_name, value in changes.items():
        found = [at for at, line in enumerate(body) if re.match(rf"{field_name}\s*[=:]", line, re.IGNORECASE)]
        if found:
            body[found[0] : found[0] + 1] = [] if value is None else [f"{field_name} = {value}"]
        elif value is not None:
            last = max((at for at, line in enumerate(body) if line.strip() and line[0] not in "#;"), default=-1)
            body.insert(last + 1, f"{field_name} = {value}")
    is_empty = not any(line.strip() and line.lstrip()[0] not in "#;" for line in body)
    lines[start:end] = [*([] if is_empty else [lines[start]]), *body]
    return "\n".join(lines).rstrip("\n") + "\n" if lines else ""


def _write(text: str) -> None:
    """Put a file in the place of the one that is there, also where that is reached by a link."""
    path = Path(os.path.realpath(profiles_file()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # mode 0600
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def _others_may_read(path: Path) -> bool:
    """Return whether the file is open to others, where files have such modes."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
