"""A script whose calls use what it defines in every way; run with "pool", or with a service's URL, token and workers.

It prints what each of its checks has found, as JSON: the same in the standard library's pool as in jobs. Where the pool
cannot run a check (`ours`), the value is the one that the test knows.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import inspect
import json
import linecache
import multiprocessing
import pickle
import sys
import time
import traceback
import typing
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import besides

CHECKS: list[Callable[[Executor], Any]] = []
OURS: list[Callable[[Executor], Any]] = []


def check(function: Callable[[Executor], Any]) -> Callable[[Executor], Any]:
    CHECKS.append(function)
    return function


def ours(function: Callable[[Executor], Any]) -> Callable[[Executor], Any]:
    OURS.append(function)
    return function


# -- what the script defines -----------------------------------------------------------------------------------------

UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
T = typing.TypeVar("T", bound="Sim")
Vector = list[float]
COUNT = 0
MODEL: str | None = None
LATER: dict[str, int] = {}


class Cfg:
    limit = 0
    model: str | None = None


class Tool:
    pass


TOOL: Tool | None = None


class Sim:
    done_count = 0
    names: typing.ClassVar[list[str]] = []

    class Part:
        __slots__ = ("size",)

        def __init__(self, size: int) -> None:
            self.size = size

    def __init__(self, size: int) -> None:
        self.size = size
        self.part = Sim.Part(size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sim) and other.size == self.size

    __hash__ = None  # type: ignore[assignment]

    def step(self) -> int:
        global COUNT
        COUNT += 1
        return self.size

    @functools.cached_property
    def area(self) -> int:
        return self.size**2

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def volume(size: int) -> int:
        return size**3


class Plugin:
    known: typing.ClassVar[list[str]] = []

    def __init_subclass__(cls, nick: str) -> None:
        Plugin.known.append(nick)


class Heater(Plugin, nick="heater"):
    pass


class Shape(abc.ABC):
    @abc.abstractmethod
    def corners(self) -> int: ...


class Square(Shape, metaclass=abc.ABCMeta):
    def corners(self) -> int:
        return super().corners() or 4  # type: ignore[safe-super]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = Missing()


class Named(str):
    def __reduce__(self) -> Any:
        return "NAMED"


class Listed(list[str]):
    def __reduce__(self) -> Any:
        return "LISTED"


NAMED, LISTED = Named("by its name"), Listed(["a", "b"])


@dataclasses.dataclass(slots=True)
class Point:
    x: float
    near: Vector | None = None
    friend: Sim | None = None


class Pair(typing.NamedTuple):
    left: int
    right: Colour


class Trouble(Exception):
    def __init__(self, sim: Sim) -> None:
        super().__init__(sim)
        self.sim = sim


@functools.cache
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@functools.singledispatch
def kind_of(value: object) -> str:
    return "something"


@kind_of.register
def _(value: int) -> str:
    return "number"


@kind_of.register(list)
def _of_lists(value: list[Any]) -> str:
    return "list of " + ", ".join(map(kind_of, value))


def squared(x: int) -> int:
    return x * x


def itself(value: Any) -> Any:
    return value


def applied(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


CELL = """
def of_a_cell(number):
    return 1 / number  # as in a notebook
