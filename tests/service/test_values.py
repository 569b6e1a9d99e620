"""Every value that a request can carry has an upper bound, products too, and is refused at once when it is beyond.

What stands here was accepted once, and then stopped the service, filled it, or never ended.
"""

from __future__ import annotations

import json
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import Person

from prominence_executor.service import LocalService
from prominence_executor.service.schema import bounds
from prominence_executor.service.schema.allocation import Allocation
from prominence_executor.service.schema.document import read_document
from prominence_executor.service.schema.items import Refused, check_answer
from prominence_executor.service.schema.job import check_job
from prominence_executor.service.schema.words import split
from prominence_executor.service.schema.workflow import check_members_objects, check_stored, check_workflow, members
from prominence_executor.service.state.clock import Clock
from prominence_executor.service.state.store import NewJob, Query, Store
from prominence_executor.service.state.tokens import Identity, Signer

SECONDS = 5.0  # in which anything is refused, also on a machine that has much else to do
RESOURCES = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1}
SIDECAR = {"image": "any", "runtime": "udocker", "cmd": "true", "type": "sidecar"}


@contextmanager
def at_once() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def task(**parts: Any) -> dict[str, Any]:
    return {"image": "any", "runtime": "singularity", "cmd": "true", **parts}


def job(**parts: Any) -> dict[str, Any]:
    resources = {**RESOURCES, **parts.pop("resources", {})}
    return {"tasks": [task(**parts.pop("task", {}))], "resources": resources, **parts}


def workflow(*factories: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"name": "wf", "jobs": [job(name="pxcall", **parts)], "factories": list(factories)}


def factory(kind: str, *parameters: dict[str, Any], **parts: Any) -> dict[str, Any]:
    made = {"type": kind, "name": "factory", "jobs": ["pxcall"], **parts}
    return {**made, "parameters": list(parameters)} if parameters else made


def zipped(*values: Any, name: str = "i") -> dict[str, Any]:
    return factory("zip", {"name": name, "values": list(values)})


def swept(start: float, end: float, step: float, name: str = "i") -> dict[str, Any]:
    return {"name": name, "start": start, "end": end, "step": step}


HUGE = 10**18
LONG = "x" * 1_000_000

