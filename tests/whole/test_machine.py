"""Whatever is done to calls, in whatever order, every future ends once and with something that can be true of it.

A state machine submits calls that wait at a gate of their own, ends, crashes, cancels, terminates and deletes them, and
lets requests go wrong; in the end it opens all gates and compares what became of each call with what may have.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import proxy as faults
import pytest
from calls import Overheated
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from prominence_executor import CallCrashedError, JobDeletedError, NotFoundError, ProminenceExecutor, ProminenceFuture
from prominence_executor.client.client import ProminenceClient
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

FAULTS = (
    faults.reset_before(),
    faults.reset_after(),
    faults.dropped(),
    faults.status(500),
    faults.status(503, forwarded=True),
    faults.truncated(),
    faults.shortened(),
    faults.corrupted(),
    faults.html(),
    faults.away(0.3),
)


def at_the_gate(gate: str) -> str:
    """The call: does what somebody writes into its gate."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            word = Path(gate).read_text()
        except FileNotFoundError:
            word = ""
        if word == "crash":
            os._exit(3)
        if word == "raise":
            raise Overheated(3695.0, gate)
        if word == "return":
            return gate
        time.sleep(0.02)
    raise TimeoutError(gate)


@dataclass(eq=False)
class Call:
    """A future, and what the machine has done to it."""

    future: ProminenceFuture[str]
    gate: Path
    word: str = "return"
    may_be: set[type[BaseException]] = field(default_factory=set)  # exceptions that can be true of it
    neighbours: list[Call] = field(default_factory=list)  # the calls of its chunk, itself among them
    told: list[str] = field(default_factory=list)  # one entry for every time its callback was called
    seen: tuple[str, Any] | None = None  # the outcome when it was first seen

    def say(self, word: str) -> None:
        if not self.gate.exists():
            self.word = word
            self.gate.with_suffix(".new").write_text(word)
            self.gate.with_suffix(".new").rename(self.gate)

    def outcome(self) -> tuple[str, Any]:
        if self.future.cancelled():
            return "cancelled", None
        error = self.future.exception(0)
        return ("result", self.future.result(0)) if error is None else ("exception", error)


class Machine(RuleBasedStateMachine):
    """Runs on the service that the test has set; an executor and a proxy of its own for each sequence."""

    service: LocalService
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gates-"))
        self.all: list[Call] = []
        self.proxy = faults.FaultProxy(self.service.url, seed=7).__enter__()
        self.executor = ProminenceExecutor(self.proxy.url, self.service.token, poll_interval=(0.05, 0.3))
        self.client = ProminenceClient(self.service.url, self.service.token)

    def noted(self, gates: list[Path], found: list[ProminenceFuture[str]]) -> list[Call]:
        new = [Call(future, gate) for gate, future in zip(gates, found, strict=True)]
        for call in new:
            call.neighbours = new
            call.future.add_done_callback(lambda future, told=call.told: told.append("done"))  # type: ignore[misc]
        self.all += new
        return new

    def gates(self, number: int) -> list[Path]:
        return [self.folder / f"{len(self.all) + n}" for n in range(number)]

    # -- what users do ---------------------------------------------------------------------------------------------

    @rule(target=calls)
    def submit(self) -> Any:
        gates = self.gates(1)
        return multiple(*self.noted(gates, [self.executor.submit(at_the_gate, str(gates[0]))]))

    @rule(target=calls, number=st.integers(2, 4))
    def map(self, number: int) -> Any:
        gates, before = self.gates(number), {id(future) for future in self.executor.futures()}
        self.executor.map(at_the_gate, map(str, gates), chunksize=number)
        new = [future for future in self.executor.futures() if id(future) not in before]
        for future in new[number:]:
            assert not future.done()  # an earlier one that had a moment between the two looks
        return multiple(*self.noted(gates, new[-number:]))

    @rule(call=calls)
    def cancel(self, call: Call) -> None:
        before = call.future.running() or (call.future.done() and not call.future.cancelled())
        if call.future.cancel():
            assert not before
            assert call.future.cancelled()
            assert call.told == ["done"]  # at once
            call.may_be.add(futures.CancelledError)
        else:
            assert call.future.running() or call.future.done()

    @rule(call=calls)
    def terminate(self, call: Call) -> None:
        if call.future.terminate():
            call.may_be.add(futures.CancelledError)
            for other in call.neighbours:
                other.may_be.add(JobDeletedError)

    @rule(call=calls)
    def delete_from_elsewhere(self, call: Call) -> None:
        if call.future.job_id is not None:
            with suppress(NotFoundError):  # it has ended
                self.client.delete_jobs([call.future.job_id])
            for other in call.neighbours:
                other.may_be.add(JobDeletedError)

    # -- what calls, service and network do ------------------------------------------------------------------------

    @rule(call=calls, word=st.sampled_from(["return", "return", "raise", "crash"]))
    def let_go(self, call: Call, word: str) -> None:
        call.say(word)
        if call.word == "raise":
            call.may_be.add(Overheated)
        if call.word == "crash":
            for other in call.neighbours:
                other.may_be.add(CallCrashedError)

    @rule(fault=st.sampled_from(FAULTS), path=st.sampled_from([r"^/jobs$", r"^/jobs\?", "objects", ""]))
    def fault(self, fault: faults.Fault, path: str) -> None:
        self.proxy.inject(fault, path=path, times=1)

    @rule(seconds=st.sampled_from([0.1, 0.4]))
    def time_passes(self, seconds: float) -> None:
        time.sleep(seconds)

    @invariant()
    def what_has_ended_stays_as_it_is(self) -> None:
        for call in self.all:
            if call.future.done():
                outcome = call.outcome()
                call.seen = call.seen or outcome
                assert outcome[0] == call.seen[0]
                assert outcome[1] is call.seen[1]

    def teardown(self) -> None:
        try:
            for call in self.all:
                self.let_go(call, "return")
            done, waiting = futures.wait([call.future for call in self.all], timeout=90)
            assert not waiting
            self.what_has_ended_stays_as_it_is()
            for call in self.all:
                kind, value = call.outcome()
                if kind == "result":
                    assert (call.word, value) == ("return", str(call.gate))
                else:
                    assert isinstance(value or futures.CancelledError(), tuple(call.may_be)), (value, call)
            self.executor.shutdown()
            assert all(call.told == ["done"] for call in self.all)
            assert self.client.list_jobs(constraint=("pxrun", self.executor.run_id)) == []
        finally:
            self.executor.shutdown(wait=True, cancel_futures=True)
            self.client.close()
            self.proxy.stop()
            shutil.rmtree(self.folder)
        assert self.proxy.errors == []


@pytest.mark.slow
def test_no_sequence_leaves_a_future_unsettled_or_settles_it_twice(service: LocalService) -> None:
    class OnThisService(Machine):
        pass

    OnThisService.service = service
    run_state_machine_as_test(
        OnThisService,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=list(HealthCheck),
        ),
    )