"""
linecache.cache["<cell 1>"] = len(CELL), None, CELL.splitlines(True), "<cell 1>"  # as a notebook does
exec(compile(CELL, "<cell 1>", "exec"), globals())
of_a_cell: Callable[[int], float] = globals()["of_a_cell"]


def begin(model: str) -> None:
    global MODEL, TOOL
    MODEL, TOOL = model, Tool()
    Cfg.model = model
    LATER["begun"] = LATER.get("begun", 0) + 1


# -- what pickles by its name ----------------------------------------------------------------------------------------


@check
def functions_with_a_cache(executor: Executor) -> Any:
    return [
        executor.submit(fib, 30).result(),
        executor.submit(applied, fib, 30).result(),
        list(executor.map(Sim.volume, [2, 3])),
        executor.submit(lambda_free_use).result(),
        executor.submit(itself, fib).result() is fib,
        executor.submit(itself, Sim.volume).result() is Sim.volume,
    ]


def lambda_free_use() -> list[Any]:
    sim = Sim(3)
    return [fib(10), Sim.volume(3), sim.area, sim.area, kind_of([1, "x"]), NAMED.upper(), *LISTED, repr(MISSING)]


@check
def names_of_the_script_come_back_as_themselves(executor: Executor) -> Any:
    values = [UserId, P, T, MISSING, kind_of, Colour.RED, Colour, Sim, Sim.Part, squared, Point, Pair, Square, Trouble]
    return [executor.submit(itself, value).result() is value for value in values]


@check
def they_are_the_same_ones_there(executor: Executor) -> Any:
    return executor.submit(are_the_same, MISSING, Colour.BLUE, Sim, UserId, squared, T, Sim.Part).result()


def are_the_same(*given: Any) -> list[bool]:
    own = [MISSING, Colour.BLUE, Sim, UserId, squared, T, Sim.Part]
    return [one is other for one, other in zip(given, own, strict=True)]


@check
def names_of_a_module_beside_the_script_are_found(executor: Executor) -> Any:
    values = [besides.tripled, besides.Metres, besides.VACUUM]
    same = [executor.submit(itself, value).result() is value for value in values]
    return [*same, executor.submit(besides.tripled, 5).result()]


# -- results ---------------------------------------------------------------------------------------------------------


@check
def a_result_leaves_the_class_as_it_is(executor: Executor) -> Any:
    Sim.done_count, Sim.names[:] = 0, []
    for size in (1, 2):
        sim = executor.submit(simulated, size).result()
        Sim.done_count += 1
        Sim.names.append(f"{sim.size}")
        sim.step()
    found = [
        Sim.done_count,
        list(Sim.names),
        COUNT,
        type(sim) is Sim,
        sim.part.size,
        type(sim.part) is Sim.Part,
        sim.area,
    ]
    Sim.done_count, Sim.names[:] = 0, []
    return found


def simulated(size: int) -> Sim:
    global COUNT
    sim = Sim(size)
    Sim.done_count = 100
    Sim.names.append("there")
    COUNT += 1000
    return sim


@check
def an_exception_of_the_script_is_caught(executor: Executor) -> Any:
    try:
        executor.submit(troubled).result()
    except Trouble as trouble:
        return [type(trouble.sim) is Sim, trouble.sim.size]


def troubled() -> None:
    raise Trouble(Sim(7))


@check
def instances_of_all_sorts(executor: Executor) -> Any:
    values = [Point(1.0, [2.0], Sim(2)), Pair(1, Colour.RED), Sim(1)]
    same = [executor.submit(itself, value).result() == value for value in values]
    point = executor.submit(itself, values[0]).result()
    return [*same, hasattr(point, "__dict__"), executor.submit(cornered).result()]


def cornered() -> list[Any]:
    return [Square().corners(), isinstance(Square(), Shape), issubclass(Square, Shape), Heater.known, Heater.__name__]


@check
def a_class_defined_anew_is_the_present_one(executor: Executor) -> Any:
    names, first = globals(), Cfg
    future = executor.submit(configured)
    names["Cfg"] = other = type("Cfg", (), {"__module__": "__main__", "limit": 9})
    found: object = future.result()
    names["Cfg"] = first
    return type(found) is other


def configured() -> Cfg:
    time.sleep(0.5)  # until the program has another one
    return Cfg()


# -- inside a call ---------------------------------------------------------------------------------------------------


@check
def a_call_may_pickle_what_the_script_defines(executor: Executor) -> Any:
    return executor.submit(pickled).result()


def pickled() -> list[bool]:
    values = [Sim, Sim.Part, squared, fib, Colour.RED, UserId, P, T, MISSING, kind_of, Point, Pair, Sim.step, Trouble]
    return [pickle.loads(pickle.dumps(value)) is value for value in values]


@check
def a_call_may_start_processes(executor: Executor) -> Any:
    methods = ("fork", "spawn", "forkserver")
    given = [executor.submit(given_to_processes, method, cubed, Given(2)).result() for method in methods]
    return [*given, *(executor.submit(in_processes, method).result() for method in methods)]


class Given:
    def __init__(self, x: int) -> None:
        self.x = x


def cubed(given: Given) -> int:
    return given.x**3


def given_to_processes(method: str, function: Callable[[Any], Any], *arguments: Any) -> Any:
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map(function, arguments)


def in_processes(method: str) -> list[Any]:
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        found = [pool.map(squared, [1, 2]), pool.apply(fib, (20,)), pool.apply(itself, (Sim(4),)) == Sim(4)]
    with ProcessPoolExecutor(1, mp_context=context) as inner:
        return [*found, list(inner.map(squared, [3, 4])), inner.submit(nested, Point(1.0)).result()]


def nested(point: Point) -> list[Any]:
    return [type(point) is Point, kind_of([1]), repr(MISSING), pickle.loads(pickle.dumps(Sim(2))) == Sim(2)]


@check
def a_call_may_ask_for_types(executor: Executor) -> Any:
    return executor.submit(hinted).result()


def hinted() -> list[str]:
    hints = [typing.get_type_hints(item) for item in (annotated, Point, Sim.step, Pair)]
    return [str(sorted(f"{name}: {hint}" for name, hint in found.items())) for found in hints]


def annotated(sim: Sim, colours: dict[str, Colour], place: Point | None = None, *more: Vector) -> besides.Metres:
    raise NotImplementedError


@check
def a_call_may_look_at_its_main_module(executor: Executor) -> Any:
    return executor.submit(looking).result()


def looking() -> list[Any]:
    import __main__

    own = sys.modules[__name__]
    names = [__name__, __main__.squared(3), own is __main__, own.fib(5), squared.__globals__ is vars(__main__)]
    return [*names, globals() is vars(__main__), __main__.__file__ == squared.__code__.co_filename, f"{__main__!r:.18}"]


@check
def a_call_knows_the_lines_of_the_script(executor: Executor) -> Any:
    return executor.submit(told).result()


def told() -> list[Any]:
    try:
        squared("x" * 2)  # type: ignore[arg-type]
    except TypeError:
        lines = traceback.format_exc().splitlines()
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    found = [line.strip() for line in lines if "^" not in line]
    where = [str(noted[0].filename), noted[0].lineno]
    sources = [inspect.getsource(item) for item in (squared, Sim.step, Sim.Part, of_a_cell)]
    return [found, where, *sources, inspect.getsourcelines(told)[1]]


@check
def so_does_the_traceback_of_a_notebooks_call(executor: Executor) -> Any:
    error = executor.submit(of_a_cell, 0).exception()
    return "return 1 / number  # as in a notebook" in str(error and error.__cause__)


@check
def an_initializer_is_seen_by_all_functions(executor: Executor) -> Any:
    return [executor.submit(function).result() for function in (begun, also_begun, begun)]


def begun() -> list[Any]:
    return [MODEL, Cfg.model, LATER, type(TOOL) is Tool, type(pickle.loads(pickle.dumps(TOOL))) is Tool]


def also_begun() -> list[Any]:
    return [*begun(), type(TOOL) is Tool]


@check
def an_argument_does_not_undo_it(executor: Executor) -> Any:
    return [executor.submit(applied, begun).result(), executor.submit(itself, Cfg()).result().model, Cfg.model]


# -- what the pool cannot do -----------------------------------------------------------------------------------------


@ours
def a_call_sees_the_script_as_it_was_when_it_was_submitted(executor: Executor) -> Any:
    global COUNT
    futures = []
    for limit in (1, 2, 1):
        Cfg.limit, COUNT = limit, limit
        futures += [executor.submit(limited) for _ in range(3)]
    Cfg.limit = COUNT = 0
    return [future.result() for future in futures]


def limited() -> list[int]:
    return [Cfg.limit, COUNT]


@ours
def functions_and_classes_without_a_name(executor: Executor) -> Any:
    class Local:
        made = 0

        def __init__(self) -> None:
            self.value = COUNT

    def local() -> Any:
        Local.made += 1
        return Local(), lambda: squared(COUNT + 3)

    value, function = executor.submit(local).result()
    return [type(value) is Local, Local.made, value.value, function(), executor.submit(lambda: fib(9)).result()]


@ours
def an_object_that_calls_share(executor: Any) -> Any:
    shared = executor.scatter(Sim(5))
    return [executor.submit(function, shared).result() for function in (is_one, is_another)]


def is_one(sim: Any) -> bool:
    return type(sim) is Sim and type(pickle.loads(pickle.dumps(sim))) is Sim


def is_another(sim: Any) -> list[Any]:
    return [is_one(sim), sim.step()]


def main() -> None:
    if sys.argv[1] == "pool":
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context, initializer=begin, initargs=("m",)) as pool:
            found = {function.__name__: tried(function, pool) for function in CHECKS}
    else:
        from prominence_executor import ProminenceExecutor

        url, token, workers = sys.argv[1:]
        kind: Any = workers if workers == "warm" else None
        with ProminenceExecutor(
            url, token, workers=kind, max_workers=1 if kind else None, poll_interval=(0.05, 0.5), initializer=begin,
            initargs=("m",),
        ) as executor:  # fmt: skip
            found = {function.__name__: tried(function, executor) for function in CHECKS + OURS}
    print(json.dumps(found))


def tried(function: Callable[[Executor], Any], executor: Executor) -> Any:
    try:
        return function(executor)
    except BaseException:  # noqa: BLE001  the test shows it
        return traceback.format_exc()


if __name__ == "__main__":
    main()
