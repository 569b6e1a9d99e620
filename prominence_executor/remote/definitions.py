"""What pickles of a script's definitions call when they are loaded: in a job, and back at the client.

What ``__main__`` defines travels by value in both directions; dumping.py writes such pickles, which name the functions
here. Whoever loads one has a `Space`, where it all goes: script.py has that of a job, payload/loading.py the client's.
It is the first argument of all these functions, which `lookup` finds for an unpickler; only so are they called.

It decides nothing: whether a definition is a new one, or which names it may change, is the space's business.
"""

import builtins
import functools
import io
import sys
import types

from . import lines
from .lean import Unpickler

TYPE_CHECKING = False  # that of typing would cost a job some milliseconds
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

# As what this module is known at the client, and in a job.
NAMES = frozenset(("prominence_executor.remote.definitions", "pxremote.definitions"))
CACHED = type(functools.lru_cache(maxsize=1)(lambda: None))
_CALL = compile("kind(name, *arguments, **options)", "<definition>", "eval")


class Space:
    """Where the definitions in pickles go; as it stands, nothing is known before, and all is taken as it comes."""

    def namespace(self, origin, facts):
        """Return the global variables of the script of that origin (the program whose ``__main__`` it is)."""
        raise NotImplementedError

    def known(self, names, qualname, kind):
        """Return what is to be taken in place of a new definition of that name, or None."""

    def known_function(self, names, qualname, code):
        """Likewise, for a function."""

    def known_value(self, names, qualname, kind):
        """Likewise, for an object of which there is to be one: a singleton, a type variable."""

    def known_class(self, tracker):
        """Return the class of that mark, which every class gets that travels by value, or None."""

    def is_settled(self, obj):
        """Return whether the object is to stay as it is."""
        return False

    def define(self, names, values):
        """Set global variables of a namespace."""
        names.update(values)

    def attributes(self, kind, attributes):
        """Return those attributes of a class that are to be set."""
        return attributes

    def created(self, tracker, kind):
        """Note a new class, whose attributes are not set yet."""

    def completed(self, kind):
        """Note that they are."""

    def bind(self, qualname, obj):
        """Let the script have an object by its name."""


def resolve(names, qualname):
    # type: (dict[str, Any], str) -> Any
    """Return what has that dotted name in a namespace, or None."""
    first, *others = qualname.split(".")
    found = names.get(first)
    for name in others:
        found = getattr(found, name, None)
    return found


# -- what pickles name -----------------------------------------------------------------------------------------------


def namespace(space, origin, facts):
    """Return the script's global variables."""
    return space.namespace(origin, facts)


def function(space, names, qualname, code, variables, cells):
    """Make a function, or return the one that it is. ``qualname`` is None where the script has it not by that name."""
    known = None if qualname is None else space.known_function(names, qualname, code)
    if known is not None:
        return known
    variables.setdefault("__builtins__", builtins)
    closure = None if cells is None else tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(code, variables, None, None, closure)


def set_function(space, obj, state):
    """Give a function what cloudpickle says of it."""
    if space.is_settled(obj):
        return
    attributes, slots, qualname = state
    obj.__dict__.update(attributes)
    slots.pop("_cloudpickle_submodules", None)  # they have been imported
    space.define(obj.__globals__, slots.pop("__globals__"))
    closure = slots.pop("__closure__")
    for number, cell in enumerate(obj.__closure__ or ()):
        try:
            cell.cell_contents = closure[number].cell_contents
        except ValueError:
            pass  # it is an empty one
    for name, value in slots.items():
        setattr(obj, name, value)
    if qualname is not None:
        space.bind(qualname, obj)


def skeleton_class(space, constructor, name, bases, kwargs, tracker, extra):
    """Make a class without its attributes, or return the one that it is."""
    from . import clouds

    known = space.known_class(tracker)
    if known is None:
        hooks = _unhooked(space, bases)
        try:
            known = clouds.make_class(constructor, name, bases, kwargs, None, extra)
        finally:
            for base, hook in hooks.items():
                type.__setattr__(base, "__init_subclass__", hook)
        clouds.track(tracker, known)
        space.created(tracker, known)
    return known


def _unhooked(space, bases):
    """Have no ``__init_subclass__`` run that came by value: what it did to its class came along, and would double.

    Return those, by their classes.
    """
    from . import clouds

    hooks = {}  # type: dict[type, object]
    for base in bases:
        for kind in getattr(base, "__mro__", ()):
            if "__init_subclass__" in vars(kind) and clouds.is_tracked(kind) and not space.is_settled(kind):
                hooks.setdefault(kind, vars(kind)["__init_subclass__"])
    for kind in hooks:
        type.__setattr__(kind, "__init_subclass__", _no_hook)
    return hooks


_no_hook = classmethod(lambda cls, **given: None)


def skeleton_enum(space, bases, name, qualname, members, module, tracker, extra):
    """Make an enumeration with its members, or return the one that it is."""
    from . import clouds

    known = space.known_class(tracker)
    if known is None:
        known = clouds.make_enum(bases, name, qualname, members, module, None, extra)
        clouds.track(tracker, known)
        space.created(tracker, known)
    return known


