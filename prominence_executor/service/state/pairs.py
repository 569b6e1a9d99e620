"""Small texts under keys, private to each user. Knows no limits and no requests."""

from __future__ import annotations

from .store import Store

_AROUND = 24  # bytes in such an answer around a key and its value
_FEW = 128  # keys that SQLite reads in a moment,
_SHORT = 128 << 10  # if their values have no more characters together
_UNDER = "SELECT key, value FROM pairs WHERE user = ? AND key >= ? AND key < ? ORDER BY key"
_LAST = "\U0010ffff"  # sorts after every other character


class Pairs:
    """The keys and values of all users. Every method may be called from any thread: the store's lock guards it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, user: str, key: str) -> str | None:
        """Return the value of a key, or None without one."""
        row = self._store.row("SELECT value FROM pairs WHERE user = ? AND key = ?", user, key)
        return None if row is None else str(row["value"])

    def few_under(self, user: str, prefix: str) -> list[tuple[str, str]] | None:
        """Return what `under` does, if so few keys begin so, and with so short values, that it takes a moment; or None.

        Finding that out takes no longer, whatever there is.
        """
        found: list[tuple[str, str]] = []
        size = 0
        for row in self._store.iterate(_UNDER, user, prefix, prefix + _LAST):
            size += len(row["value"])
            if size >= _SHORT or len(found) == _FEW - 1:
                return None
            found.append((row["key"], row["value"]))
        return found

    def set(self, user: str, key: str, value: str) -> None:
        """Set a value, whatever was there."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO pairs VALUES (?, ?, ?) ON CONFLICT (user, key) DO UPDATE SET value = excluded.value",
                (user, key, value),
            )

    def replace(self, user: str, key: str, previous: str, value: str) -> bool:
        """Replace exactly the previous value in one step, never create one. Whether that was there."""
        with self._store.transaction() as db:
            done = db.execute(
                "UPDATE pairs SET value = ? WHERE user = ? AND key = ? AND value = ?", (value, user, key, previous)
            )
        return done.rowcount == 1

    def delete(self, user: str, key: str) -> bool:
        """Delete one key. Whether it was there."""
        with self._store.transaction() as db:
            done = db.execute("DELETE FROM pairs WHERE user = ? AND key = ?", (user, key))
        return done.rowcount > 0

    def delete_prefix(self, user: str, prefix: str) -> bool:
        """Delete every key that begins so. Whether there was one."""
        with self._store.transaction() as db:
            done = db.execute(
                "DELETE FROM pairs WHERE user = ? AND key >= ? AND key < ?", (user, prefix, prefix + _LAST)
            )  # fmt: skip
        return done.rowcount > 0

    def stored(self, user: str, prefix: str) -> int:
        """Return the bytes that the keys that begin so take with their values, which the real service has in base64.

        Its answers are as long, values asked for or not: measured, 196 values of 15,960 bytes are below 4 MB, 197 not.
        """
        value = "(length(CAST(value AS BLOB)) + 2) / 3 * 4"
        row = self._store.row(
            f"SELECT coalesce(sum(length(CAST(key AS BLOB)) + {value} + {_AROUND}), 0) AS size "  # noqa: S608
            "FROM pairs WHERE user = ? AND key >= ? AND key < ?",
            user, prefix, prefix + _LAST,
        )  # fmt: skip
        return 0 if row is None else int(row["size"])

    def under(self, user: str, prefix: str) -> list[tuple[str, str]]:
        """Return the keys that begin so, in order, with their values."""
        rows = self._store.rows(_UNDER, user, prefix, prefix + _LAST)
        return [(row["key"], row["value"]) for row in rows]
