"""Exceptions as they come back: chained as they were, the remote traceback in front, whatever their classes do."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from typing import Any

import pytest
from calls import Overheated

import prominence_executor
from prominence_executor import RemotePicklingError, RemoteTraceback
from prominence_executor.payload.calls import Identity
from prominence_executor.payload.outcomes import read_outcomes
from prominence_executor.payload.results import unpack
from prominence_executor.remote.records import write_record
from prominence_executor.remote.reporting import write_exception, write_result
from prominence_executor.remote.wire import OUTCOME_MAGIC

KEY = bytes(32)
JOB = {"run": "run-1", "job": 7, "attempt": 1, "key": KEY.hex()}


class Memory:
    """A file of outcomes in memory."""

    def __init__(self) -> None:
        self.file = io.BytesIO(OUTCOME_MAGIC)
        self.file.seek(len(OUTCOME_MAGIC))

    def write(self, call: int, kind: str, dump: Any = None, **facts: Any) -> None:
        write_record(self.file, JOB, call, kind, dump, None, facts)

    def value(self) -> tuple[bool, Any]:
        self.file.seek(0)
        outcomes = read_outcomes(self.file, KEY, Identity("run-1", 7, 1))
        return unpack(self.file, outcomes.calls[0], "in job 1")


def returned(value: Any) -> tuple[bool, Any]:
    import cloudpickle

    outcomes = Memory()
    write_result(outcomes, cloudpickle, 0, value, 0.0, None)
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


def test_an_exception_that_cannot_come_back_is_named() -> None:
    class Stubborn(Exception):
        def __init__(self) -> None:
            super().__init__("words")
            self.lock = threading.Lock()  # so that its attributes cannot be pickled

        def __reduce__(self) -> Any:
            return sys.exit, (3,)

    back = raised(Stubborn())
    assert isinstance(back, RemotePicklingError)
    assert "Stubborn: words" in str(back)
    assert "SystemExit: 3" in str(back)


def test_a_remote_traceback_is_found_where_older_pickles_name_it() -> None:
    for module in ("prominence_executor", "prominence_executor.payload"):
        assert pickle.loads(f"c{module}\nRemoteTraceback\n.".encode()) is prominence_executor.RemoteTraceback
    again = pickle.loads(pickle.dumps(RemoteTraceback("text", 3)))
    assert again.text == "text"
