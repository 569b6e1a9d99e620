"""What a workflow does next, decided from the states of its jobs alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.service.execution.due import WorkflowPlace, instances, next_step, progress, states_of
from prominence_executor.service.schema.allocation import Allocation
from prominence_executor.service.schema.workflow import Member

BODY = {"tasks": [], "resources": {"cpus": 1, "memory": 1, "disk": 1}}


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Member]:
    """Members whose parents come before them, some of them of a factory."""
    expanded: dict[str, Member] = {}
    for number in range(draw(st.integers(1, 6))):
        parents = draw(st.sets(st.sampled_from(list(expanded)))) if expanded else set()
        count = draw(st.integers(0, 3))
        positions: list[tuple[int, dict[str, Any] | None]] = [(position, {"i": position}) for position in range(count)]
        expanded[f"m{number}"] = Member(f"m{number}", BODY, positions or [(-1, None)], parents)
    return expanded


@given(workflows(), st.data())
def test_every_member_starts_once_behind_its_parents_and_every_workflow_ends(
    expanded: dict[str, Member], data: st.DataObject
) -> None:
    submitted: dict[str, str] = {}
    for _ in range(100):
        states = states_of(expanded, {}, submitted)
        step = next_step(expanded, states)
        for member in step.due:
            assert member.name not in submitted
            assert all(submitted[parent] == "done" for parent in member.parents)
            submitted[member.name] = "open"
        if step.ends:
            assert not step.due
            break
        still_open = [name for name, state in submitted.items() if state == "open"]
        assert still_open  # there is something to wait for
        submitted[data.draw(st.sampled_from(still_open))] = data.draw(st.sampled_from(["done", "failed"]))
    assert step.ends == ("completed" if list(submitted.values()) == ["done"] * len(expanded) else "failed")


@given(workflows(), st.data())
def test_a_repeated_workflow_runs_exactly_what_was_not_done(expanded: dict[str, Member], data: st.DataObject) -> None:
    done = {
        name: data.draw(st.lists(st.sampled_from([position for position, _ in member.instances]), unique=True))
        for name, member in expanded.items()
    }
    states = states_of(expanded, done, {})
    place = WorkflowPlace(7, "user", "w", "p")
    for name, member in expanded.items():
        jobs = instances(member, place, done[name], Allocation(1, 1, 1))
        left = [position for position, _ in member.instances if position not in done[name]]
        assert [job.position for job in jobs] == left
        assert states[name] == ("waiting" if left else "done")
        assert len({job.place for job in jobs}) == len(jobs)  # an output place of its own for each
        assert all(job.place.startswith(f"p/{name}") and job.name.startswith(f"w/{name}") for job in jobs)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.lists(st.integers(), max_size=5))
def test_the_counts_of_a_running_workflow_add_up(
    done: int, queued: int, failed: int, waiting: int, before: list[int]
) -> None:
    total = done + queued + failed + waiting + len(before)
    counts = (done, queued, done + queued + failed)
    assert progress(counts, {"done": {"m": before}}, total, ended=False) == {
        "done": done + len(before), "failed": failed, "queued": queued, "total": total, "waiting": waiting,
    }  # fmt: skip
    assert progress(counts, {"done": {"m": before}}, total, ended=True)["waiting"] == 0
