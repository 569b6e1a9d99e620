"""Which installed package a module is of: a line for ``requirements=`` can be suggested. It imports none of them."""

from __future__ import annotations

import re
import sys
import types
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from .imports import imports_of_main
from .places import places

_OWN = __name__.partition(".")[0]


def requirement_of(module: str) -> str | None:
    """Return ``name==version`` of the package that has a module here; None where there is none, or it is the user's."""
    top = module.partition(".")[0]
    if places(top):
        return None
    return _requirement(packages_distributions().get(top, ()))


def requirements_of_script() -> dict[str, str]:
    """Return the same of all packages that the running script imports, by their names as indexes compare them."""
    main = sys.modules["__main__"]
    names = {name.partition(".")[0] for name in imports_of_main()}
    names |= {value.__name__.partition(".")[0] for value in vars(main).values() if isinstance(value, types.ModuleType)}
    installed = packages_distributions()
    found = (_requirement(installed.get(name, ())) for name in sorted(names - {_OWN}) if not places(name))
    return {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower(): line for line in found if line}


def _requirement(names: list[str] | tuple[()]) -> str | None:
    for name in sorted(set(names)):
        try:
            return f"{name}=={version(name).partition('+')[0]}"  # no index has what stands behind the +
        except PackageNotFoundError:
            continue
    return None
