"""`Prefer: wait=N` (RFC 7240): a view that answers when something has changed, or after so many seconds.

    GET /kv/KEY                          comes when there is such a key
    GET ...?since=REVISION               comes when something has changed after that

The answer says `Preference-Applied: wait`, also where it is 404, and in `X-Revision` from where on the next request
should wait. The real service knows nothing of it: whoever asks finds that out by the answer. It answers as without the
header, too, when it is asked not to wait (`Platform.without_waiting`), or when too many requests of one user wait.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from .context import Answer, Ask
from .waiting import Topic

LONGEST = 55.0  # seconds: what stands between client and service often ends what is silent for a minute


async def answered(ask: Ask, topic: Topic, look: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return what a view finds when it looks, after the wait that the request prefers."""
    seconds, changes = _preferred(ask.headers.getall("Prefer", [])), ask.api.changes
    if seconds is None or ask.api.service.platform.without_waiting or not changes.has_room(topic):
        return await look()
    now = asyncio.get_running_loop().time
    since, until = ask.args.get("since"), now() + seconds
    if since is not None:
        await changes.after(ask.whole("since", 0, 0), topic, seconds)
    while True:
        revision = changes.revision()  # before it looks: what changes meanwhile is told the next time
        answer = await look()
        left = until - now()
        if answer.status != 404 or since is not None or left <= 0 or not changes.has_room(topic):
            headers = {**answer.headers, "Preference-Applied": "wait", "X-Revision": str(revision)}
            return replace(answer, headers=headers)
        await changes.after(revision, topic, left)


def _preferred(fields: list[str]) -> float | None:
    """Return for how many seconds a request may wait; None where it does not say, or not so that it makes sense."""
    for preference in ",".join(fields).split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(;.*)?', preference, re.IGNORECASE)
        if found is not None:
            return min(float(found[1]), LONGEST)
    return None
