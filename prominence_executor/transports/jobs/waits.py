"""When to ask for the list of jobs again: pure functions of what has happened, in seconds.

Where the service does not let requests wait, looks become rare while nothing happens. Where it does, one request after
the other waits, and only what a list costs keeps them apart.
"""

from __future__ import annotations

SHARE = 9.0  # a pause is at least this many times as long as the list took: a tenth of the service's time
_ENDING = (30.0, 3.0)  # since a job was accepted or ended in which others may end, and the longest pause then
_CHEAP = 0.004  # that a list of few jobs costs, with which nobody is kept waiting
_EACH = 0.005  # for each job in flight: changes that come close together are one answer
_WAIT = 50.0  # for which a request waits; the service, or half the client's timeout, may make it less
_WAIT_SOON = 1.0  # likewise, while an answer to a POST may be on its way,
_SOON = 2.0  # which is for so long after something has happened


def pause_of_looks(eventless: float, age: float, took: float) -> float:
    """Compute the pause until the next look: short while things happen, else longer and longer.

    A tenth of the time in which nothing happened; a thirtieth of the age of the youngest job; and so long that a list
    which costs the service ``took`` is not all that it does. But a result waits for no longer than a few seconds where
    others have just come.
    """
    pause = max(0.1 * eventless, age / 30, SHARE * took)
    return min(pause, _ENDING[1]) if eventless < _ENDING[0] else pause


def pause_between(took: float, jobs: int, shortest: float) -> float:
    """Compute the pause between two requests that wait: none for a single job, more where a list costs the service."""
    return max(SHARE * max(0.0, took - _CHEAP), min(shortest, _EACH * (jobs - 1)))


def longest_wait(eventless: float, soon: float | None = None) -> float:
    """Compute for how long a request may wait: a second at least, since it is counted in whole ones.

    A job that is accepted only after it has ended changes the list no more: so soon after an event it is looked for.
    ``soon``: seconds until there is something else to do, if there is.
    """
    longest = _WAIT_SOON if eventless < _SOON else _WAIT
    return longest if soon is None else max(1.0, min(longest, soon))
