"""Exceptions from the links that remote/exceptions.py makes of them: class, text, attributes, notes, causes, members.

What it unpickles has been verified by its caller. Somebody else's code runs here (imports, constructors, ``__str__``):
whatever it raises costs that one link, which becomes a `RemotePicklingError` that says what it stands for.
"""

from __future__ import annotations

from typing import Any

from ..errors import RemotePicklingError
from ..remote.exceptions import error_text
from .loading import loads_outcome

Link = dict[str, Any]


def rebuild_links(links: list[Link], where: str) -> list[BaseException]:
    """Return the exception of each link, joined as they were.

    Args:
        where: names the job, for the message of one that cannot be made.
    """
    errors: dict[int, BaseException] = {}

    def build(position: int) -> BaseException:
        if position not in errors:
            link = links[position]
            # A group is made with its members, which cannot contain it.
            members = [build(member) for member in link.get("members", ()) if member < len(links)]
            errors[position] = _rebuild(link, members, where)
        return errors[position]

    built = [build(position) for position in range(len(links))]
    for error, link in zip(built, links, strict=True):
        for name in ("cause", "context"):
            position = link[name]
            if position is not None and position < len(built):
                setattr(error, f"__{name}__", built[position])
        error.__suppress_context__ = link["suppress"]
    return built


def _rebuild(link: Link, members: list[BaseException], where: str) -> BaseException:
    """Make one exception: of the forms that travelled, the first that says what it said there."""
    made: list[BaseException] = []
    problem: BaseException | None = None
    for form, make in (("group", _group), ("pickle", _default), ("parts", _from_parts)):
        if link.get(form) is None:
            continue
        try:
            value = make(loads_outcome(link[form]), members)
        except BaseException as error:  # noqa: BLE001  constructors and imports are somebody else's code
            problem = error
        else:
            if isinstance(value, BaseException):
                _complete(value, link)
                if error_text(value) == link["text"]:
                    return value
                made.append(value)
    return made[0] if made else _substitute(link, where, problem)


def _default(value: Any, members: list[BaseException]) -> Any:
    return value


def _from_parts(parts: tuple[type[BaseException], tuple[Any, ...], dict[str, Any]], members: object) -> BaseException:
    """Make an exception without its constructor, which may not take its ``args``, or may change them."""
    kind, args, attributes = parts
    base: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        value: BaseException = kind.__new__(kind, *args)
    except TypeError:
        value = base.__new__(kind, *args)
    base.__init__(value, *args)
    try:
        value.__setstate__(attributes)
    except Exception:  # noqa: BLE001  one of them cannot be set any more
        value.__dict__.update(attributes)
    return value


def _group(parts: tuple[type[Any], str], members: list[BaseException]) -> BaseException:
    """Make a group; a subclass may have a constructor of its own, which is passed over."""
    kind, message = parts
    base: Any = next(base for base in kind.__mro__ if base.__name__ == "BaseExceptionGroup")
    value: BaseException = base.__new__(kind, message, members)
    return value


def _complete(value: BaseException, link: Link) -> None:
    """Give an exception what its pickle has not brought: notes, and attributes that travelled by themselves."""
    notes = link.get("notes")
    if notes and getattr(value, "__notes__", None) != notes:
        value.__dict__["__notes__"] = list(notes)  # as Python 3.11 has them
    for name, content in (link.get("attributes") or {}).items():
        try:
            if not hasattr(value, name):
                setattr(value, name, loads_outcome(content))
        except BaseException:  # noqa: BLE001, S112  likewise: it stays without
            continue


def _substitute(link: Link, where: str, problem: BaseException | None) -> RemotePicklingError:
    """Say what the exception was that cannot be made here."""
    lost = "".join(f"; {name} could not be pickled: {why}" for name, why in (link.get("lost") or {}).items())
    unloadable = f": {type(problem).__name__}: {problem}" if problem else ""
    substitute = RemotePicklingError(
        f"the call raised {link['type']}: {link['text']}\n"
        f"({where}; that exception itself could not be unpickled here{unloadable}{lost})"
    )
    substitute.__cause__ = problem
    if link.get("notes"):
        substitute.__dict__["__notes__"] = list(link["notes"])
    return substitute
