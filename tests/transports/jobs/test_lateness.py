"""How soon after its call a future is done, of a service whose answers take their time."""

from __future__ import annotations

import time

import pytest
from proxy import FaultProxy, slow

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.once]

LISTS = r"^/jobs\?constraint="
DETAILS = r"^/jobs\?detail="


def ends_after(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@pytest.mark.parametrize(("path", "most"), [(DETAILS, 4.0), (LISTS, 6.5)], ids=["details", "lists"])
def test_results_come_within_seconds_while_jobs_end_one_after_the_other(
    service: LocalService, path: str, most: float
) -> None:
    late = []
    with (
        FaultProxy(service.url) as proxy,
        ProminenceExecutor(proxy.url, service.token) as executor,  # with the interval that users have
    ):
        rule = proxy.inject(slow(1.0), method="GET", path=path)
        for future in [executor.submit(ends_after, 3.0 * n) for n in range(5)]:
            future.add_done_callback(lambda done: late.append(time.time() - done.result()))
    assert rule.injected
    assert len(late) == 5
    assert max(late) < most, late
