"""What requests wait for: changes that any thread announces, and that a view awaits without holding a thread.

A view asks for the revision first, looks then, and waits for something after that revision: nothing is missed between
the two. Knows nothing of what it is that changes, and nothing of requests (preferences.py).

Things that change have a room (whose they are) and a name in it; one waits for a name, or for all that begin so. The
last changes of a room are remembered. Who asks for what came after an earlier one is told that something has changed,
whether that is so or not: to look once too often does no harm.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import NamedTuple

_REMEMBERED = 1000  # names of a room that have changed last
_MOST = 1000  # requests of one room that wait at the same time


class Topic(NamedTuple):
    """What is waited for: a name in a room, or all names that begin so."""

    room: Hashable
    name: str = ""
    prefix: bool = False

    def concerns(self, other: Topic) -> bool:
        """Return whether a change of this is one of the other, too; both are of one room."""
        if self.prefix and other.name.startswith(self.name):
            return True
        return self.name.startswith(other.name) if other.prefix else self.name == other.name


class _Room:
    def __init__(self, forgotten: int) -> None:
        self.changed: OrderedDict[Topic, int] = OrderedDict()  # the last change of each, the latest at the end
        self.forgotten = forgotten  # the revision up to which changes are not remembered
        self.waiting: dict[asyncio.Future[None], Topic] = {}


class Changes:
    """What has changed of late, and who waits for more. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Higher than any of a service before this one, so that its clients do not wait for what they have missed.
        self._revision = self._first = time.time_ns() // 1000
        self._rooms: dict[Hashable, _Room] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody waits any more: the service ends."""
        return self._closed

    def revision(self) -> int:
        """Return the number of the last change."""
        with self._lock:
            return self._revision

    def announce(self, *topics: Topic) -> None:
        """Say that something has changed, after it has been stored."""
        woken: list[asyncio.Future[None]] = []
        with self._lock:
            for topic in topics:
                self._revision += 1
                room = self._room(topic.room)
                room.changed[topic] = self._revision
                room.changed.move_to_end(topic)
                if len(room.changed) > _REMEMBERED:
                    _, room.forgotten = room.changed.popitem(last=False)
                concerned = [future for future, waits_for in room.waiting.items() if topic.concerns(waits_for)]
                for future in concerned:
                    del room.waiting[future]
                woken += concerned
        _wake(woken)

    def has_room(self, topic: Topic) -> bool:
        """Return whether one more may wait: nobody's requests may fill the service."""
        with self._lock:
            room = self._rooms.get(topic.room)
            return not self._closed and (room is None or len(room.waiting) < _MOST)

    async def after(self, revision: int, topic: Topic, seconds: float) -> int:
        """Wait for a change after this revision, for so many seconds at most; return the revision that there is now."""
        with self._lock:
            room = self._room(topic.room)
            full = len(room.waiting) >= _MOST
            if full or self._closed or seconds <= 0 or self._has_changed(room, revision, topic):
                return self._revision
            loop = asyncio.get_running_loop()
            woken = loop.create_future()
            room.waiting[woken] = topic
        timer = loop.call_later(seconds, _wake, [woken])
        try:
            await woken
        finally:
            timer.cancel()
            with self._lock:
                room.waiting.pop(woken, None)
        return self.revision()

    def close(self) -> None:
        """Have all that wait answered, now and from now on."""
        with self._lock:
            self._closed = True
            waiting = [future for room in self._rooms.values() for future in room.waiting]
            for room in self._rooms.values():
                room.waiting.clear()
        _wake(waiting)

    def _room(self, name: Hashable) -> _Room:
        if name not in self._rooms:
            self._rooms[name] = _Room(self._first)
        return self._rooms[name]

    def _has_changed(self, room: _Room, revision: int, topic: Topic) -> bool:
        if not room.forgotten <= revision <= self._revision:  # of long ago, or of another service
            return True
        for changed in reversed(room.changed):
            if room.changed[changed] <= revision:
                return False
            if changed.concerns(topic):
                return True
        return False


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    futures = list(futures)

    def wake() -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    if futures:  # all of them wait in the server's one loop
        loop = futures[0].get_loop()
        if _runs_here(loop):
            wake()  # nobody need rouse it: what is said here is said in it
            return
        with suppress(RuntimeError):  # it has ended, and with it who waited
            loop.call_soon_threadsafe(wake)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
