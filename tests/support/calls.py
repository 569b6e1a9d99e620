"""Calls for tests whose executors pickle by name: importable in any process, and quick to import."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE = 60.0  # seconds after which a call gives up on a gate that nobody opens


class Overheated(Exception):
    """An exception whose constructor takes two arguments, both required."""

    def __init__(self, kelvin: float, where: str) -> None:
        super().__init__(kelvin, where)
        self.kelvin = kelvin
        self.where = where


class Withdrawn(BaseException):
    """Not an `Exception`."""


class Adder:
    """Callable; its instances, their methods and the class itself serve as functions."""

    def __init__(self, n: int) -> None:
        self.n = n

    def add(self, x: int) -> int:
        return x + self.n

    __call__ = add

    @classmethod
    def of_two(cls, x: int) -> int:
        return cls(2).add(x)

    @staticmethod
    def of_three(x: int) -> int:
        return x + 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and other.n == self.n

    def __hash__(self) -> int:
        return self.n


class Gate:
    """A file that calls wait for; each leaves a file of its own when it begins, so that a test knows."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def open(self) -> None:
        (self.folder / "open").touch()

    def begun(self) -> set[str]:
        """The names of the calls that have begun."""
        return {path.name.removeprefix("begun-") for path in self.folder.glob("begun-*")}

    def hold(self, name: str) -> str:
        """The call: waits for the gate."""
        (self.folder / f"begun-{name}").touch()
        deadline = time.monotonic() + _PATIENCE
        while not (self.folder / "open").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody opened the gate in {self.folder}")
            time.sleep(0.01)
        return name


def square(x: int) -> int:
    return x * x


def itself(value: Any) -> Any:
    return value


def keywords(**given: Any) -> dict[str, Any]:
    return given


def nothing() -> None:
    pass


def fail(kind: type[BaseException], *arguments: Any) -> None:
    raise kind(*arguments)


def fail_at(bad: int, x: int) -> int:
    if x == bad:
        raise Overheated(float(x), "divertor")
    return x


def fail_from_another() -> None:
    densities: dict[str, float] = {}
    try:
        densities["plasma"]
    except KeyError as error:
        raise Overheated(3695.0, "wall") from error


def fail_while_handling() -> None:
    densities: dict[str, float] = {}
    try:
        densities["plasma"]
    except KeyError:
        raise Overheated(3695.0, "wall")  # noqa: B904  the context is what the test is about


def fail_together() -> None:
    """Raise a group, which Python 3.10 does not have."""
    error = Overheated(3695.0, "wall")
    error.__dict__["__notes__"] = ["in shot 81942"]
    kind: Any = vars(builtins)["ExceptionGroup"]
    raise kind("two of them", [error, KeyError("plasma")])


def recurse() -> None:
    recurse()


def mirrored(content: bytes) -> bytes:
    return content[::-1]


def applied(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def exit_once(marker: str) -> str:
    """Take the process down the first time."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "went on"
    os._exit(7)
