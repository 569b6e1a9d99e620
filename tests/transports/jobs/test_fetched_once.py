"""Each outcome is fetched once, however the threads that fetch and the one that looks give way to each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads give way to each other thousands of times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_what_is_settled_while_the_jobs_are_looked_through_is_not_fetched_again(
    service: LocalService, hurried: None
) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.001, 0.002)) as executor:
        views = [executor.with_options(env={"NUMBER": str(number)}) for number in range(19)]  # so: a job each
        calls = [view.submit(abs, -number) for number, view in enumerate(views)]
        assert [call.result(60) for call in calls] == list(range(19))
    assert executor.client.requests_sent["GET output"] == 19
