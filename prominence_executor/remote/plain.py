"""Pickles a job's results: what needs nothing of cloudpickle without it, since its import costs more than most calls.

Numbers, texts, collections, arrays, exceptions, instances of what modules define: pickle's own C code writes them, and
a `PlainPickler` makes sure that it is nothing else, no function or class of the script above all. For all else, and if
cloudpickle is there anyway, there is the whole (dumping.py). What goes back is the same to its reader.

No Python code of somebody else's is asked here, as that might do something, and the whole would ask it again.
"""

import copyreg
import io
import sys
import types

from .lean import Pickler

HELD = 1 << 24  # bytes of a pickle that are held back until it is known that it can be written like this
# Python's own pickler, if there is no C one, asks about these, too; of a complex number either knows.
_SIMPLE = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset))
# Of builtins there are too many that only cloudpickle can pickle: cells, code, views of dictionaries.
_BUILTIN = frozenset((range, slice, object, type(iter([])), type(iter(())), type(iter(""))))
# Their classes may be among those of which cloudpickle makes something of its own.
_ELABORATE = frozenset(
    ("__main__", "_io", "_weakrefset", "abc", "dataclasses", "enum", "functools", "io", "logging", "typing")
)
_OF_C = (types.MethodDescriptorType, types.WrapperDescriptorType)
_HOOKS = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")


class Elaborate(Exception):
    """It takes all of cloudpickle."""


class PlainPickler(Pickler):
    """Writes one pickle; raises `Elaborate` unless it is one that any Python reads.

    It notes the modules to which this refers.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.modules = set()  # type: set[str]

    def reducer_override(self, obj):
        """Say how to pickle whatever is no number, text, or collection."""
        kind = type(obj)
        if issubclass(kind, (type, types.FunctionType, types.BuiltinFunctionType)):
            by_reference(obj)
            self.modules.add(obj.__module__)
            return NotImplemented
        if kind in _SIMPLE:
            return NotImplemented
        if is_plain(kind) and kind not in copyreg.dispatch_table:
            reduced = obj.__reduce_ex__(5)
            if type(reduced) is tuple:  # not a name
                return reduced
        raise Elaborate


def by_reference(obj):
    """Make sure that a module has it by its name; raises `Elaborate` otherwise."""
    module = sys.modules.get(obj.__module__) if isinstance(obj.__module__, str) else None
    name = str(getattr(obj, "__qualname__", ""))
    if obj.__module__ != "__main__" and isinstance(module, types.ModuleType) and vars(module).get(name) is obj:
        return
    raise Elaborate


def is_plain(kind):
    """Return whether an object of a class is pickled by C code alone, and in the usual way."""
    if kind in _BUILTIN:
        return True
    if kind.__module__ in _ELABORATE or issubclass(kind, types.ModuleType):
        return False
    if kind.__module__ == "builtins" and not issubclass(kind, BaseException):
        return False
    for name in _HOOKS:
        hook = getattr(kind, name, None)
        if hook is not None and not isinstance(hook, _OF_C):
            return False
    return True


class Held:
    """What has been written of a pickle that may be given up yet."""

    def __init__(self):
        self.pieces = []  # type: list[memoryview]
        self._left = HELD

    def write(self, data):
        """Keep a piece, which the pickler does not change any more."""
        view = memoryview(data)
        self._left -= view.nbytes
        if self._left < 0:
            raise Elaborate
        self.pieces.append(view)
        return view.nbytes


class Dumper:
    """What a job's results are pickled with, as with the module `cloudpickle`: they go back to the script's origin."""

    def __init__(self, script):
        self._script = script

    def dump(self, value, file, protocol=5, buffer_callback=None, begin=None):
        """Pickle a value into a file; return the modules to which it refers by name.

        ``begin`` is called if it begins anew, for the callback has seen buffers then.
        """
        if "cloudpickle" not in sys.modules:
            held = Held()
            try:
                plain = PlainPickler(held, 5, buffer_callback=buffer_callback)
                plain.dump(value)
            except Exception:  # Elaborate; whatever else there is to say of it, the whole says
                if begin is not None:
                    begin()
            else:
                for piece in held.pieces:
                    file.write(piece)
                return plain.modules
        from .dumping import Marker, ScriptPickler

        pickler = ScriptPickler(file, Marker(self._script.origin), buffer_callback)
        pickler.places = self._script.places
        pickler.dump(value)
        return pickler.modules

    def dumps(self, value, protocol=5):
        """Return the pickle of a value."""
        file = io.BytesIO()
        self.dump(value, file, protocol)
        return file.getvalue()