def set_class(space, obj, state):
    """Give a class its attributes."""
    from . import clouds

    if not space.is_settled(obj):
        attributes, slots = state
        clouds.set_class(obj, (space.attributes(obj, attributes), slots))
        space.completed(obj)


def script_class(space, names, qualname, maker, *args):
    """Make a class that the script has by that name, or return the one that it is."""
    known = space.known(names, qualname, type)
    return maker(*args) if known is None else known


def set_script_class(space, obj, state):
    """Give a class its attributes, and the script the class."""
    inner, qualname = state
    if not space.is_settled(obj):
        set_class(space, obj, inner)
        space.bind(qualname, obj)


def cached(space, names, qualname, maxsize, typed, wrapped):
    """Make a function with a cache, an empty one."""
    known = None if qualname is None else space.known(names, qualname, CACHED)
    return functools.lru_cache(maxsize, typed)(wrapped) if known is None else known


def dispatching(space, names, qualname, default):
    """Make a function that chooses by the type of its first argument."""
    known = None if qualname is None else space.known(names, qualname, types.FunctionType)
    return functools.singledispatch(default) if known is None else known


def set_dispatching(space, obj, state):
    """Give it its implementations, and what `set_value` gives others."""
    attributes, qualname, registry = state
    if not space.is_settled(obj):
        for kind, implementation in registry:
            obj.register(kind, implementation)
        set_value(space, obj, (attributes, qualname))


def typing_name(space, names, qualname, kind, arguments, options):
    """Make a ParamSpec and the like: they ask the calling frame for the module that they are of."""
    known = space.known_value(names, qualname, kind)
    if known is not None:
        return known
    given = {"kind": kind, "name": qualname, "arguments": arguments, "options": options}
    made = eval(_CALL, {"__name__": "__main__", "__builtins__": builtins}, given)
    space.bind(qualname, made)
    return made


def named(space, names, qualname, kind, base, content):
    """Make an object that pickles by its name: a singleton, a NewType."""
    known = space.known_value(names, qualname, kind)
    if known is None:
        known = object.__new__(kind) if base is object else base.__new__(kind, content)
        if base.__init__ is not object.__init__:
            base.__init__(known, content)
        space.bind(qualname, known)  # now: its own class may refer to it
    return known


def set_value(space, obj, state):
    """Give an object its attributes, and the script the object."""
    attributes, qualname = state
    if not space.is_settled(obj):
        for name, value in attributes.items():
            object.__setattr__(obj, name, value)
        if qualname is not None:
            space.bind(qualname, obj)


def epilogue(space, names, sources, annotated):
    """Let tracebacks, warnings and `inspect` find the lines of the script, and `get_type_hints` what they name.

    Args:
        sources: compressed text by file name: the files are not here.
        annotated: see payload/annotations.py.
    """
    lines.keep(sources)
    for name, part in annotated.items():
        try:
            found = _Unpickler(part, space).load() if isinstance(part, bytes) else _imported(*part)
        except Exception:  # a call that does not look at its annotations does not need it
            continue
        space.define(names, {name: found})


class _Unpickler(Unpickler):
    """Loads a pickle inside a pickle."""

    def __init__(self, data, space):
        super().__init__(io.BytesIO(data))
        self._space = space

    def find_class(self, module, name):
        return lookup(self._space, module, name) or super().find_class(module, name)


def _imported(module, qualname):
    __import__(module)
    found = sys.modules[module]
    for name in qualname.split(".") if qualname else ():
        found = getattr(found, name)
    return found


CALLED = {  # type: dict[str, Any]
    made.__name__: made
    for made in (
        namespace, function, set_function, script_class, set_script_class, cached, dispatching, set_dispatching,
        typing_name, named, set_value, epilogue,
    )
}  # fmt: skip
_INSTEAD = {  # type: dict[str, Any]
    "_make_skeleton_class": skeleton_class,
    "_make_skeleton_enum": skeleton_enum,
    "_class_setstate": set_class,
    "_function_setstate": lambda space, obj, state: set_function(space, obj, (*state, None)),
}  # in place of what cloudpickle has by these names


def _make_function(code, variables, name=None, defaults=None, closure=None):
    """Make a function that is none of the script's."""
    variables["__builtins__"] = builtins
    return types.FunctionType(code, variables, name, defaults, closure)


_LIKEWISE = {  # what does as those of cloudpickle, so that not all of it is imported for functions
    "_builtin_type": lambda name: getattr(types, name),
    "_make_cell": lambda *content: types.CellType(*content),
    "_make_empty_cell": types.CellType,
    "_make_function": _make_function,
    "subimport": lambda name: (__import__(name), sys.modules[name])[1],
}


def lookup(space, module, name):
    # type: (Space, str, str) -> Any
    """Return what a pickle means by a name of this module, or of cloudpickle's that is done here; else None."""
    if module in NAMES:
        if name not in CALLED:
            raise AttributeError("%r is nothing that this version of prominence-executor loads by its name" % name)
        return functools.partial(CALLED[name], space)
    if module == "cloudpickle.cloudpickle":
        if name in _INSTEAD:
            return functools.partial(_INSTEAD[name], space)
        return _LIKEWISE.get(name)
    return None
