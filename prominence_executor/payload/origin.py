"""Which program this is: what it defines in ``__main__`` is known again by that when it comes back."""

from __future__ import annotations

import uuid

ORIGIN = uuid.uuid4().hex[:16]  # the same in a forked child, which has the same definitions
