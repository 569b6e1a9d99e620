"""`public` marks what users name: a class or function then says that it is `prominence_executor`'s, as it is imported.

So pickles and tracebacks name a place that stays, wherever the definition moves. It imports nothing of this package.
(`inspect.getsource` finds the methods of such a class, but not the class, as with those of other libraries.)
"""

from __future__ import annotations

from typing import TypeVar, get_type_hints

T = TypeVar("T")


def public(thing: T) -> T:
    """Decorate a class or function whose name is in `prominence_executor.__all__`; the outermost decorator."""
    if isinstance(thing, type) and "__annotations__" in vars(thing):
        _resolve_annotations(thing)
    thing.__module__ = __name__.partition(".")[0]
    return thing


def _resolve_annotations(kind: type) -> None:
    """Make types of the annotations' text while it is known in which module its names are to be looked up."""
    hints = get_type_hints(kind, include_extras=True)
    kind.__annotations__ = {name: hints[name] for name in vars(kind)["__annotations__"]}
    for field in getattr(kind, "__dataclass_fields__", {}).values():  # without the cost of importing dataclasses
        field.type = hints[field.name]
