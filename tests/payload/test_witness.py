"""Whether a function is as it was when it was pickled: the pickle itself is what the answer is held against."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from prominence_executor.executor.function import PickledFunctions
from prominence_executor.payload.pickling import Epilogue, dumps
from prominence_executor.payload.witness import Witness
from prominence_executor.run.objects import Objects
from prominence_executor.run.uploads import UploadCache

Script = Callable[[str], dict[str, Any]]

SOURCE = '''
import math, email
from os.path import join

LIMIT, NAMES, TABLE = 3, ("a", ("b",)), [1]

def helper(x):
    return x + LIMIT

def other(x):
    return -x

def calls(x, n=2):
    """Text."""
    return helper(math.sqrt(x)) + len(NAMES) + n, join("a", "b"), missing(x) if x < 0 else None

def inner(x):
    def deep():
        return LIMIT
    return deep()

def annotated(x: int, y: "LIMIT") -> "str":
    return x

def recursive(n):
    return n and recursive(n - 1)

def parses(text):
    return email.parser.Parser().parsestr(text)
'''

CHANGES = {
    "nothing": "",
    "another variable": "UNRELATED = 5",
    "a number": "LIMIT = 4",
    "an equal number": "LIMIT = 3.0",
    "a tuple": "NAMES = ('c',)",
    "a function that it calls": "helper = other",
    "what that is made of": "helper.__code__ = other.__code__",
    "its default": "calls.__defaults__ = (7,)",
    "defaults by name": "calls.__kwdefaults__ = {'n': 1}",
    "its text": "calls.__doc__ = 'Other text.'",
    "its name": "calls.__qualname__ = 'Class.calls'",
    "its module": "calls.__module__ = 'elsewhere'",
    "an attribute": "calls.used = 1",
    "an attribute of one that it calls": "helper.used = 1",
    "a name that it had not": "missing = abs",
    "a name that it has no more": "del helper",
    "the name itself": "globals()['calls'] = None",
    "an annotation": "annotated.__annotations__['x'] = float",
    "what an annotation names": "LIMIT = float",
    "a function for a module": "import cmath as math",
    "a module that is loaded": "import sys, types; sys.modules['email.parser.Parser'] = types.ModuleType('new')",
    "the file of the script": "__file__ = 'elsewhere.py'",
}
CAN_CHANGE = {
    "a list": "def f(): return TABLE",
    "a list in a tuple": "PAIR = (1, [2])\ndef f(): return PAIR",
    "a closure": "def make(n):\n    def f(): return n\n    return f\nf = make([])",
    "a class of the script": "class C: pass\ndef f(): return C",
    "an instance": "class C: pass\nc = C()\ndef f(): return c",
    "a default": "def f(x=[]): return x",
    "a default by name": "def f(*, x=1): return x",
    "an attribute": "def f(): pass\nf.seen = []",
    "the script as a module": "import __main__\ndef f(): return __main__.LIMIT",
    "a module that is nobody's": "import types\nm = types.ModuleType('m')\ndef f(): return m.x",
    "a function that no module has": "import collections\nf2 = collections.namedtuple('A', 'b')\ndef f(): return f2",
    "no function": "import functools\nf = functools.partial(helper, 1)",
    "one that calls such a one": "def g(): return TABLE\ndef f(): return g()",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Run a source as the script, whose variables are returned; what it has loaded is gone afterwards."""
    main = types.ModuleType("__main__")
    main.__file__ = "script.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    before = set(sys.modules)

    def run(source: str) -> dict[str, Any]:
        exec(compile(source, "script.py", "exec"), main.__dict__)
        return main.__dict__

    run(SOURCE)
    yield run
    for name in set(sys.modules) - before:
        del sys.modules[name]


def pickled(function: Any) -> bytes:
    return dumps((function, None, (), Epilogue())).blob.tobytes()


