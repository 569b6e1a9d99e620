"""Finds what it is in a value that cannot be pickled, so that an error can name it. The client imports it, too.

It pickles by a function that it is given, and changes nothing. Somebody else's code runs here (``__reduce__``,
``__getstate__``): whatever that raises, the search goes on without.
"""

import functools
import time
import types

TYPE_CHECKING = False  # that of typing would cost a job some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable  # noqa: F401  in comments
    from typing import Any  # noqa: F401  likewise

SECONDS = 1.0  # of the search: what is large is pickled several times
MOST = 8  # parts, one in the other, that are named
SIMPLE = (int, float, complex, bool, str, bytes, bytearray, type(None), range)
OWN = ("__reduce_ex__", "__reduce__", "__getstate__")
HIDDEN = (  # attributes that are in no dictionary
    (types.MethodType, ("__self__", "__func__")),
    (functools.partial, ("func", "args", "keywords")),
    (BaseException, ("args",)),
)


def culprit(dumps, value):
    # type: (Callable[[Any], object], object) -> str
    """Describe the innermost part of a value that cannot be pickled; "" when it is the value itself, or not found."""
    until = time.monotonic() + SECONDS
    words, seen = [], {id(value)}  # type: list[str], set[int]
    kept = []  # type: list[object]  # what only exists for the search: its ids are not to be given to others
    found = True
    while found:
        found = False
        for name, part in parts_of(value):
            if time.monotonic() > until:
                break
            if isinstance(part, SIMPLE) or id(part) in seen:
                continue
            seen.add(id(part))
            kept.append(part)
            if fails(dumps, part):
                words.append(name)
                value, found = part, True
                break
    return " in ".join(shortened(words[::-1]))


def shortened(words):
    # type: (list[str]) -> list[str]
    """Return the innermost and the outermost of some parts, as many as a message should have."""
    half = MOST // 2
    return words if len(words) <= MOST else [*words[:half], "%d more" % (len(words) - 2 * half), *words[-half:]]


def fails(dumps, value):
    """Return whether a value cannot be pickled."""
    try:
        dumps(value)
        return False
    except BaseException:  # __reduce__ is somebody else's code
        return True


def parts_of(value):
    """List what a value is pickled with: what to call it, and the part itself."""
    try:
        return [] if refuses(value) else list(contents(value)) or list(reduced(value))
    except BaseException:  # likewise
        return []


def refuses(value):
    """Return whether an object's own class says that it cannot be pickled, so that its parts are not to blame."""
    kind = type(value)
    if all(getattr(kind, name, None) is getattr(object, name, None) for name in OWN):
        return False
    try:
        value.__reduce_ex__(4)
        return False
    except BaseException:  # likewise
        return True


def contents(value):
    """Yield the parts of a value that has names for them."""
    kind = type(value).__name__
    if isinstance(value, types.FunctionType):
        for name, part in of_function(value):
            yield "%s of the function %r" % (name, value.__name__), part
    elif isinstance(value, type):
        for name, part in of_class(value):
            yield "the attribute %r of the class %r" % (name, value.__name__), part
    elif isinstance(value, dict):
        for key, part in value.items():
            yield "the key %s of a %s" % (shown(key), kind), key
            yield "the item %s of a %s" % (shown(key), kind), part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for position, part in enumerate(value):
            yield "the item %d of a %s" % (position, kind), part
    if not isinstance(value, (type, types.FunctionType, types.ModuleType)):
        hidden = [(name, getattr(value, name)) for base, names in HIDDEN if isinstance(value, base) for name in names]
        for name, part in [*attributes_of(value), *hidden]:
            yield "the attribute %r of a %s" % (name, kind), part


def of_class(kind):
    """Yield what stands in a class."""
    for name, part in vars(kind).items():
        if name not in ("__dict__", "__weakref__"):
            yield name, getattr(part, "__func__", part)


def of_function(function):
    """Yield what a function refers to: global variables, those that it encloses, and defaults."""
    for name in sorted(names_in(function.__code__)):
        part = function.__globals__.get(name)
        if not isinstance(part, types.ModuleType):
            yield "the global variable %r" % name, part
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):  # noqa: B905  Python 3.8
        try:
            yield "the enclosed variable %r" % name, cell.cell_contents
        except ValueError:  # it has no value yet
            pass
    yield "the defaults", function.__defaults__
    yield "the defaults", function.__kwdefaults__
    yield "the attributes", vars(function)


def names_in(code):
    """Collect the names that some code looks up, that of functions inside it included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
    return names


def attributes_of(value):
    """Yield the attributes that an object has by itself, in its dictionary or in slots."""
    for name, part in sorted(getattr(value, "__dict__", {}).items()):
        yield name, part
    for name in slots_of(type(value)):
        try:
            yield name, object.__getattribute__(value, name)
        except AttributeError:  # it has not been set
            pass


def slots_of(kind):
    """List the names of the slots of a class, as attributes are called."""
    names = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                hidden = name.startswith("__") and not name.endswith("__")
                names.append("_%s%s" % (base.__name__.lstrip("_"), name) if hidden else name)
    return names


def reduced(value):
    """Yield what an object says that it is pickled as."""
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
        return
    parts = value.__reduce_ex__(4)
    if isinstance(parts, tuple):
        for part in parts[1:3]:
            yield "what a %s is pickled as" % type(value).__name__, part


def shown(key):
    """Return a key's text, as far as a message should have it."""
    text = repr(key)
    return text if len(text) <= 60 else text[:57] + "..."


def explained(error, words):
    # type: (object, str) -> str
    """Return the text of an error, with what the search has found."""
    return "%s: it is %s" % (error, words) if words else str(error)
