"""What a user says to the engine behind a service, as the one label of a job that carries it. Values only.

The service decides which of it may be said; a service without such an engine has a label that means nothing to it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

ENGINE_LABEL = "pxengine"
_LONGEST = 500  # characters of a label's value


def engine_label(engine: Mapping[str, str]) -> dict[str, str]:
    """Return the label of jobs that says this to the engine; none for nothing.

    Raises:
        ValueError: it is not text by names, or too long for a label.
    """
    if not engine:
        return {}
    for name, value in engine.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"engine must have texts by their names, not {name!r}: {value!r}")
    text = base64.urlsafe_b64encode(json.dumps(dict(engine), sort_keys=True).encode()).decode().rstrip("=")
    if len(text) > _LONGEST:
        raise ValueError(f"engine is too long for a job's label: {len(text)} characters, at most {_LONGEST}")
    return {ENGINE_LABEL: text}
