"""Names, in the error that pickling has raised, what it was that cannot be pickled.

It pickles parts of what could not be pickled, to find out; nothing of that travels.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from ..remote.blame import culprit, explained
from .pickling import dumps

_KINDS = (
    TypeError,
    AttributeError,
    ValueError,
    NotImplementedError,
    pickle.PicklingError,
)  # what pickling itself raises


def name_culprit(error: Exception, parts: Iterable[tuple[str, Any]], *, takes_futures: bool = False) -> None:
    """Add to an error which variable, attribute or item cannot be pickled.

    Args:
        parts: what was pickled, each with the words for it.
        takes_futures: they may contain futures.
    """

    def again(value: Any) -> Any:
        return dumps(value, {}, takes_futures=takes_futures)

    for name, part in parts:
        try:
            again(part)
        except Exception:  # noqa: BLE001  __reduce__ is somebody else's code
            words = culprit(again, part)
            if not words.endswith(f"of {name} {getattr(part, '__name__', '')!r}"):  # else they name it already
                words = f"{words} in {name}" if words else name
            if type(error) in _KINDS and error.args and isinstance(error.args[0], str):
                error.args = (explained(error.args[0], words), *error.args[1:])
            elif hasattr(error, "add_note"):  # its class may mean something by its args
                error.add_note(f"raised while {words} was pickled")
            return


def named_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """List the arguments of a call with the words for them, for `name_culprit`."""
    positional = [(f"the argument {position}", value) for position, value in enumerate(args)]
    return positional + [(f"the argument {name!r}", value) for name, value in kwargs.items()]