JOBS: dict[str, dict[str, Any]] = {
    **{f"{item} huge": job(resources={item: HUGE}) for item in RESOURCES},
    "walltime of two thousand years": job(resources={"walltime": 10**9}),
    "memoryPerCpu huge": {**job(), "resources": {"cpus": 1, "disk": 1, "memoryPerCpu": HUGE}},
    **{
        f"{item} huge": {**job(), "resources": {**other, "memory": 1, "disk": 1, item: [1, HUGE]}}
        for item, other in (("cpusRange", {}), ("cpusOptions", {}), ("totalCpusRange", {"cpus": 1}))
    },
    "time in queue huge": job(policies={"maximumTimeInQueue": 10**9}),
    "time in queue far below 0": job(policies={"maximumTimeInQueue": -HUGE}),
    "priority huge": job(policies={"priority": HUGE}),
    "priority far below 0": job(policies={"priority": -HUGE}),
    "too many ranks": job(resources={"nodes": 128}, task={"type": "openmpi", "procsPerNode": 10_000}),
    "one word": job(task={"cmd": LONG}),
    "one quoted word": job(task={"cmd": f"'{LONG}'"}),
    "one word in an open quote": job(task={"cmd": f'"{LONG}'}),
    "words and variables": job(task={"cmd": "x " * 100_000, "env": {f"v{n}": "x" * 100_000 for n in range(7)}}),
    "variable long": job(task={"env": {"NAME": "x" * 131_072}}),
    "variable no number": job(task={"env": {"NAME": float("inf")}}),
    "variables many": job(task={"env": {f"v{n}": 1 for n in range(10_001)}}),
    "image long": job(task={"image": LONG}),
    "workdir long": job(task={"workdir": LONG}),
    "tasks many": {**job(), "tasks": [task()] * 1_001},
    "sidecars many": {**job(), "tasks": [task(), *[SIDECAR] * 33]},
    "labels many": job(labels={f"l{n}": "v" for n in range(1_001)}),
    "label name long": job(labels={"l" * 512: "v"}),
    "inputs many": job(inputs=[{"filename": "f", "content": ""}] * 10_001),
    "input path long": job(inputs=[{"filename": "d/" * 2_048 + "f", "content": ""}]),
    "input executable by anything": job(inputs=[{"filename": "f", "content": "", "executable": [1]}]),
    "artifacts many": job(artifacts=[{"url": "u"}] * 10_001),
    "artifact of no URL": job(artifacts=[{"url": "http://[::1"}]),
    "artifact of no port": job(artifacts=[{"url": "http://host:99999/x"}]),
    "artifact long": job(artifacts=[{"url": "http://host/" + LONG}]),
    "outputs many": job(outputFiles=["o"] * 10_001),
    "output long": job(outputFiles=["d/" * 2_048 + "o"]),
    "output of patterns": job(outputFiles=["*/*/*/*/o"]),
    "notifications many": job(notifications=[{"event": "jobFinished", "type": "email"}] * 101),
    "notification with more": job(notifications=[{"event": "jobFinished", "type": "email", "to": []}]),
    "null characters": job(task={"image": "a\0b"}),
    "half a character": job(task={"cmd": "\ud800"}),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_value_beyond_its_bound_is_refused_at_once(name: str) -> None:
    with at_once(), pytest.raises(Refused):
        check_job(JOBS[name])


@pytest.mark.parametrize(
    "accepted",
    [
        job(resources={"walltime": bounds.MOST_MINUTES, "disk": bounds.MOST_OF_A_MACHINE, "nodes": 128}),
        job(policies={"maximumTimeInQueue": bounds.MOST_MINUTES_IN_QUEUE, "priority": -bounds.MOST_PRIORITY}),
        job(task={"cmd": "x" * 131_071, "env": {"NAME": "x" * 131_066}}),
        job(task={"cmd": "word " * 50_000}),
        job(outputFiles=["x" * 240], artifacts=[{"url": "http://[::1]:80/a"}]),
    ],
)
def test_what_is_within_all_bounds_is_accepted(accepted: dict[str, Any]) -> None:
    check_job(accepted)


MANY = list(range(1_000))
WORKFLOWS: dict[str, dict[str, Any]] = {
    "sweep without an end": workflow(factory("parameterSweep", swept(1e17, 1e17 + 1_600, 1))),
    "sweep of tiny steps": workflow(factory("parameterSweep", swept(0, 1, 1e-300))),
    "sweep of a step that is none": workflow(factory("parameterSweep", swept(2**53, 2**53, 1e-9))),
    "sweep beyond floats": workflow(factory("parameterSweep", swept(0, 10**400, 10**399))),
    "sweep to nowhere": workflow(factory("parameterSweep", swept(0, float("inf"), 1))),
    "sweep product": workflow(factory("parameterSweep", *(swept(1, 90, 1, f"p{n}") for n in range(3)))),
    "sweep of many parameters": workflow(
        factory("parameterSweep", *(swept(1, 1 + (n < 16), 1, f"p{n}") for n in range(20)))
    ),
    "zip long": workflow(zipped(*[1] * 100_001)),
    "zip of many parameters": workflow(
        factory("zip", *({"name": f"p{n}", "values": [1] * 1_000} for n in range(1_001)))
    ),
    "zip of a long value": workflow(zipped("x" * 5_000)),
    "zip of a huge number": workflow(zipped(10**5_000)),
    "zip of no number": workflow(zipped(float("nan"))),
    "repeat huge": workflow(factory("repeat", number=HUGE)),
    "parameter's name long": workflow(zipped(1, name="p" * 512)),
    "repeat times jobs": {
        "name": "wf",
        "jobs": [job(name=f"pxcall{n}") for n in range(200)],
        "factories": [factory("repeat", number=1_000, jobs=[f"pxcall{n}" for n in range(200)])],
    },
    "command grows": workflow(zipped("x" * 4_000), task={"cmd": "$i " * 100}),
    "output grows": workflow(zipped("x" * 100), outputFiles=["$i$i$i"]),
    "artifact grows": workflow(zipped("x" * 4_000), artifacts=[{"url": "http://host/$i$i"}]),
    "job's name long": {"name": "wf", "jobs": [job(name="x" * 256)]},
    "factory's name a list": workflow({**zipped(1), "name": [[]]}),
    "factory of lists": workflow({**zipped(1), "jobs": [["pxcall"]]}),
    "factory of no type": workflow({**zipped(1), "type": {}}),
    "children of lists": {**workflow(), "dependencies": {"pxcall": [["pxcall"]]}},
    "notifications anything": {**workflow(), "notifications": [[]]},
    "half a character": workflow(zipped("\udc80")),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_beyond_its_bounds_is_refused_at_once(name: str) -> None:
    with at_once(), pytest.raises(Refused):
        check_workflow(WORKFLOWS[name])


def test_jobs_of_a_workflow_that_would_fill_the_disk_are_refused() -> None:
    large = workflow(factory("repeat", number=100_000), task={"env": {"V": "x" * 10_000}})
    check_workflow(large)
    with at_once(), pytest.raises(Refused, match="smaller"):
        check_stored(members(large))


def test_objects_of_a_workflow_are_not_looked_up_without_end() -> None:
    artifacts = [{"url": f"name{n}$i"} for n in range(100)]
    many = workflow(zipped(*range(10_000)), artifacts=artifacts)
    check_workflow(many)
    with at_once(), pytest.raises(Refused, match="artifacts together"):
        check_members_objects(members(many), lambda name: True)


def test_a_parameters_name_is_no_pattern() -> None:
    parameters = [{"name": "(a+)+c", "values": [1]}, {"name": "last", "values": [1]}]
    with at_once(), pytest.raises(Refused):
        check_workflow(workflow(factory("zip", *parameters), outputFiles=["$" + "a" * 40]))


def test_long_dependencies_are_followed_once() -> None:
    names = [f"j{n}" for n in range(3_000)]
    chain: dict[str, Any] = {
        "name": "wf",
        "jobs": [job(name=name) for name in names],
        "dependencies": {parent: [child] * 30 for parent, child in zip(names, names[1:], strict=False)},
    }
    with at_once():
        check_workflow(chain)
    chain["dependencies"][names[-1]] = [names[0]]
    with at_once(), pytest.raises(Refused, match="cycle"):
        check_workflow(chain)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "nul", "NaN", "[-Infinity]", '{"a": 1e999}', "9" * 5_000, "[" * 33 + "]" * 33, "[" * 200_000,
        '{"a":' * 100_000, '"\\u0000"', '{"\\u0000": 1}', '"\\ud800"', '{"\\udfff": 1}', "\xff", '"\\ud83d"',
    ],
)  # fmt: skip
def test_json_that_nothing_can_use_is_refused(text: str) -> None:
    with at_once(), pytest.raises(Refused):
        read_document(text.encode("latin-1"))


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\"\\é"), inner),
    max_leaves=10,
)  # fmt: skip


