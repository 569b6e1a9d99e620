"""An exception to links: what can be pickled of it, of what it was raised from, and of the members of a group.

Each link stands by itself, so that one that cannot be pickled costs no other; payload/results.py puts them together
again. Somebody else's code runs here (``__reduce__``, ``__str__``).
"""

from .blame import attributes_of, culprit, explained, slots_of

LINKS = 500  # at most
TEXT_LIMIT = 100000  # characters of a message that travel


def exception_chain(cloudpickle, error):
    """List the exception, the members of groups, and what each was raised from, nearest first.

    Each link: its default pickle, a pickle of (class, args, attributes) for classes whose constructor does not take
    its own ``args``, its type and text, notes, and the positions of its cause and context in the list. A group has
    a pickle of (class, message) and the positions of its members in place of the first two.
    """
    links = []  # type: list[dict[str, object]]
    positions, queue = {id(error): 0}, [error]

    def position(other):
        if id(other) not in positions:
            positions[id(other)] = len(positions)
            queue.append(other)
        return positions[id(other)]

    while queue and len(links) < LINKS:
        current = queue.pop(0)
        link = described(cloudpickle, current)
        if "group" in link:
            link["members"] = [position(member) for member in current.exceptions]
        for name in ("cause", "context"):
            other = getattr(current, "__%s__" % name)
            link[name] = None if other is None else position(other)
        links.append(link)
    return links


def described(cloudpickle, error):
    """Return the link of one exception, without others' positions."""
    link = {"type": type_name(error), "text": error_text(error), "suppress": error.__suppress_context__}
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, (list, tuple)):
        link["notes"] = [note for note in notes if isinstance(note, str)]
    if is_group(error):
        link["group"] = try_dumps(cloudpickle, (type(error), error.message))
        link["pickle"] = link["parts"] = None
        apart = True
    else:
        args, attributes = arguments(error)
        link["pickle"] = try_dumps(cloudpickle, error)
        link["parts"] = try_dumps(cloudpickle, (type(error), args, attributes))
        apart = link["parts"] is None or bool(slots_of(type(error)))
        if link["parts"] is None:
            link["parts"] = try_dumps(cloudpickle, (type(error), args, {}))
    if apart:
        link["attributes"], link["lost"] = attributes_apart(cloudpickle, error)
    if link["parts"] is None and "group" not in link:
        words = culprit(cloudpickle.dumps, error)
        if words:
            link["lost"][words] = "it cannot be pickled"
    return link


def arguments(error):
    """Return what the built-in class of an exception is made with, which are its ``args`` or more, and attributes."""
    base = next(base for base in type(error).__mro__ if base.__module__ == "builtins")
    parts = base.__reduce__(error)  # type: ignore[call-arg]  # it is an exception's
    return parts[1], dict(parts[2]) if len(parts) > 2 and isinstance(parts[2], dict) else {}


def is_group(error):
    """Return whether it is an exception group: of Python 3.11, or of the package that earlier ones have for it."""
    named = any(base.__name__ == "BaseExceptionGroup" for base in type(error).__mro__)
    return named and isinstance(getattr(error, "exceptions", None), tuple)


def attributes_apart(cloudpickle, error):
    """Return the pickles of an exception's attributes by name, and of those that have none, why."""
    pickles, lost = {}, {}  # type: dict[str, bytes], dict[str, str]
    for name, value in attributes_of(error):
        if name == "__notes__":
            continue
        content = try_dumps(cloudpickle, value)
        if content is not None:
            pickles[name] = content
        else:
            lost["the attribute %r" % name] = why_not(cloudpickle, value)
    return pickles, lost


def try_dumps(cloudpickle, value):
    """Pickle a value; None when it cannot be pickled."""
    try:
        return cloudpickle.dumps(value, protocol=5)
    except BaseException:  # __reduce__ is somebody else's code; the text travels anyway
        return None


def why_not(cloudpickle, value):
    """Say why a value cannot be pickled."""
    try:
        cloudpickle.dumps(value, protocol=5)
        return "it cannot be pickled"
    except BaseException as error:  # likewise
        return explained(error_text(error), culprit(cloudpickle.dumps, value))


def type_name(value):
    """Return the name of a value's class, with its module unless that is builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def error_text(error):
    # type: (BaseException) -> str
    """Return an exception's text, cut to `TEXT_LIMIT`."""
    try:
        return str(error)[:TEXT_LIMIT]
    except BaseException:  # __str__ is somebody else's code
        return "<no text: its __str__ raised>"
