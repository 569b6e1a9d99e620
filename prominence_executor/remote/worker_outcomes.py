"""What a batch at a warm worker has come to: the records of its chunks, on their way to the client.

They go with reports. What is too large for one goes into the object store, or only into the job's standard output,
where all records are put in the end: who attaches later looks there. It knows neither the child nor the mailboxes. That
nothing else writes meanwhile what is a call's own part of the standard output, is up to whoever has something printed.
"""

import fcntl
import os
import stat
import time
from http.client import HTTPException

from . import wire

SOON = 0.2  # seconds after which records should be in the standard output
LARGE = 16 << 20  # bytes of large records that wait for the end of a batch
PRINTED = [0]  # bytes that this process has written to the standard output; there may be more in it
PRINTS = 3  # times that a line may be cut short before it goes to the client in another way


class Outcomes:
    """The records of a batch's chunks, which are known by their numbers.

    ``place``: in the object store, for what is too large for a report; good for one use.
    """

    def __init__(self, worker, chunks, place=None):
        self.key, self.words, self.depot = worker.key, worker.words, worker.depot
        self.room = worker.job["room"]  # bytes in a report
        self.chunks = chunks
        self.place = place
        self.begun = []  # type: list[bytes]  # records of the chunk that runs
        self.records = {}  # type: dict[object, bytes]
        self.held, self.held_large = 0, 0  # bytes of these, without and in what is large
        self.places = {}  # type: dict[object, object]  # where they are, if not in a report
        self.unprinted = []  # type: list[object]  # whose records are not in the standard output yet
        self.printed_at = time.monotonic()
        self.large = []  # type: list[object]  # whose records are to go into the object store
        self.stored = {}  # type: dict[object, bytes]  # that lie there, and are not in the standard output yet
        self.unreached = False  # the object store could not be reached

    def add(self, data):
        """Keep records of the chunk that runs."""
        self.begun.append(data)

    def settle(self, number):
        """Note that this chunk has ended: no records of it come any more."""
        self.records[number], self.begun = b"".join(self.begun), []
        size = len(self.records[number])
        if size > self.room or self.held + size > 2 * self.room:
            self.large.append(number)
            self.held_large += size
        else:
            self.unprinted.append(number)
            self.held += size

    def is_full(self):
        """Return whether the client has first to read what there is."""
        return self.held > self.room or self.held_large > LARGE

    # -- reports -------------------------------------------------------------------------------------------------------

    def for_report(self, running):
        """Return what a report says of the chunks that have ended, and its body; ``running``: the one that runs."""
        if self.place is not None:
            self.store_large(running is None)
        large = set(self.large)
        ready = {number: data for number, data in self.records.items() if number not in large}
        ended = [[number, len(data), self.places.get(number)] for number, data in ready.items()]
        return ended, b"".join(ready.values())

    def store_large(self, may_print):
        """Put large records into the object store, all together."""
        if not self.large:
            return
        place, self.place = self.place, None
        try:
            described = self.depot.put(place, b"".join(self.records[number] for number in self.large))
        except (OSError, ValueError, HTTPException):
            self.unreached = True
            if may_print:
                self.print_large()
        else:
            at, before = 0, PRINTED[0]
            for number in self.large:
                data, self.records[number] = self.records[number], b""
                self.places[number] = dict(described, at=at, length=len(data), printed=before)
                self.stored[number] = data
                at += len(data)
            self.large, self.held_large = [], 0

    # -- the standard output -------------------------------------------------------------------------------------------

    def is_to_print(self):
        """Return whether something is to be put into the standard output before another call runs."""
        return bool(self.large or self.stored or self.is_due())

    def is_due(self):
        """Return whether something has waited long enough to be put into the standard output."""
        return bool(self.unprinted) and time.monotonic() > self.printed_at + SOON

    def print_due(self):
        """Put into the standard output what should be there by now."""
        self.print_stored()
        self.print_large()
        if self.is_due():
            self.print_all()

    def print_all(self):
        """Put into the standard output what is not there yet, and was small."""
        if self.unprinted:
            self.print_chunks(self.unprinted)
        self.unprinted, self.printed_at = [], time.monotonic()

    def print_large(self):
        """Put large records into the standard output, if there is no other place for them."""
        if self.place is not None:
            return
        for number in self.large:
            before = PRINTED[0]
            self.places[number] = self.print_chunks([number]) or [before, 0]  # somewhere from there on
            self.records[number] = b""
        self.large, self.held_large = [], 0

    def print_stored(self):
        """Put into the standard output, too, what lies in the object store: the client has been told of it."""
        for number, data in self.stored.items():
            self.records[number] = data
            self.print_chunks([number])
            self.records[number] = b""
        self.stored = {}

    def print_chunks(self, numbers):
        """Put chunks' records into the standard output; return where they are, or None when nobody can say."""
        described = []
        for number in numbers:
            chunk, size = self.chunks[number], len(self.records[number])
            facts = {"job": chunk["job"], "attempt": chunk["attempt"], "calls": len(chunk["calls"]), "size": size}
            word = self.words.get(chunk["function"])
            described.append(dict(facts, function=word) if word else facts)
        body = b"".join(self.records[number] for number in numbers)
        return print_line(wire.sign({"chunks": described}, body, self.key, "stdout"))


def print_line(text):
    """Write a line to the job's standard output; return where it is: [offset, length], or None when nobody can say.

    Threads and processes that calls have left may write to it at the same time. So all append, whoever shares the
    file with this process; and the line is written in one piece, through an opening of its own, whose position is then
    behind it, and nobody else's.
    """
    data = b"\x1e" + text.encode("ascii") + b"\n"
    PRINTED[0] += len(data)
    try:
        if not stat.S_ISREG(os.fstat(1).st_mode):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
            return None
        fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)
        own = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_APPEND)
        try:
            for _ in range(PRINTS):
                if os.write(own, data) == len(data):
                    return [os.lseek(own, 0, os.SEEK_CUR) - len(data), len(data)]
        finally:
            os.close(own)
    except OSError:
        pass
    return None
