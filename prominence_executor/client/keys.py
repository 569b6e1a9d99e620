"""The verbs of the key-value store: set, get, list, delete; a part of `ProminenceClient`."""

from __future__ import annotations

from typing import Literal, overload

from ..errors import InvalidRequestError
from .request_parts import object_path
from .responses import read_keys, read_nothing, read_pairs, read_text
from .session import ApiSession
from .watching import Watch

KEY_VALUE_LIMIT = 15_967
"""The largest value of the key-value store, in bytes of UTF-8."""


class KeyVerbs:
    """What a client can do with keys and their values."""

    api: ApiSession

    def kv_set(self, key: str, value: str, prev: str | None = None) -> None:
        """Set a key; with ``prev``, only if it exists and has that value.

        Raises:
            KeyValueConflictError: it has another value than ``prev``, or none. Also possible, after an answer that
                was lost, because of this very call: with ``prev``, read the key before deciding.
            InvalidRequestError: the value is empty or has more than 15,967 bytes.
        """
        body = value.encode()
        if not body or len(body) > KEY_VALUE_LIMIT:
            raise InvalidRequestError(f"a value must have 1 to {KEY_VALUE_LIMIT} bytes of UTF-8, not {len(body)}")
        params = None if prev is None else {"prev": prev}
        path = "/kv" + object_path(key, "key")
        self.api.call("POST", path, read_nothing, params=params, body=body, kind="text/plain", repeat=prev is None)

    def kv_get(self, key: str, *, wait: float | None = None, since: Watch | None = None) -> str:
        """Return the value of a key.

        Args:
            wait: seconds for which the service may wait until there is such a key; with a revision in ``since``, until
                it has changed. It may not be able to, and answer at once: ``since.waits`` tells.
            since: what has been seen of it; needed for a wait.

        Raises:
            NotFoundError: there is no such key.
        """
        return self.api.call("GET", "/kv" + object_path(key, "key"), read_text, wait=wait, since=since)

    @overload
    def kv_list(
        self, prefix: str = "", values: Literal[False] = False, *, wait: float | None = None, since: Watch | None = None
    ) -> list[str]: ...
    @overload
    def kv_list(
        self, prefix: str, values: Literal[True], *, wait: float | None = None, since: Watch | None = None
    ) -> dict[str, str]: ...
    def kv_list(
        self, prefix: str = "", values: bool = False, *, wait: float | None = None, since: Watch | None = None
    ) -> list[str] | dict[str, str]:
        """List the keys that begin so, each with a leading slash; with ``values`` return a dict from key to value.

        Args:
            prefix: ``"notes/"`` is what lies below ``notes``, ``"notes"`` also ``notes2``.
            wait: seconds for which the service may wait until something of it has changed, after what ``since`` has
                seen. It may not be able to, and answer at once: ``since.waits`` tells. Either way all is listed.
            since: what has been seen of it; needed for a wait.
        """
        params = {"list": "true", "values": "true"} if values else {"list": "true"}
        path = "/kv" + object_path(prefix, "prefix", may_be_empty=True, may_end=True)
        if values:
            return self.api.call("GET", path, read_pairs, params=params, wait=wait, since=since)
        return self.api.call("GET", path, read_keys, params=params, wait=wait, since=since)

    def kv_delete(self, key: str, prefix: bool = False) -> None:
        """Delete a key, or with ``prefix`` all that begin so; no matter whether there are any."""
        params = {"prefix": "true"} if prefix else None
        self.api.call("DELETE", "/kv" + object_path(key, "key", may_end=prefix), read_nothing, params=params)
