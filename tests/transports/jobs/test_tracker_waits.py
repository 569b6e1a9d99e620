"""When the list of jobs is asked for again: the decisions."""

from __future__ import annotations

from prominence_executor.transports.jobs.waits import longest_wait, pause_between, pause_of_looks


def test_looks_become_rare_while_nothing_happens_but_not_right_after_something() -> None:
    assert pause_of_looks(0.0, 0.0, 0.0) == 0.0
    assert pause_of_looks(20.0, 300.0, 0.0) == 3.0
    assert pause_of_looks(600.0, 900.0, 0.0) == 60.0


def test_a_list_that_is_costly_is_asked_for_less_often_either_way() -> None:
    assert pause_of_looks(0.0, 0.0, 0.1) == 0.9
    assert pause_between(0.1, 1, 0.2) > 0.8


def test_a_single_job_is_waited_for_without_a_pause_and_many_are_seen_together() -> None:
    assert pause_between(0.003, 1, 0.2) == 0.0
    assert 0.0 < pause_between(0.003, 10, 0.2) < 0.2
    assert pause_between(0.003, 1000, 0.2) == 0.2


def test_a_request_waits_for_long_only_when_no_answer_to_a_post_can_be_on_its_way() -> None:
    assert longest_wait(0.1) == 1.0
    assert longest_wait(10.0) == 50.0


def test_a_request_waits_no_longer_than_until_there_is_something_else_to_do() -> None:
    assert longest_wait(10.0, 7.0) == 7.0
    assert longest_wait(0.1, 7.0) == 1.0
    assert longest_wait(10.0, 100.0) == 50.0
    assert longest_wait(10.0, 0.2) == 1.0  # less than a second would be none, again and again