@pytest.mark.parametrize("name", ["calls", "inner", "annotated", "recursive", "parses"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_function_whose_pickle_has_changed_is_not_as_it_was(change: str, name: str, script: Script) -> None:
    function = script("")[name]
    before, witness = pickled(function), Witness.of((function, None, ()))
    assert witness is not None
    assert witness.holds()
    script(CHANGES[change])
    if pickled(function) != before:
        assert not witness.holds()
    if change in ("nothing", "another variable"):
        assert witness.holds()


def test_each_of_these_changes_is_one_of_some_function(script: Script) -> None:
    for change in set(CHANGES) - {"nothing", "another variable"}:
        script(SOURCE)
        functions = [script("")[name] for name in ("calls", "inner", "annotated", "recursive", "parses")]
        before = list(map(pickled, functions))
        script(CHANGES[change])
        assert list(map(pickled, functions)) != before, change
        script("__file__ = 'script.py'")


@pytest.mark.parametrize("what", CAN_CHANGE)
def test_what_may_change_unseen_has_no_witness(what: str, script: Script) -> None:
    assert Witness.of((script(CAN_CHANGE[what])["f"],)) is None


def test_an_initializer_and_its_arguments_count(script: Script) -> None:
    names = script("")
    witness = Witness.of((names["calls"], names["other"], (1, "a")))
    assert witness is not None
    assert witness.holds()
    names["other"].__code__ = names["helper"].__code__
    assert not witness.holds()
    assert Witness.of((names["calls"], None, ([],))) is None
    assert Witness.of((names["calls"], names["other"], (object(),))) is None


def test_a_module_that_is_to_travel_by_value_from_now_on(script: Script) -> None:
    witness = Witness.of((script("")["calls"],))
    assert witness is not None
    cloudpickle.register_pickle_by_value(weakref)
    try:
        assert not witness.holds()
    finally:
        cloudpickle.unregister_pickle_by_value(weakref)
    assert witness.holds()


def test_a_function_of_a_module_that_is_loaded_again(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pxreloaded.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = script("import pxreloaded")["pxreloaded"].f
    witness = Witness.of((function,))
    assert witness is not None
    assert witness.holds()
    script("import importlib; importlib.reload(pxreloaded)")
    assert not witness.holds()


def test_a_function_is_pickled_again_only_if_that_may_be_needed(script: Script) -> None:
    functions = PickledFunctions(Objects(UploadCache()), None, ())
    names = script("def looks(): return TABLE")
    first = functions.get(names["calls"])
    assert first.for_one_more_call() is functions.get(names["calls"]).for_one_more_call()
    script("LIMIT = 4")
    assert functions.get(names["calls"]).for_one_more_call().blob.tobytes() != first.for_one_more_call().blob.tobytes()
    again = functions.get(names["looks"])
    again.for_one_more_call()
    assert functions.get(names["looks"]) is not again
    for _ in range(40):
        functions.get(script("def passing(): pass")["passing"]).for_one_more_call()
    assert len(functions._kept) < 20


def test_a_variable_that_another_thread_changes_meanwhile_counts_from_the_next_call_on(script: Script) -> None:
    functions, names = PickledFunctions(Objects(UploadCache()), None, ()), script("")

    def changes(frame: types.FrameType, event: str, argument: object) -> None:
        if event == "return" and frame.f_code is Objects.dumps.__code__:
            names["LIMIT"] = 9

    sys.setprofile(changes)
    try:
        functions.get(names["calls"]).for_one_more_call()
    finally:
        sys.setprofile(None)
    assert functions.get(names["calls"]).for_one_more_call().blob.tobytes() == pickled(names["calls"])


def test_what_a_closure_holds_is_not_held_any_longer(script: Script) -> None:
    functions = PickledFunctions(Objects(UploadCache()), None, ())
    names = script("class Large: pass\ndef make(large):\n    def f(): return large\n    return f\nf = make(Large())")
    functions.get(names["f"]).for_one_more_call()
    gone = weakref.ref(names["f"])
    script("del f")
    gc.collect()
    assert gone() is None
