"""What is done inside an official Python image to make one for calls, as Apptainer, Podman and Docker are told it.

A folder, the context, has a script and the requirements; a Containerfile or a definition file says where to run it.
Addresses of package indexes, which may hold passwords, are kept apart in a pip.conf that is in no layer of the image.
It writes and reads files, and runs nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..credentials import has_credentials, without_credentials

INSIDE = "/prominence-build"  # where the context is while the script runs
SECRET = "pip"  # noqa: S105 (its name)
CONFIGURATION = "pip.conf"
AUTHORITIES = "authorities.pem"

# Byte code that is taken as it is, whatever the date of its source is: runtimes unpack images in their own ways.
COMPILE = """
import compileall, py_compile, re, site, sysconfig
for folder in sorted({sysconfig.get_path("stdlib"), *site.getsitepackages()}):
    compileall.compile_dir(
        folder, maxlevels=20, force=True, quiet=2, rx=re.compile("/(tests?|idlelib|lib2to3|turtledemo)/"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""
_CHECK = """
import sys
has = "%d.%d" % sys.version_info[:2]
if has != sys.argv[1]:
    sys.exit("the Python of the base image is " + has + ", not " + sys.argv[1])
"""
_PIP = (
    "python3 -m pip install --no-cache-dir --no-compile --no-input --root-user-action=ignore "
    "--disable-pip-version-check --requirement requirements.txt --constraint constraints.txt"
)
_APT = "apt-get -q -o APT::Sandbox::User=root"  # the other users that apt would be are not there without root
_DEPTH = 10  # of files that name other ones
_PLACES = {  # options that say where packages are found, as pip's configuration calls them
    "-i": "index-url", "--index-url": "index-url", "--extra-index-url": "extra-index-url",
    "-f": "find-links", "--find-links": "find-links", "--trusted-host": "trusted-host",
}  # fmt: skip
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_SEVERAL = ("extra-index-url", "find-links", "trusted-host")


@dataclass(frozen=True)
class Recipe:
    """What an image is to have.

    Attributes:
        base: the image that it is made from.
        python: the minor version that this has, ``X.Y``.
        packages: Debian packages.
        lines: of a requirements.txt.
        constraints: likewise.
        places: where pip finds packages: its configuration's names and values.
        authorities: whom this machine's pip takes certificates of, where it is configured to other ones than usual.
    """

    base: str
    python: str
    packages: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorities: bytes = field(default=b"", repr=False)

    def write(self, context: Path) -> None:
        """Write the files that both kinds of builders need into a new folder."""
        context.mkdir()
        (context / "prepare.sh").write_text(self.script())
        (context / "check.py").write_text(_CHECK)
        (context / "compile.py").write_text(COMPILE)
        (context / "requirements.txt").write_text("".join(f"{line}\n" for line in self.lines))
        (context / "constraints.txt").write_text("".join(f"{line}\n" for line in self.constraints))
        if self.authorities:
            (context / AUTHORITIES).write_bytes(self.authorities)

    def script(self) -> str:
        """Return the script that makes the image of its base."""
        lines = ["set -eu", f"cd {INSIDE}", f"python3 -I check.py {self.python}"]
        if self.packages:
            names = " ".join(map(shlex.quote, self.packages))
            lines += [
                f"{_APT} update",
                f"DEBIAN_FRONTEND=noninteractive {_APT} install --yes --no-install-recommends {names}",
                "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin",
            ]
        lines += [_PIP] if self.lines else []
        return "\n".join([*lines, "python3 -I compile.py", f"cd / && rm -rf {INSIDE}", ""])

    def containerfile(self) -> str:
        """Return the Containerfile; the configuration of pip is its secret, if there is any."""
        secret = f"--mount=type=secret,id={SECRET},target=/run/secrets/{SECRET} " if self.places else ""
        variable = f"PIP_CONFIG_FILE=/run/secrets/{SECRET} " if self.places else ""
        return (
            f"FROM {self.base}\nCOPY . {INSIDE}/\nRUN {secret}{variable}sh {INSIDE}/prepare.sh\n"
            'ENV LANG=C.UTF-8\nCMD ["python3"]\n'
        )

    def definition(self, context: str) -> str:
        """Return Apptainer's definition file, which stays in the image: it says nothing of indexes."""
        variable = f"PIP_CONFIG_FILE={INSIDE}/{CONFIGURATION} " if self.places else ""
        return (
            f"Bootstrap: docker\nFrom: {self.base}\n\n%files\n    {context} {INSIDE}\n\n"
            f"%post\n    {variable}sh {INSIDE}/prepare.sh\n\n%environment\n    export LANG=C.UTF-8\n"
        )

    def configuration(self) -> str:
        """Return the pip.conf."""
        # What has several values is a list; a single one is taken with all that is behind the sign, so on its line.
        lines = (
            f"{name} = " + "\n    ".join(["", *value.split()] if " " in value else [value])
            for name, value in self.places.items()
        )
        return "[global]\n" + "".join(f"{line}\n" for line in lines)


def recipe(
    base: str,
    python: str,
    requirements: Sequence[Path],
    packages: Sequence[str],
    configured: Mapping[str, str],
) -> Recipe:
    """Return what an image is to have; reads requirements with the files that they name.

    Args:
        configured: what this machine's pip is configured to, by its names; the ``cert`` of it is read.

    Raises:
        ValueError: something could not be done in another place, or cannot be what it is.
    """
    if not re.fullmatch(r"[\w.:/@-]+", base):
        raise ValueError(f"base must be the name of an image, not {base!r}")
    for name in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.:~=/-]*", name):
            raise ValueError(f"{name!r} is no Debian package")
    found: dict[str, list[str]] = {"lines": [], "constraints": []}
    places: dict[str, list[str]] = {}
    for path in requirements:
        for kind, text in _read(path, "lines", 0):
            option, _, value = re.sub(r"^(--[a-z-]+)=", r"\1 ", text).partition(" ")
            if option in _PLACES:
                places.setdefault(_PLACES[option], []).append(_place(path, value.strip()))
            else:
                found[kind].append(_checked(path, text))
    given = {name: " ".join(values if name in _SEVERAL else values[-1:]) for name, values in places.items()}
    return Recipe(
        base, python, tuple(packages), tuple(found["lines"]), tuple(found["constraints"]),
        {**_usual(configured), **given}, Path(configured["cert"]).read_bytes() if "cert" in configured else b"",
    )  # fmt: skip


def _usual(configured: Mapping[str, str]) -> dict[str, str]:
    """Return what this machine's pip is configured to, as it holds in an image."""
    usual: dict[str, str] = {}
    for name, value in configured.items():
        words = [word for word in value.split() if not word.startswith("file:")]
        if name == "cert":
            usual[name] = f"{INSIDE}/{AUTHORITIES}"
        elif words:
            usual[name] = " ".join(words)
        elif name == "index-url":
            raise ValueError(
                f"pip's {name} {value!r} is on this machine, and cannot be reached from inside of an image"
            )
    return usual


def _read(path: Path, kind: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file, and of those that it names: which kind each is of, and its text."""
    if depth > _DEPTH:
        raise ValueError(f"{path}: more than {_DEPTH} files name each other")
    text = re.sub(r"\\\r?\n", " ", path.read_text(encoding="utf-8-sig"))
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        named = re.fullmatch(r"(?:-(r|c)\s*|--(requirement|constraint)[\s=]+)(\S.*)", line)
        if named:
            is_constraint = "c" in (named[1] or named[2])[:1]
            yield from _read(path.parent / named[3].strip("'\""), "constraints" if is_constraint else kind, depth + 1)
        elif line:
            yield kind, line


def _place(path: Path, value: str) -> str:
    """Return an address with the variables that are named in it, as pip reads it: an image has none of them."""
    whole = _VARIABLE.sub(lambda found: os.environ.get(found[1]) or found[0], value)
    if whole.startswith("file:") or ("://" not in whole and "/" in whole):
        raise ValueError(f"{path}: {value!r} is on this machine, and cannot be reached from inside of an image")
    return whole


def _checked(path: Path, line: str) -> str:
    if has_credentials(line):
        shown = without_credentials(line)
        raise ValueError(f"{path}: the address of {shown!r} has a password: an index is the place for it")
    if re.match(r"(-e\b|--editable\b|\.{0,2}/|~|file:)", line) or re.search(r"@\s*file:", line):
        raise ValueError(
            f"{path}: {line!r} is on this machine, and cannot be reached from inside of an image; a package of your "
            "own travels with the calls as modules do"
        )
    return line
