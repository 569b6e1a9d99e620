"""`Lock`: the versions that were chosen for requirements, with the hashes of their wheels. It reads no file."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..formats import newer
from .platforms import target
from .wanted import Wanted, normalized

FORMAT = 1
PYTHON = "{}.{}".format(*sys.version_info[:2])

_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?:==(?P<version>[^\s;\\]+)|\s*@\s*(?P<url>\S+))"
)


@dataclass(frozen=True)
class Lock:
    """Chosen versions.

    Attributes:
        text: a requirements.txt with hashes, which both uv and pip read.
        tool: what has chosen them.
        python: the minor version of Python that they are for.
    """

    wanted: Wanted
    text: str
    tool: str = ""
    python: str = PYTHON

    @property
    def digest(self) -> str:
        """The SHA-256 of all that decides what the packages' archive has in it."""
        parts = (FORMAT, self.text, self.wanted.target.name, self.python)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def versions(self) -> dict[str, str]:
        """The version of each package, or the address of its wheel, by its normalized name."""
        found = (_PACKAGE.match(line) for line in self.text.splitlines())
        return {normalized(match["name"]): match["version"] or match["url"] for match in found if match}

    def plain(self) -> dict[str, Any]:
        """Return it as values that JSON can hold; addresses of indexes are left out."""
        wanted = asdict(replace(self.wanted, indexes=()))
        del wanted["indexes"]
        wanted["target"] = self.wanted.target.name
        return {"format": FORMAT, "wanted": wanted, "text": self.text, "tool": self.tool, "python": self.python}


def lock_from(plain: dict[str, Any], what: str) -> Lock:
    """Invert `Lock.plain`.

    Raises:
        ValueError: a newer version has written it, or it is damaged; ``what`` names it.
    """
    try:
        found = int(plain["format"])
        if found > FORMAT:
            raise ValueError(newer(what, found, FORMAT))
        parts = plain["wanted"]
        wanted = Wanted(
            tuple(parts["lines"]),
            target(parts["target"]),
            tuple(parts["constraints"]),
            bool(parts["pre"]),
            tuple((name, value) for name, value in parts["hashes"]),
        )
        return Lock(wanted, str(plain["text"]), str(plain["tool"]), str(plain["python"]))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{what} is damaged: {type(error).__name__}: {error}") from None


def lock_text(packages: Iterable[tuple[str, Iterable[str]]], wanted: Wanted) -> str:
    """Return the text of a lock: (``name==version``, hashes) of each package.

    Where the user insists on hashes of a package, these alone count.
    """
    insisted: dict[str, set[str]] = {}
    for name, value in wanted.hashes:
        insisted.setdefault(name, set()).add(value)
    lines = []
    for package, hashes in sorted(packages):
        match = _PACKAGE.match(package)
        chosen = insisted.get(normalized(match["name"]) if match else "") or set(hashes)
        lines.append(" ".join([package, *(f"--hash={value}" for value in sorted(chosen))]))
    return "".join(f"{line}\n" for line in lines)


def packages_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what `lock_text` takes of a requirements.txt with hashes."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line and not line.startswith("-"):
            package, *hashes = re.split(r"\s+--hash[= ]", line)
            yield package.strip(), [value.strip() for value in hashes]
