"""The key of a run, as its jobs have been told it: whoever may describe them can verify what they say. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from ..formats import newer
from ..remote.wire import FORMAT, JOB_FILE


def key_in(job: dict[str, Any], run_id: str) -> bytes | None:
    """Find the key in what an executor tells a job; None in what somebody else has told it.

    ``job``: its description, in detail.

    Raises:
        ValueError: a newer version has begun the run.
    """
    for item in job.get("inputs") or ():
        if item.get("filename") == JOB_FILE:
            try:
                instructions = json.loads(base64.b64decode(item["content"]))
                number, run, key = instructions["format"], instructions["run"], bytes.fromhex(instructions["key"])
                is_newer = number > FORMAT
            except (KeyError, TypeError, ValueError, RecursionError):
                continue
            if is_newer:
                raise ValueError(newer(f"run {run_id!r}", number, FORMAT))
            if run == run_id:
                return key
    return None
