"""How often an idle warm worker asks for a batch, and what it needs for one."""

from __future__ import annotations

from typing import Any

from prominence_executor.remote.worker import needed_for, pause

BOUNDS = (0.002, 2.0)


def test_looks_become_rare_while_nothing_comes() -> None:
    assert pause(0.0, 0.001, False, BOUNDS) == 0.002
    assert pause(2.0, 0.012, False, BOUNDS) == 0.1
    assert pause(600.0, 0.012, False, BOUNDS) == 2.0


def test_a_call_after_a_pause_of_the_program_waits_for_less_than_a_second() -> None:
    assert pause(10.0, 0.012, False, BOUNDS) < 0.33
    assert pause(60.0, 0.012, False, BOUNDS) < 0.8
    idle, looks = 0.0, 0
    while idle < 300.0:
        idle, looks = idle + 0.012 + pause(idle, 0.012, False, BOUNDS), looks + 1
    assert looks < 370  # as many as with one after a twentieth of the time, and a second at most


def test_a_service_that_is_slow_is_asked_less_often_but_an_outage_is_over_when_it_is() -> None:
    assert pause(0.0, 0.012, False, BOUNDS) == 0.006
    assert pause(0.0, 600.0, False, BOUNDS) == 2.0


def test_a_request_that_has_waited_was_the_pause_and_one_that_came_back_at_once_was_not() -> None:
    assert pause(50.0, 50.0, True, BOUNDS) == 0.0
    assert pause(600.0, 0.001, True, BOUNDS) == 1.999


def test_a_batch_needs_what_its_chunks_name() -> None:
    chunks: list[dict[str, Any]] = [
        {"function": "f", "modules": None, "objects": ["a", "b"]},
        {"function": "g", "modules": "m", "objects": ["b"]},
    ]
    assert needed_for(chunks) == {"f", "g", "m", "a", "b"}
    assert needed_for([]) == set()
