"""Exceptions as they come back: chained as they were, the remote traceback in front, whatever their classes do."""

from __future__ import annotations

import builtins
import contextvars
import functools
import io
import pickle
import sys
import threading
import types
from typing import Any

import pytest
from calls import Overheated

import prominence_executor
from prominence_executor import RemotePicklingError, RemoteTraceback
from prominence_executor.payload.calls import Identity
from prominence_executor.payload.outcomes import read_outcomes
from prominence_executor.payload.results import unpack
from prominence_executor.remote import reporting
from prominence_executor.remote.plain import Dumper
from prominence_executor.remote.records import write_record
from prominence_executor.remote.reporting import write_exception, write_result
from prominence_executor.remote.script import Script
from prominence_executor.remote.wire import OUTCOME_MAGIC

KEY = bytes(32)
LOCK = threading.Lock()
GROUP: Any = getattr(builtins, "ExceptionGroup", None)
JOB = {"run": "run-1", "job": 7, "attempt": 1, "key": KEY.hex()}


class Memory:
    """A file of outcomes in memory."""

    def __init__(self) -> None:
        self.file = io.BytesIO(OUTCOME_MAGIC)
        self.file.seek(len(OUTCOME_MAGIC))

    def write(self, call: int, kind: str, dump: Any = None, **facts: Any) -> None:
        start = self.file.tell()
        try:
            write_record(self.file, JOB, call, kind, dump, None, facts)
        except BaseException:
            self.file.seek(start)
            self.file.truncate()
            raise

    def value(self) -> tuple[bool, Any]:
        self.file.seek(0)
        outcomes = read_outcomes(self.file, KEY, Identity("run-1", 7, 1))
        return unpack(self.file, outcomes.calls[0], "in job 1")


