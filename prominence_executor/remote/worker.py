"""A warm worker: a job that stays, takes batches of calls from a mailbox, and answers there.

This is its supervisor, which talks to the service and runs nothing of the user's: a child does that
(worker_child.py), one chunk of calls at a time. So a call that takes its process down costs itself; and chunks that
wait behind a long call can be given back.

The mailboxes are keys of the service's key-value store (see transports/warm, which is the other side):

    <place>/i/<worker>/<batch>/<part>    what the client sends; a batch is there when its part 0 is
    <place>/o/<worker>/<part>            what this worker has to say of its present batch, all of it, each time anew
    <place>/c/<worker>                   a call that is to be ended

Where the service lets requests wait, the worker waits for its next batch, and while it is busy for a call that is to be
ended; else it looks, ever less often.

A mailbox is emptied when all is said of what was in it, small ones ten at a time. Outcomes are in the job's standard
output, too, each in a line that begins with a record separator, so that a program that attaches later finds them. A
batch, or outcomes, that are too large for a mailbox lie in the object store (depot.py), and the message only says
where; where that is not to be had, large outcomes are in the standard output only.

All that comes is signed with the run's key, and verified before it is unpickled; all that goes is signed, too.
"""

import os
import time
from http.client import HTTPException

from . import wire
from .depot import Depot
from .inputs import check_digest
from .key_value import WAIT, Service
from .supervisor import seconds_left
from .worker_batch import Batch
from .worker_child import Child

BATCH = "%09d"  # a batch's part of its keys, so that one request empties the mailboxes of ten
SMALL = 1 << 12  # bytes of a message that may stay for a moment when it has been read
SOON = 1  # seconds of that moment, if no other batch comes
DAMAGED = 5  # times in a row that a message may not be as it was signed
ENDING = 20.0  # seconds in which a process of calls may end by itself
IDLE = 20.0  # a mailbox is looked into after one part in so many of the time without a batch,
ROOT = 10.0  # or of the root of it, which is less after four seconds: programs pause for half a minute, too


