"""What an initializer changed in its script: no arguments of a call undo it, and scripts of later functions have it.

The initializer runs once in a process, as in the standard library, in the script of the first function. It may set
global variables and attributes of classes and functions; it may also change a value in its place (a dictionary): that
is seen by the value's pickle before and after, unless there is none, or it is very large.
"""

import hashlib
import pickle
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

LARGE = 1 << 24  # bytes of a pickle that is not made to see whether a value has changed in its place
_FIXED = (
    type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, types.BuiltinFunctionType,
    types.ModuleType,
)  # fmt: skip


class Inheritance:
    """Made before the initializer runs, and told when it has."""

    def __init__(self, script):
        self._script = script
        self._before = {place: (value, _print_of(value)) for place, value in _places(script.names).items()}
        self._taken = ({}, {}, {})  # type: Any

    def take(self):
        """Look at what the initializer has left."""
        values, attributes = {}, {}  # type: dict[str, object], dict[str, dict[str, object]]
        for place, value in _places(self._script.names).items():
            before = self._before.get(place)
            if before is None or before[0] is not value or before[1] != _print_of(value):
                owner, name = place
                (values if owner is None else attributes.setdefault(owner, {}))[name] = value
        everything = [*values.values(), *(value for found in attributes.values() for value in found.values())]
        kinds = {kind for value in everything for kind in type(value).__mro__}
        classes = {mark: kind for mark, kind in self._script.classes.items() if kind in kinds}
        self._script.keep(values, attributes)
        self._taken = values, attributes, classes
        self._before = {}

    def give(self, script):
        """Let another script, into which nothing has been loaded yet, begin with that."""
        script.inherit(*self._taken)

    def complete(self, script):
        """Set the attributes of that script's classes and functions, which have been loaded now."""
        for owner, attributes in self._taken[1].items():
            target = script.names.get(owner)
            for name, value in attributes.items():
                if target is not None and vars(target).get(name) is not value:
                    setattr(target, name, value)


def _places(names):
    """Return all values that the initializer may set: by None and variable, or by class or function and attribute."""
    found = {}  # type: dict[tuple[str | None, str], object]
    for name, value in list(names.items()):
        if name[:2] != "__":
            found[None, name] = value
            if isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__":
                for attribute, content in list(vars(value).items()):
                    if attribute[:2] != "__":
                        found[name, attribute] = content
    return found


class _Fingerprint:
    """A file to pickle into, of which a digest remains."""

    def __init__(self):
        self.digest = hashlib.sha256()
        self._left = LARGE

    def write(self, data):
        """Take a piece; OverflowError when it becomes too much."""
        view = memoryview(data)
        self._left -= view.nbytes
        if self._left < 0:
            raise OverflowError
        self.digest.update(view)


def _print_of(value):
    """Return the digest of a value that may be changed in its place; None if it cannot be, or is not looked at."""
    if isinstance(value, _FIXED):
        return None
    file = _Fingerprint()
    try:
        pickle.Pickler(file, protocol=5, buffer_callback=lambda buffer: file.write(buffer.raw())).dump(value)
    except BaseException:  # __reduce__ is somebody else's code
        return None
    return file.digest.digest()