@pytest.fixture
def as_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this module count as a part of the runner, whose writer stands above."""
    monkeypatch.setattr(reporting, "OWN", (*reporting.OWN, __name__))


def returned(value: Any) -> tuple[bool, Any]:
    outcomes = Memory()
    write_result(outcomes, Dumper(Script()), 0, value, 0.0, None)
    return outcomes.value()


def raised(error: BaseException) -> BaseException:
    import cloudpickle

    outcomes = Memory()
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  any will do
        write_exception(outcomes, cloudpickle, 0, caught, 0.0, None)
    ok, value = outcomes.value()
    assert not ok
    assert isinstance(value, BaseException)
    return value


@pytest.mark.parametrize("value", [None, {"a": [1]}, b"x" * 100_000, bytearray(100_000)], ids=repr)
def test_a_result_comes_back_as_it_was(value: Any) -> None:
    assert returned(value) == (True, value)


def test_an_exception_comes_back_with_its_chain_behind_the_remote_traceback() -> None:
    error = Overheated(3695.0, "wall")
    error.__cause__ = KeyError("plasma")
    error.__context__ = OSError(5, "before")
    back = raised(error)
    assert (type(back), back.args) == (Overheated, (3695.0, "wall"))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in job 1" in back.__cause__.text
    assert repr(back.__cause__.__cause__) == "KeyError('plasma')"
    assert repr(back.__context__) == "OSError(5, 'before')"


def test_an_exception_that_cannot_come_back_is_named_and_so_is_what_keeps_it() -> None:
    class Stubborn(Exception):
        def __reduce__(self) -> Any:
            return sys.exit, (3,)

    back = raised(Stubborn("words", {"key": threading.Lock()}))
    assert isinstance(back, RemotePicklingError)
    assert "Stubborn: ('words'" in str(back)
    assert "SystemExit: 3" in str(back)
    assert "the item 'key' of a dict in the item 1 of a tuple in the attribute 'args' of a Stubborn" in str(back)


class Formatting(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"no field {name}")
        self.name = name


class Slotted(Exception):
    __slots__ = ("code", "unset")
    code: int


class Reducing(Exception):
    """Says how it is pickled, which leaves out its notes."""

    def __reduce__(self) -> Any:
        return type(self), self.args


class Formatted(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, f"no mesh in {path}", path)


def slotted(code: int) -> Slotted:
    error = Slotted("slotted")
    error.code = code
    return error


def noted(error: Exception, *notes: str) -> Exception:
    error.__dict__["__notes__"] = list(notes)  # as add_note of Python 3.11 does
    return error


def test_a_message_is_not_formatted_twice() -> None:
    back = raised(Formatting("plasma"))
    assert isinstance(back, Formatting)
    assert (str(back), back.args, back.name) == ("no field plasma", ("no field plasma",), "plasma")
    again = raised(Formatted("cells.txt"))
    assert isinstance(again, Formatted)
    assert str(again) == "[Errno 2] no mesh in cells.txt: 'cells.txt'"


def test_slots_come_back() -> None:
    back = raised(slotted(7))
    assert isinstance(back, Slotted)
    assert back.code == 7
    assert not hasattr(back, "unset")


def test_notes_come_back_whatever_an_exception_says_of_its_pickle() -> None:
    back = raised(noted(Reducing("x"), "in shot 81942", "while reading"))
    assert type(back) is Reducing
    assert vars(back)["__notes__"] == ["in shot 81942", "while reading"]


def test_attributes_that_cannot_be_pickled_are_left_behind_and_named() -> None:
    error = Overheated(3695.0, "wall")
    vars(error).update(state={"handle": sys.stdout}, guard=threading.Lock(), more=[1])
    back = raised(error)
    assert isinstance(back, Overheated)
    assert (back.kelvin, vars(back)["more"]) == (3695.0, [1])
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "the attribute 'guard' stayed there: cannot pickle '_thread.lock'" in back.__cause__.text
    assert "it is the item 'handle' of a dict" in back.__cause__.text
    assert not {"guard", "state"} & set(vars(back))


def test_of_a_value_that_is_nested_deeply_a_few_parts_are_named() -> None:
    value: Any = LOCK
    for _ in range(100):
        value = [value]
    fine, error = returned({"mesh": value})
    assert not fine
    said = str(error)
    assert "cannot pickle '_thread.lock' object: it is the item 0 of a list in the item 0 of a list in" in said
    assert "in 93 more in the item 0 of a list in" in said
    assert "in the item 'mesh' of a dict" in said


@pytest.mark.skipif(GROUP is None, reason="Python 3.10 has no exception groups")
def test_a_group_comes_back_with_its_members_their_causes_and_notes_whatever_one_of_them_holds() -> None:
    class Several(GROUP):  # type: ignore[misc]
        def __new__(cls, errors: list[Exception], shot: int) -> Any:
            return super().__new__(cls, f"{len(errors)} of shot {shot}", errors)

        def __init__(self, errors: list[Exception], shot: int) -> None:
            self.shot = shot

    cause = noted(KeyError("plasma"), "the cause")
    first = noted(Overheated(1.0, "wall"), "the first")
    first.__cause__ = cause
    inner = GROUP("inner", [ValueError("deep"), TypeError(threading.Lock())])
    group = noted(Several([first, inner, slotted(7)], 81942), "the group")
    back = raised(group)
    assert isinstance(back, Several)
    assert (str(back), back.shot) == (str(group), 81942)
    assert vars(back)["__notes__"] == ["the group"]
    one, two, three = back.exceptions
    assert isinstance(one, Overheated)
    assert (one.kelvin, vars(one)["__notes__"]) == (1.0, ["the first"])
    assert isinstance(one.__cause__, KeyError)
    assert vars(one.__cause__)["__notes__"] == ["the cause"]
    assert isinstance(two, GROUP)
    assert [type(member) for member in two.exceptions] == [ValueError, RemotePicklingError]
    assert "TypeError: <unlocked _thread.lock" in str(two.exceptions[1])
    assert isinstance(three, Slotted)
    assert three.code == 7
    assert back.split(Overheated)[0] is not None


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, threading.Lock()]}, "the item 1 of a list in the item 'a' of a dict"),
        (
            functools.partial(print, file=sys.stdout),
            "the item 'file' of a dict in the attribute 'keywords' of a partial",
        ),
        (lambda: LOCK, "the global variable 'LOCK' of the function '<lambda>'"),
        (lambda lock=LOCK: lock, "the item 0 of a tuple in the defaults of the function '<lambda>'"),
        (contextvars.ContextVar("v"), ""),
    ],
    ids=["items", "partial", "global", "default", "itself"],
)
@pytest.mark.usefixtures("as_the_runner")
def test_what_keeps_a_result_from_being_pickled_is_named(value: Any, where: str) -> None:
    if isinstance(value, types.FunctionType):
        value.__module__ = "__main__"  # so that it travels by value
    ok, error = returned(value)
    assert not ok
    assert isinstance(error, RemotePicklingError)
    first = str(error).partition("\n")[0]
    assert first.endswith(f": it is {where}" if where else "object")
    assert str(error) == first  # without a traceback of what pickles it


LOCKED = """
class Locked:
    def __reduce__(self):
        raise RuntimeError("mine alone")
"""


@pytest.mark.usefixtures("as_the_runner")
def test_what_refuses_to_be_pickled_is_shown_by_its_own_frames() -> None:
    users: dict[str, Any] = {"__name__": "users"}
    exec(LOCKED, users)
    _, error = returned([users["Locked"]()])
    first, *traceback = str(error).splitlines()
    assert first.endswith("mine alone: it is the item 0 of a list")
    assert traceback[-1] == "RuntimeError: mine alone"
    assert [line.split(", in ")[1] for line in traceback if ", in " in line] == ["__reduce__"]


def test_a_remote_traceback_is_found_where_older_pickles_name_it() -> None:
    for module in ("prominence_executor", "prominence_executor.payload"):
        assert pickle.loads(f"c{module}\nRemoteTraceback\n.".encode()) is prominence_executor.RemoteTraceback
    again = pickle.loads(pickle.dumps(RemoteTraceback("text", 3)))
    assert again.text == "text"
