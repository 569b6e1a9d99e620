"""Which installed package a module is of: a line for ``requirements=`` can be suggested. It imports none of them."""

from __future__ import annotations

import re
import sys
import types
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions, files, packages_distributions, version

from .imports import imports_of_main
from .places import places

_OWN = __name__.partition(".")[0]


def requirement_of(module: str) -> str | None:
    """Return ``name==version`` of the package that has a module here; None where there is none, or it is the user's."""
    top = module.partition(".")[0]
    if places(top):
        return None
    return _requirement(_having(module, _packages().get(top, [])))


def requirements_of_script() -> dict[str, str]:
    """Return the same of all packages that the running script imports, by their names as indexes compare them."""
    main = sys.modules["__main__"]
    names = {*imports_of_main()} | {
        value.__name__ for value in vars(main).values() if isinstance(value, types.ModuleType)
    }
    installed = _packages()
    found = set()
    for name in sorted(names):
        top = name.partition(".")[0]
        is_above = any(other.startswith(f"{name}.") for other in names)  # the name that several packages share
        if top in installed and top != _OWN and not is_above and not places(top):
            found.add(_requirement(_having(name, installed[top])))
    return {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower(): line for line in sorted(filter(None, found))}


def _packages() -> Mapping[str, list[str]]:
    """Return from top-level names to the packages that have them, also of those which only list their files."""
    if sys.version_info >= (3, 11):
        return packages_distributions()
    found: dict[str, list[str]] = defaultdict(list)
    for package in distributions():
        listed = (package.read_text("top_level.txt") or "").split()
        for name in listed or {file.parts[0].partition(".")[0] for file in package.files or ()}:
            found[name].append(package.metadata["Name"])
    return found


def _having(name: str, packages: list[str]) -> list[str]:
    """Return those of the packages that share a top-level name which have this module, or what it is defined in."""
    several = sorted(set(packages))
    while len(several) > 1 and "." in name:
        if found := [package for package in several if _has(package, tuple(name.split(".")))]:
            return found
        name = name.rpartition(".")[0]
    return several


def _has(package: str, stem: tuple[str, ...]) -> bool:
    """Whether a file of it is the module, or lies in it: ``google/protobuf/any.py``, ``google/rpc.abi3.so``."""
    last = len(stem) - 1
    return any(
        file.parts[:last] == stem[:last] and file.parts[last].partition(".")[0] == stem[last]
        for file in files(package) or ()
        if len(file.parts) > last
    )


def _requirement(names: list[str]) -> str | None:
    for name in names:
        try:
            return f"{name}=={version(name).partition('+')[0]}"  # no index has what stands behind the +
        except PackageNotFoundError:
            continue
    return None
