"""Which jobs of a workflow are due, and how it ends. Pure: what is stored is given, what follows is returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schema.allocation import Allocation
from ..schema.workflow import Member
from ..state.store import NewJob


@dataclass(frozen=True)
class Step:
    """What is to be done with a workflow now: submit members, or end it with a status, or neither (wait)."""

    due: tuple[Member, ...] = ()
    ends: str | None = None


def states_of(expanded: dict[str, Member], done: dict[str, list[int]], submitted: dict[str, str]) -> dict[str, str]:
    """Return each member as waiting (not submitted), open, done or failed.

    done: positions of instances that an earlier run completed. submitted: the states of members with stored jobs.
    """
    states = {
        name: "done" if len(done.get(name, [])) == len(member.instances) else "waiting"
        for name, member in expanded.items()
    }
    return {**states, **submitted}


def next_step(expanded: dict[str, Member], states: dict[str, str]) -> Step:
    """Submit every member whose parents are all done; end the workflow when nothing is left to wait for."""
    due = tuple(
        member
        for name, member in expanded.items()
        if states[name] == "waiting" and all(states[parent] == "done" for parent in member.parents)
    )
    if due or "open" in states.values():
        return Step(due)
    return Step(ends="completed" if set(states.values()) == {"done"} else "failed")


def instances(member: Member, workflow: WorkflowPlace, done: list[int], allocation: Allocation) -> list[NewJob]:
    """Return the jobs of a member, each with an output place of its own, without those that are done already."""
    jobs, completed = [], set(done)
    for position, parameters in member.instances:
        if position not in completed:
            suffix = member.name if position < 0 else f"{member.name}/{position}"
            jobs.append(
                NewJob(
                    user=workflow.user,
                    body=member.body,
                    place=f"{workflow.place}/{suffix}",
                    name=f"{workflow.name}/{suffix}",
                    allocation=allocation,
                    workflow=workflow.id,
                    member=member.name,
                    position=position,
                    parameters=parameters,
                )
            )
    return jobs


@dataclass(frozen=True)
class WorkflowPlace:
    """What the jobs of a workflow take from it."""

    id: int
    user: str
    name: str
    place: str  # of all outputs


def progress(counts: tuple[int, int, int], plan: dict[str, Any], total: int, ended: bool) -> dict[str, int]:
    """Return how many of a workflow's jobs are where; running ones count as queued, as on the service.

    counts: of the stored jobs, those that went well, that have not ended, and all.
    """
    done, queued, stored = counts
    failed = stored - done - queued
    done += sum(map(len, plan["done"].values()))
    waiting = 0 if ended else total - done - failed - queued
    return {"done": done, "failed": failed, "queued": queued, "total": total, "waiting": waiting}
