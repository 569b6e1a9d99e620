"""Variables for processes that tests start."""

from __future__ import annotations

import os


def unmeasured(**variables: str) -> dict[str, str]:
    """Return this process's variables, but for those with which coverage is measured in children, and some more.

    For jobs, which never have them, and for tests of what a process imports, opens or says.
    """
    return {**{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}, **variables}
