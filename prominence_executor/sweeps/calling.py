"""What runs where a point is computed: the user's function, its seconds and its host.

The result names the point itself, so that nothing can be entered for another one.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from .records import Identity

Measured = tuple[Identity, Any, float, str]  # whose it is, what it is, seconds, host


class MeasuredCall:
    """For executors whose workers have this package: it is pickled by name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, identity: Identity, arguments: Mapping[str, Any]) -> Measured:
        """Call the function, and say how long it took and where."""
        began = time.perf_counter()
        value = self._function(**arguments)
        return identity, value, time.perf_counter() - began, socket.gethostname()


def travelling(function: Callable[..., Any]) -> Callable[[Identity, Mapping[str, Any]], Measured]:
    """Return the same as a function that is pickled by value: in a container's image this package is not there."""

    @functools.wraps(function)
    def call(identity: Identity, arguments: Mapping[str, Any]) -> Measured:
        import socket  # by name, where it runs
        import time

        began = time.perf_counter()
        value = function(**arguments)
        return identity, value, time.perf_counter() - began, socket.gethostname()

    return call
