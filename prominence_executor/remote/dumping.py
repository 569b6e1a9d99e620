"""Pickles what a script defines by value, whatever it is: `ScriptPickler` writes calls at the client, results in a job.

cloudpickle does so with functions and classes of ``__main__``. Here their global variables become one namespace, that
of the script (definitions.py makes it out of the pickle again), and what the standard library pickles by its name alone
(functions with a cache, singletons, type variables) goes by value, too.

It reads nothing.
"""

import copyreg
import functools
import pickle
import sys
import types
import typing
from collections import ChainMap

import cloudpickle

from . import clouds, definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

_DISPATCHING = functools.singledispatch(str).__code__  # type: ignore[attr-defined]
_OF_DISPATCHING = frozenset(("register", "dispatch", "registry", "_clear_cache", "__wrapped__"))
_OF_CACHED = frozenset(("__wrapped__", "cache_parameters"))
_OF_FUNCTIONS = ("__module__", "__name__", "__qualname__", "__doc__")
_TYPING = {"ParamSpec": ("bound", "covariant", "contravariant"), "TypeVarTuple": ()}
_TYPING_NAMES = {getattr(typing, name): options for name, options in _TYPING.items() if hasattr(typing, name)}
_ALIAS = getattr(typing, "TypeAliasType", None)
_OWN = {func: name for name, func in definitions.CALLED.items()}
_HEAP_TYPE = 1 << 9  # in __flags__: made by a class statement


class Marker:
    """Stands for the global variables of the script, as a whole.

    ``origin``: which program's script that is; see `definitions.Space.namespace`.
    """

    def __init__(self, origin):
        # type: (str) -> None
        self.origin = origin


def _code_reduce(code):
    """Reduce code as cloudpickle does, with the name of its file, which some versions leave out."""
    maker, args = clouds.reduce_code(code)
    return maker, tuple(code.co_filename if type(arg) is str and arg == "<dynamic-code>" else arg for arg in args)


def _property_reduce(found):
    """Reduce a cached property without its lock."""
    return functools.cached_property, (found.func,), {"attrname": found.attrname, "__doc__": found.__doc__}


_TABLE = {**clouds.REDUCERS, types.CodeType: _code_reduce}
if hasattr(functools.cached_property(lambda self: None), "lock"):  # before Python 3.12
    _TABLE[functools.cached_property] = _property_reduce


def goes_by_value(module):
    # type: (object) -> bool
    """Return whether the program has told cloudpickle that all of a module goes by value: it need not travel itself.

    What one of a package imports by a relative name is found in the package, which travels all the same.
    """
    return isinstance(module, str) and "." not in module and module in cloudpickle.list_registry_pickle_by_value()


