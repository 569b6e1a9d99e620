"""Modules that have moved are still found under their old names: pickles of earlier versions have them, and programs.

A module that moves gets a line in `MOVED`, and so does a name of it when the module is split, or when its own name has
become a folder's. Nothing here is asked for a module that is there. There is no warning, which would make an error of
loading a pickle where warnings are errors. It imports nothing of this package before it is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader  # whose import costs more than the rest of this package

_PACKAGE = __name__.rpartition(".")[0]

MOVED: dict[str, str] = {
    # "old.module": "new.module", or "old.module:name": "new.module"; both without the package's name
    "imagecheck": "executor.image_check",
    "job": "client.job",
    "model": "client.model",
    "payload:RemoteTraceback": "payload.results",
    "pickling": "payload.pickling",
    "reports.service": "runs.report",
    "warm:WorkerInfo": "transports.warm.state",
    "workflow": "client.workflow",
}


class OldNames:
    """Finds and loads a module under its old name; it then looks everything up where that is now."""

    def __init__(self, package: str, moved: Mapping[str, str]) -> None:
        self._package = package
        self._moved = moved

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module under its old name; None for all other names."""
        old = self._old(fullname)
        if old and any(key.partition(":")[0] == old for key in self._moved):
            is_package = any(key.startswith(f"{old}.") for key in self._moved)
            return ModuleSpec(fullname, cast("Loader", self), is_package=is_package)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a ``__getattr__`` that looks its names up where they are now."""
        vars(module)["__getattr__"] = self.names_of(module.__name__)

    def names_of(self, fullname: str) -> Callable[[str], Any]:
        """Make the ``__getattr__`` of a module (PEP 562) that looks up the names that it had."""
        old = self._old(fullname)

        def find(name: str) -> Any:
            place = self._moved.get(f"{old}:{name}", self._moved.get(old))
            # A module's own attributes, such as its path, are not those of another one.
            if place is None or (name.startswith("__") and name != "__all__"):
                raise AttributeError(f"module {fullname!r} has no attribute {name!r}")
            return getattr(import_module(f"{self._package}.{place}"), name)

        return find

    def _old(self, fullname: str) -> str:
        """Return the name without the package's, or nothing."""
        package, _, old = fullname.partition(".")
        return old if package == self._package else ""


_old_names = OldNames(_PACKAGE, MOVED)


def names_of(fullname: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a folder that has the name of a module whose names are in `MOVED`."""
    return _old_names.names_of(fullname)


def install() -> None:
    """Let the import system ask here last, once."""
    if _old_names not in sys.meta_path:
        sys.meta_path.append(_old_names)
