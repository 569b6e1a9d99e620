"""Laws of descriptions: what is refused, what a job gets of a machine, and which jobs a factory stands for."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.service.schema.allocation import allocate
from prominence_executor.service.schema.bounds import MOST_NODES
from prominence_executor.service.schema.factory import expanded
from prominence_executor.service.schema.items import Refused
from prominence_executor.service.schema.job import check_job
from prominence_executor.service.schema.resources import check_resources
from prominence_executor.service.schema.workflow import check_workflow, members

TASK = {"image": "any", "runtime": "singularity", "cmd": "true"}
JOB = {
    "name": "a",
    "tasks": [TASK],
    "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1},
    "inputs": [{"filename": "f", "content": "eA=="}],
    "artifacts": [{"url": "u", "mountpoint": "u:/home/user/u"}],
    "outputFiles": ["o"],
    "labels": {"k": "v"},
    "policies": {"maximumRetries": 1},
    "notifications": [{"event": "jobFinished", "type": "email"}],
}
WORKFLOW = {
    "name": "w",
    "jobs": [{**JOB, "name": "first"}, {**JOB, "name": "second"}],
    "dependencies": {"first": ["second"]},
    "labels": {"k": "v"},
    "policies": {"maximumRetries": 1},
    "factories": [
        {"type": "zip", "name": "z", "jobs": ["first"], "parameters": [{"name": "i", "values": [1, 2]}]},
        {
            "type": "parameterSweep", "name": "s", "jobs": ["second"],
            "parameters": [{"name": "x", "start": 0, "end": 1, "step": 1}],
        },
    ],
}  # fmt: skip

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each part of a description."""
    found = [path] if path else []
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(part, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """A description with another part at a place."""
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


def test_the_descriptions_of_these_tests_are_accepted() -> None:
    check_job(JOB)
    check_workflow(WORKFLOW)


@given(st.sampled_from(places(JOB)), anything)
def test_a_job_with_anything_anywhere_is_accepted_or_refused_with_a_sentence(path: tuple[Any, ...], by: Any) -> None:
    with contextlib.suppress(Refused, UnicodeEncodeError):  # half a character has an answer of its own
        check_job(replaced(JOB, path, by))


@given(st.sampled_from(places(WORKFLOW)), anything)
def test_a_workflow_with_anything_anywhere_is_accepted_or_refused_with_a_sentence(
    path: tuple[Any, ...], by: Any
) -> None:
    workflow = replaced(WORKFLOW, path, by)
    with contextlib.suppress(Refused, UnicodeEncodeError):
        check_workflow(workflow)
        members(workflow)


pair = st.tuples(st.integers(1, 300), st.integers(1, 300)).map(sorted)


@given(
    st.one_of(
        st.fixed_dictionaries({"cpus": st.integers(1, 300)}),
        st.fixed_dictionaries({"cpusRange": pair}),
        st.fixed_dictionaries({"cpusOptions": pair}),
    ),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"nodes": st.integers(1, MOST_NODES)}),
        st.fixed_dictionaries({"totalCpusRange": pair}),
    ),
    st.sampled_from([{"memory": 3}, {"memoryPerCpu": 2}]),
    st.integers(1, 64),
)
def test_a_job_gets_what_it_may_have_and_no_more_slots_than_there_are(
    cpus: dict[str, Any], nodes: dict[str, Any], memory: dict[str, int], machine: int
) -> None:
    resources = {**cpus, **nodes, **memory, "disk": 1}
    check_resources(resources)
    gets = allocate(resources, machine)
    low, high = next(iter(cpus.values())) if "cpus" not in cpus else (cpus["cpus"],) * 2
    assert gets.cpus in (low, high) if "cpusOptions" in cpus else low <= gets.cpus <= high
    if "cpus" not in cpus and low <= machine:
        assert gets.cpus <= machine
    assert gets.memory == memory.get("memory", 2 * gets.cpus)
    assert 1 <= gets.nodes <= MOST_NODES
    slots, _ = gets.slots(machine, 1000)
    assert slots <= machine or gets.cpus > machine  # one node too large for the machine stays too large


@given(st.lists(st.lists(st.integers(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_zip_pairs_values_by_position(lists: list[list[int]]) -> None:
    names = [f"p{number}" for number in range(len(lists))]
    parameters = [{"name": name, "values": values} for name, values in zip(names, lists, strict=True)]
    found = expanded({"type": "zip", "parameters": parameters})
    assert found == [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=3))
def test_a_sweep_is_every_combination_the_last_parameter_changing_fastest(
    ranges: list[tuple[int, int, int]],
) -> None:
    parameters = [
        {"name": f"p{number}", "start": start, "end": start + size, "step": step}
        for number, (start, size, step) in enumerate(ranges)
    ]
    found = expanded({"type": "parameterSweep", "parameters": parameters})
    wanted = itertools.product(*(range(start, start + size + 1, step) for start, size, step in ranges))
    assert [tuple(values.values()) for values in found] == list(wanted)


@given(st.integers(1, 50))
def test_a_repeat_has_as_many_instances_without_parameters(number: int) -> None:
    assert expanded({"type": "repeat", "number": number}) == [{}] * number
