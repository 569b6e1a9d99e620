"""Requirements as users give them: a list of PEP 508 strings, a requirements.txt, or a pyproject.toml.

It reads files, and chooses no versions. What stands for a package of the user's own (``-e``) is left out: that travels
as modules do. The addresses of indexes are kept apart, since they may hold passwords: in memory only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..credentials import has_credentials, without_credentials
from .platforms import Target, target

Requirements = Sequence[str] | str | os.PathLike[str]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PEP508 = re.compile(
    rf"(?P<name>{_NAME})\s*(\[[^\]]*\])?\s*"
    r"(@\s*(?P<url>\S+)|\(?\s*(===?|~=|!=|<=|>=|<|>)[^;@]*\)?)?\s*(;.*)?"
)
_INDEXES = (
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-index",
    "--trusted-host",
)  # how packages are found
_SHORT = {"-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-c": "--constraint", "-e": "--editable"}
_NEEDLESS = ("--prefer-binary", "--require-hashes", "--only-binary", "--use-feature")
_DEPTH = 10  # of files that name other ones


@dataclass(frozen=True)
class Wanted:
    """What is to be chosen, and for which machines."""

    lines: tuple[str, ...]
    target: Target
    constraints: tuple[str, ...] = ()
    pre: bool = False
    hashes: tuple[tuple[str, str], ...] = ()  # that the user insists on: (normalized name, "sha256:...")
    indexes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def key(self) -> str:
        """A digest of it, and of the addresses of indexes without passwords; the same in every program."""
        shown = [without_credentials(line) for line in self.indexes]
        parts = (self.lines, self.target.name, self.constraints, self.pre, self.hashes, shown)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def normalized(name: str) -> str:
    """Return a package's name in the one form that indexes compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirements: Requirements, platform: str | None = None) -> Wanted:
    """Read requirements.

    Raises:
        FileNotFoundError: the file, or one that it names, is not there.
        ValueError: something is no requirement, or can be none here.
        TypeError: neither a path nor a list of strings.
    """
    found = _Found()
    if isinstance(requirements, (str, os.PathLike)):
        path = Path(requirements)
        if not path.is_file():
            text = f"requirements: there is no file {os.fspath(path)}"
            if isinstance(requirements, str) and _PEP508.fullmatch(requirements):
                text += f"; packages are given as a list: requirements=[{requirements!r}]"
            raise FileNotFoundError(text)
        if path.suffix == ".toml":
            found.take_list(_of_project(path), f"{path}")
        else:
            found.take_file(path)
    else:
        found.take_list(requirements, "requirements")
    return found.wanted(target(platform))


class _Found:
    """What has been read so far."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._constraints: dict[str, None] = {}
        self._hashes: dict[tuple[str, str], None] = {}
        self._indexes: dict[str, None] = {}
        self._pre = False

    def wanted(self, target: Target) -> Wanted:
        lines, constraints, hashes = tuple(self._lines), tuple(self._constraints), tuple(self._hashes)
        return Wanted(lines, target, constraints, self._pre, hashes, tuple(self._indexes))

    def take_list(self, items: Any, where: str) -> None:
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{where}: a requirement is a string such as 'numpy>=2', not {item!r}")
            self._lines[_checked(item, where)] = None

    def take_file(self, path: Path, depth: int = 0, constraint: bool = False) -> None:
        if depth > _DEPTH:
            raise ValueError(f"{path}: more than {_DEPTH} files name each other")
        for line in _lines_of(path):
            if line.startswith("-"):
                self._take_option(path, line, depth)
                continue
            line, *hashes = re.split(r"\s+--hash[= ]", line)
            line = _checked(_with_name(line, path), f"{path}")
            (self._constraints if constraint else self._lines)[line] = None
            match = _PEP508.fullmatch(line)
            for value in hashes:
                self._hashes[normalized(match["name"]) if match else "", value.strip()] = None

    def _take_option(self, path: Path, line: str, depth: int) -> None:
        first, _, rest = line.partition("=") if re.match(r"--[a-z-]+=", line) else line.partition(" ")
        if first[:2] in _SHORT and not line.startswith("--"):
            first, rest = _SHORT[first[:2]], line[2:]
        name, value = first, rest.strip().strip("'\"")
        if name in ("--requirement", "--constraint"):
            self.take_file(path.parent / value, depth + 1, name == "--constraint")
        elif name in _INDEXES:
            if name == "--find-links" and "://" not in value:
                value = os.fspath((path.parent / value).resolve())
            self._indexes[f"{name} {value}".strip()] = None
        elif name == "--pre":
            self._pre = True
        elif name not in (*_NEEDLESS, "--editable"):
            shown = without_credentials(line)
            raise ValueError(f"{path}: {shown!r} cannot be heeded: wheels from an index travel, nothing is built")


def _lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a requirements.txt, joined where one goes on, without comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of requirements: {error}") from None
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield line


def _with_name(line: str, path: Path) -> str:
    """Return a line that is the path, or the address, of a wheel with the name that it needs."""
    place = line.partition(";")[0].strip()
    if not place.endswith(".whl") or _PEP508.fullmatch(line):
        return line
    name = unquote(place.rpartition("/")[2]).partition("-")[0]
    return f"{name} @ {place if '://' in place else (path.parent / place).resolve().as_uri()}"


def _checked(item: str, where: str) -> str:
    """Return a requirement, or raise ValueError: it is none, or can be none here."""
    item = " ".join(item.split())
    match = _PEP508.fullmatch(item)
    if has_credentials(item):
        shown = without_credentials(item)
        raise ValueError(f"{where}: the address of {shown!r} has a password: ~/.netrc or an index is the place for it")
    if match is None:
        raise ValueError(
            f"{where}: {item!r} is no requirement such as 'numpy>=2' (a package of your own needs none: it travels as "
            "modules do, where it is installed by pip install -e, or lies beside the program)"
        )
    if match["url"] and not urlsplit(match["url"]).path.endswith(".whl"):
        raise ValueError(
            f"{where}: {item!r} is no wheel, and nothing is built; a package of your own travels as modules do, where "
            "it is installed by pip install -e"
        )
    return item


def _of_project(path: Path) -> list[str]:
    """Return the dependencies of a pyproject.toml; the project itself travels as modules do."""
    try:
        import tomllib as toml  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            import tomli as toml  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            raise ValueError(f"{path}: reading it needs Python 3.11 or later, or the package tomli") from None
    try:
        project = toml.loads(path.read_text(encoding="utf-8")).get("project", {})
    except ValueError as error:
        raise ValueError(f"{path} is no pyproject.toml: {error}") from None
    if "dependencies" in project.get("dynamic", ()):
        raise ValueError(
            f"{path}: its dependencies are dynamic; a list of them, or a requirements.txt, says what they are"
        )
    dependencies = project.get("dependencies")
    if not isinstance(dependencies, list):
        raise ValueError(f"{path} has no list [project] dependencies")
    return dependencies