class Worker:
    """The supervisor, and its mailboxes."""

    def __init__(self, job):
        self.job = job
        self.key = bytes.fromhex(job["key"])
        self.number = job["worker"]
        self.place = job["place"]
        self.inbox = "%s/i/%05d/" % (self.place, self.number)
        self.nonce = os.urandom(8).hex()  # a job that the platform starts again is another worker
        self.service = Service(job["rate"], job.get("tls"))
        self.depot = Depot(self.key, job.get("tls"))
        self.child = None
        self.words = {}  # type: dict[str, str]  # what functions are called, as far as that is known
        self.kept = {}  # type: dict[str, bytes]  # functions, modules and objects that came, for another child
        self.reports = 0
        self.batch = 0
        self.unswept = []  # type: list[str]  # batches that are still in their mailboxes, though all is said of them
        self.asked = 0.0  # seconds that the last request for a batch has taken
        self.to_end = []  # type: list[list[int]]  # the chunks that the client wants ended
        self.damaged = 0  # times in a row that a message was not as it was signed
        if job["modules"]:
            check_digest(job["modules"]["name"], job["modules"]["sha256"])
            with open(job["modules"]["name"], "rb") as file:
                self.kept[job["modules"]["sha256"]] = file.read()
        seconds = seconds_left(job.get("seconds"))
        self.until = time.monotonic() + seconds if seconds else None

    def run(self):
        """Work until the client says that it is enough, is gone, or the walltime is nearly over."""
        idle_since = time.monotonic()
        self.remove("")  # what a worker that had this number before has left would look like a batch
        self.batch = 1
        self.report({"final": True}, b"")
        try:
            while True:
                message = self.receive()
                if message is None:
                    if self.is_over(time.monotonic() - idle_since):
                        return
                    continue
                header, body = message
                if header.get("stop"):
                    self.sweep()
                    self.service.read_left()
                    return
                is_done = self.work(header, body)
                self.empty(later=is_done and len(body) < SMALL)
                self.batch += 1
                idle_since = time.monotonic()
        finally:
            self.finish_child()

    def is_over(self, idle):
        """Return whether a worker without a batch ends now; otherwise wait a little. ``idle``: seconds without one."""
        now = time.monotonic()
        if idle > self.job["patience"]:
            return True
        if self.until is not None and self.until - now < self.job["reserve"] and self.was_read():
            self.report({"final": True, "ending": True}, b"")
            return True
        if self.until is not None and now > self.until:
            return True  # the last report is still to be read where it is
        time.sleep(pause(idle, self.asked, self.service.waits, (self.job["shortest"], self.job["longest"])))
        return False

    def work(self, header, body):
        """Run a batch, and report what came of it: soon, if it takes long, and at the end.

        Returns whether nothing of it was given back.
        """
        self.service.rate = header["rate"]
        self.forget(header.get("forget", ()))
        try:
            if "courier" in header:
                self.depot.open(header["courier"])
            if "stored" in header:
                body = self.depot.fetch(header["stored"])
        except (OSError, ValueError, HTTPException):
            self.give_back(header["chunks"], unreached=True)
            return False
        contents, at = [], 0
        for chunk in header["chunks"]:
            contents.append(body[at : at + chunk["size"]])
            at += chunk["size"]
        extras = {}
        for extra in header["extras"]:
            extras[extra["name"]] = body[at : at + extra["size"]]
            if "word" in extra:
                self.words[extra["name"]] = extra["word"]
            at += extra["size"]
        del body  # all of it is in pieces now: a large one is not to be there twice
        lacking = needed_for(header["chunks"]) - self.kept.keys() - extras.keys()
        if lacking:
            self.give_back(header["chunks"])
            return False
        batch = Batch(self, header["chunks"], contents, extras, header.get("place"))
        batch.run()
        return not batch.returned

    def give_back(self, chunks, **why):
        """Leave a whole batch to others, or to a message that has what is missing here."""
        everything = list(range(len(chunks)))
        self.report(dict(why, final=True, ended=[], running=None, returned=everything, untaken=True), b"")

    def forget(self, names):
        """Let go of objects that no call has needed for long."""
        for name in names:
            self.kept.pop(name, None)
        if self.child is not None:
            self.child.forget(names)

    # -- the child ---------------------------------------------------------------------------------------------------

    def child_for(self, chunk, extras):
        """Return the child, with all that the chunk needs."""
        if self.child is not None and not self.child.prepare(chunk, extras):
            self.finish_child()  # it has other modules of the same names: only a new process can have these
        if self.child is None:
            self.child = Child(self.job, [self.service, self.depot], self.kept)
            self.child.prepare(chunk, extras)
        return self.child

    def finish_child(self):
        """Let the child end, if there is one: its threads, and its handlers of `atexit`; but not for long."""
        if self.child is not None:
            left = ENDING if self.until is None else min(ENDING, self.until - time.monotonic())
            self.child.finish(left)
            self.child = None

    def end_child(self):
        """End the child, if there is one, with all that it has started."""
        if self.child is not None:
            self.child.end()
            self.child = None

    # -- mailboxes ---------------------------------------------------------------------------------------------------

    def receive(self):
        """Return the next batch, or None while there is none."""
        place = self.inbox + BATCH % self.batch + "/"
        began = time.monotonic()
        wait = min(self.patience(), SOON) if self.unswept else self.patience()
        first = self.service.call("GET", place + "0", wait=wait)
        self.asked = time.monotonic() - began
        if first is None:
            self.sweep()
            return None
        try:
            message = self.whole(place, first)
        except ValueError:
            self.damaged += 1  # it may have been damaged on its way
            if self.damaged >= DAMAGED:
                raise
            return None
        self.damaged = 0
        return message

    def empty(self, later):
        """Empty the mailbox of the present batch, of which all is said; nobody waits for that, nor for the answer.

        ``later``: where the service lets requests wait, that is done for ten together.
        """
        text = BATCH % self.batch
        if text.endswith("9"):  # none whose name begins as those of the ten is still to come
            self.unswept = []
            self.remove(text[:-1])
        elif later and self.service.waits:
            self.unswept.append(text)
        else:
            self.remove(text)

    def sweep(self):
        """Empty the mailboxes that are still to be emptied; the next batch may be in its own already."""
        for text in self.unswept:
            self.remove(text)
        self.unswept = []

    def remove(self, batches):
        """Remove all messages of batches that begin so."""
        self.service.leave("DELETE", self.inbox + batches + "?prefix=true")

    def patience(self):
        """Return for how many seconds a request may wait: it must not keep this worker from ending in time."""
        if self.until is None:
            return WAIT
        return int(min(WAIT, max(1.0, self.until - time.monotonic() - self.job["reserve"])))

    def whole(self, place, first):
        """Return the message whose first part this is, or None."""
        nonce, total, text = first.decode("ascii").split(":", 2)
        if nonce != self.nonce:
            return None  # it is for another one, which had this number before
        texts = [text]
        for part in range(1, int(total)):
            value = self.service.call("GET", place + str(part))
            if value is None:
                return None
            texts.append(value.decode("ascii").split(":", 2)[2])
        return wire.verify("".join(texts), self.key, "%s:%d" % (nonce, self.batch))

    def report(self, header, body):
        """Put a report into the mailbox of this worker, in place of what was there."""
        self.reports += 1
        asked = self.service.requests
        left = None if self.until is None else self.until - time.monotonic()
        header.update(nonce=self.nonce, batch=self.batch, left=left, requests=asked, host=os.uname().nodename)
        text = wire.sign(header, body, self.key, "o%d" % self.number)
        for part, value in reversed(list(enumerate(wire.split(text, str(self.reports))))):
            self.service.call("POST", "%s/o/%05d/%d" % (self.place, self.number, part), value.encode("ascii"))

    def was_read(self):
        """Return whether the client has read the last report, and removed it."""
        return self.service.call("GET", "%s/o/%05d/0" % (self.place, self.number)) is None

    def listen(self):
        """Have a request stand that hears of a call that is to be ended; return what it comes to, or None."""
        watch = self.service.watch
        watch.end_if_late()
        if self.service.waits and not watch.stands():
            watch.ask("%s/c/%05d" % (self.place, self.number))
        return watch if watch.stands() else None

    def hear(self):
        """Take in what that request has brought, if anything."""
        self.note(self.service.watch.answer())

    def look(self):
        """Take in what the client wants ended, if anything, where no request can wait for that."""
        self.note(self.service.call("GET", "%s/c/%05d" % (self.place, self.number)))

    def note(self, text):
        """Keep what the client wants ended: it may be a chunk that has not begun."""
        if text is None:
            return
        try:
            header, _ = wire.verify(text.decode("ascii"), self.key, "c%d" % self.number)
        except ValueError:
            self.damaged += 1  # it may have been damaged on its way, and is asked for again
            if self.damaged >= DAMAGED:
                raise
            self.service.watch.give_up()
            return
        self.damaged = 0
        self.to_end = header["end"]

    def is_to_end(self, chunk):
        """Return whether the client wants this chunk ended."""
        return [chunk["job"], chunk["attempt"]] in self.to_end


def needed_for(chunks):
    """Return the names of the functions, modules and objects that chunks need."""
    names = {chunk["function"] for chunk in chunks} | {chunk["modules"] for chunk in chunks}
    return names.union(*(chunk["objects"] for chunk in chunks)) - {None}


def pause(idle, asked, waits, bounds):
    """Return for how many seconds to ask no more, after a request for a batch that took ``asked`` and brought none.

    Looks become rare with the time that was ``idle``, and where answers take their time. A request that has waited was
    a pause itself. ``bounds``: the shortest and the longest one.
    """
    usual = max(bounds[0], min(idle / IDLE, idle**0.5 / ROOT))
    return max(0.0, min(usual, bounds[1]) - asked) if waits else min(max(usual, asked / 2), bounds[1])
