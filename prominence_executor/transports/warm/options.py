"""How many warm workers, and for how long: `WarmOptions`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmOptions:
    """How many workers, and for how long."""

    min_workers: int = 0
    max_workers: int = 8
    idle_timeout: float = 300.0  # seconds
    max_attempts: int = 3  # workers that may be lost with a call
    max_requests_per_second: float = 200.0  # of client and workers together, while work flows
    bounded: bool = True  # also where the service lets requests wait, so that nobody looks without need