@given(documents)
def test_all_other_json_is_read_as_it_was_written(document: Any) -> None:
    assert read_document(json.dumps(document).encode()) == document


@given(st.text("ab \t\r\n'\"\\é#$", max_size=20))
def test_commands_are_split_as_a_shell_does(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError:
        with pytest.raises(ValueError):
            split(command)
        return
    assert split(command) == words


@pytest.mark.parametrize("expires", ["9" * 5_000, "٣" * 12, "-1", "1e9", "", "0"])
def test_a_signed_url_without_a_date_is_refused(expires: str) -> None:
    assert not Signer(b"x" * 32, Clock()).may("GET", "uploads/a/b", expires, "\ud800")


@pytest.mark.parametrize("token", ["é", "x" * 100_000, ".".join(["W1tb" * 1_000] * 3), "a.b.c", "", "e30.e30.e30"])
def test_a_token_of_anything_is_nobodys(token: str) -> None:
    assert Signer(b"x" * 32, Clock()).identify(f"Bearer {token}") is None


def test_a_token_that_was_good_ends_in_time_and_another_one_that_is_like_it_never_was() -> None:
    class Later(Clock):
        passed = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.passed

    clock = Later()
    signer = Signer(b"x" * 32, clock)
    mine, of_job = signer.token("me", 60.0, groups=("us",)), signer.token("me", 60.0, job=7)
    for _ in range(2):
        assert signer.identify(f"Bearer {mine}") == Identity("me", ("us",))
        assert signer.identify(f"Bearer {of_job}") == Identity("me", job=7)
    assert signer.identify(f"Bearer {mine[:-2]}") is None
    clock.passed = 61.0
    for _ in range(2):
        assert signer.identify(f"Bearer {mine}") is None
        assert signer.identify(f"Bearer {of_job}") == Identity("me", job=7, expired=True)


def test_details_are_measured_before_they_are_read(tmp_path: Path) -> None:
    body, store = job(), Store(tmp_path / "state.sqlite", Clock())
    with closing(store):
        allocation = Allocation(1, 1, 1)
        store.add_jobs(NewJob(user="u", body=body, place="p", name="n", allocation=allocation) for _ in range(3))
        assert store.described(store.list_jobs(Query("u"))) == 3 * len(json.dumps(body))
    check_answer(bounds.LARGEST_ANSWER)
    with pytest.raises(Refused, match="fewer"):
        check_answer(bounds.LARGEST_ANSWER + 1)


COMES_AND_GOES = """
import os
while True:
    for name in map(str, range(300)):
        open(name, "w").close()
    for name in map(str, range(300)):
        os.remove(name)
"""


@pytest.mark.once
def test_a_snapshot_of_files_that_come_and_go_is_made_or_refused(person: Person) -> None:
    running = person.create("python3 p.py", files={"p.py": COMES_AND_GOES})
    while person.job(running)["status"] == "idle":
        time.sleep(0.02)
    answers = [person("PUT", f"/jobs/{running}/snapshot?path=.") for _ in range(15)]
    person("DELETE", f"/jobs/{running}")
    assert {answer.status_code for answer in answers} <= {200, 400}
    assert all(answer.json().keys() <= {"error"} for answer in answers)


@pytest.mark.once
def test_what_an_earlier_version_accepted_does_not_stop_the_service(tmp_path: Path) -> None:
    with LocalService(tmp_path, cpus=1, memory=4) as service:
        person = Person(service.url, service.token)
        blocked = person.create("true", resources={"cpus": 2}, policies={"maximumTimeInQueue": 9})
        sweep = {"name": "wf", "jobs": [{**person.described("true", resources={"cpus": 2}), "name": "pxcall"}]}
        sweep["factories"] = [factory("parameterSweep", swept(1, 2, 1))]
        swept_id = person("POST", "/workflows", json=sweep).json()["id"]
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as database, database:
        database.execute("UPDATE jobs SET queue_minutes = ?, cpus = 1 WHERE id = ?", (10**9, blocked))
        database.execute("UPDATE details SET body = replace(body, '\"walltime\": 10', '\"walltime\": 1000000000')")
        database.execute("UPDATE workflows SET body = replace(body, '\"end\": 2', '\"end\": 1e300')")
        database.execute("DELETE FROM jobs WHERE workflow = ?", (swept_id,))
    with LocalService(tmp_path, cpus=1, memory=4) as service:
        person = Person(service.url, service.token)
        assert person.ended(blocked)["status"] == "completed"
        ended = person.ended(f"/workflows/{swept_id}")
        assert (ended["status"], "must be at most" in ended["statusReason"]) == ("failed", True)