class ScriptPickler(cloudpickle.Pickler):
    """Writes one pickle. It notes the modules that this refers to by name, and the code of the script that is in it.

    ``marker``: what it writes for the variables of ``__main__``.
    """

    dispatch_table = ChainMap(_TABLE, copyreg.dispatch_table)
    places = {}  # type: dict[int, tuple[object, str]]  # by id: what the script has by a name that is not known here

    def __init__(self, file, marker, buffer_callback=None):
        # type: (Any, Marker, Any) -> None
        super().__init__(file, 5, buffer_callback)
        self.modules = set()  # type: set[str]
        self.code = set()  # type: set[types.CodeType]
        self.variables = sys.modules["__main__"].__dict__
        self.marker = marker
        self.globals_ref[id(self.variables)] = marker  # cloudpickle's: what stands for which namespace

    def reducer_override(self, obj):
        # type: (Any) -> Any
        """Reduce whatever is no number, text, or collection. It is asked about each object: most asked comes first."""
        kind = type(obj)
        if kind is types.FunctionType:
            return _OWN.get(obj) or self.reduce_function(obj)
        if kind is type or issubclass(kind, type):
            return self.reduce_class(obj)
        if kind in _TABLE:
            return NotImplemented
        special = self.special.get(kind)
        if special is not None:
            return special(self, obj)
        if issubclass(kind, types.ModuleType):
            return self._module(obj)
        registered = copyreg.dispatch_table.get(kind)
        reduced = obj.__reduce_ex__(5) if registered is None else registered(obj)
        if type(reduced) is str:
            return self._by_name(obj, reduced)
        return reduced

    def _module(self, module):
        self.modules.add(module.__name__)
        return clouds.reduce_module(module)

    # -- functions ---------------------------------------------------------------------------------------------------

    def reduce_function(self, func):
        # type: (types.FunctionType) -> Any
        """Reduce a function, the script's own by value."""
        module = func.__module__
        if goes_by_value(module):
            self.code.add(func.__code__)  # what it imports itself
        elif isinstance(module, str):
            self.modules.add(module)
        is_own = func.__globals__ is self.variables
        if module != "__main__":
            reduced = super().reducer_override(func)
            if reduced is NotImplemented:
                return reduced
            if func.__code__ is _DISPATCHING:
                return self._dispatching(func)
            if not is_own:
                return reduced
        elif func.__code__ is _DISPATCHING:
            return self._dispatching(func)
        code = func.__code__
        self.code.add(code)
        state, slots = clouds.function_state(func)
        variables = self.marker if is_own else clouds.variables_of(self, func)
        qualname = func.__qualname__
        name = qualname if "." not in qualname and self.variables.get(qualname) is func else None
        cells = None if func.__closure__ is None else len(code.co_freevars)
        made = None if name is None else self.marker, name, code, variables, cells
        return definitions.function, made, (state, slots, name), None, None, definitions.set_function

    def _cached(self, obj):
        """Reduce what `functools.lru_cache` makes, unless a module has it."""
        module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
        if isinstance(module, str):
            self.modules.add(module)
            if module != "__main__" and definitions.resolve(vars(sys.modules.get(module, object)), qualname) is obj:
                return NotImplemented
        options = obj.cache_parameters()
        attributes = {name: value for name, value in vars(obj).items() if name not in _OF_CACHED}
        made = (*self._place(obj, qualname), options["maxsize"], options["typed"], obj.__wrapped__)
        return definitions.cached, made, (attributes, made[1]), None, None, definitions.set_value

    def _dispatching(self, func):
        """Reduce what `functools.singledispatch` makes."""
        registry = dict(func.registry)
        attributes = {name: value for name, value in vars(func).items() if name not in _OF_DISPATCHING}
        attributes.update((name, getattr(func, name)) for name in _OF_FUNCTIONS)
        made = (*self._place(func, func.__qualname__), registry.pop(object))
        state = attributes, made[1], list(registry.items())
        return definitions.dispatching, made, state, None, None, definitions.set_dispatching

    # -- classes -----------------------------------------------------------------------------------------------------

    def reduce_class(self, kind):
        # type: (type) -> Any
        """Reduce a class, the script's own by value."""
        module = getattr(kind, "__module__", None)
        if isinstance(module, str) and not goes_by_value(module):
            self.modules.add(module)
        reduced = super().reducer_override(kind)
        if type(reduced) is not tuple or len(reduced) < 6:
            return reduced
        maker, args, state = reduced[:3]
        if maker is clouds.make_class:
            _complete(kind, args[3], state[0])
        if module != "__main__":
            return reduced
        names, name = self._place(kind, kind.__qualname__)
        if name is None:
            return reduced
        made = names, name, maker, *args
        return definitions.script_class, made, (state, name), None, None, definitions.set_script_class

    def _place(self, obj, qualname):
        """Return the script's marker and an object's name there; None for both if it has none."""
        found = self.variables.get(qualname)
        if found is None and "." in qualname:
            found = definitions.resolve(self.variables, qualname)
        return (self.marker, qualname) if found is obj or id(obj) in self.places else (None, None)

    # -- what pickles by its name ------------------------------------------------------------------------------------

    def _by_name(self, obj, name):
        """Leave the name of another module's object; the script's goes by value."""
        module = pickle.whichmodule(obj, name)  # type: ignore[attr-defined]
        self.modules.add(module)
        kind = type(obj)
        if module != "__main__":
            return name
        if kind in _TYPING_NAMES:
            options = {option: getattr(obj, "__%s__" % option) for option in _TYPING_NAMES[kind]}
            if getattr(obj, "has_default", bool)():
                options["default"] = obj.__default__
            return definitions.typing_name, (self.marker, name, kind, (), options)
        if kind is _ALIAS:
            options = {"type_params": obj.__type_params__}
            return definitions.typing_name, (self.marker, name, kind, (obj.__value__,), options)
        base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
        content = None if base is object else base(obj)
        made = self.marker, name, kind, base, content
        return definitions.named, made, (_attributes(obj), name), None, None, definitions.set_value

    def _type_variable(self, variable):
        reduced = clouds.reduce_type_variable(variable)
        names, name = self._place(variable, variable.__name__)
        if name is None or reduced[0] is getattr:
            return reduced
        options = {option: getattr(variable, "__%s__" % option) for option in ("bound", "covariant", "contravariant")}
        if getattr(variable, "has_default", bool)():
            options["default"] = variable.__default__
        return definitions.typing_name, (names, name, type(variable), variable.__constraints__, options)

    def _namespace(self, marker):
        facts = {name: self.variables[name] for name in ("__file__", "__package__") if self.variables.get(name)}
        return definitions.namespace, (marker.origin, facts)

    # By type; called with the pickler and the object.
    special = {
        definitions.CACHED: _cached,
        typing.TypeVar: _type_variable,
        types.ModuleType: _module,
        Marker: _namespace,
    }


def _complete(kind, kwargs, attributes):
    """Have a class made with its slots and its whole name, which cloudpickle forgets."""
    if kind.__qualname__ != kind.__name__:
        kwargs["__qualname__"] = kind.__qualname__
    if kind.__dict__.get("__slots__"):
        kwargs["__slots__"] = attributes.pop("__slots__")


def _attributes(obj):
    """Return an object's attributes, in its dictionary and in slots."""
    found = dict(getattr(obj, "__dict__", {}))
    for kind in type(obj).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(obj, name):
                found[name] = getattr(obj, name)
    return found
