"""A batch of calls at a warm worker: its chunks go to the child one after the other, what comes of them to the client.

It decides when to report, to give waiting chunks back, and to end the child; how, is the worker's business. Where they
are short, the child has some ahead of the one that runs, since each would wait for this process otherwise; before
anything is decided about them, they are taken back. The standard output is written to only while the child has nothing
to do: what is between two positions in it is a call's own.
"""

import json
import signal
import time
from collections import deque

from . import limits, wire
from .reporting import stream_positions
from .worker_child import CLOSED
from .worker_outcomes import Outcomes
from .worker_pipes import END, TIME
from .worker_process import RecordSender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque  # noqa: F401  in comments

FIRST_REPORT = 0.2  # seconds after which a batch that still runs is reported, with what has ended of it
REPORT = 10.0  # seconds between two reports of a long call: the client sees that the worker lives
LOOK = (0.5, 5.0)  # seconds between two looks whether a call is to be ended
SHORT = 0.005  # seconds; after a chunk that took no longer the child is given others ahead
AHEAD = 32  # chunks that it has so at most
NAP = 0.001  # seconds in which nobody looks at what comes of them, while it has many: each look costs as much as a call


class Batch:
    """The chunks of one message, and what has become of each."""

    def __init__(self, worker, chunks, contents, extras, place=None):
        self.worker = worker
        self.chunks = chunks  # elsewhere known by their numbers in this list
        self.waiting = deque(enumerate(contents))
        self.ahead = deque()  # type: Deque[tuple[int, tuple[int, bytes]]]  # that the child has, too, by its numbers
        self.extras = extras
        self.current = None  # the chunk that runs
        self.number = -1  # the child's number for it
        self.content = b""  # the arguments of its calls
        self.printed_from = None  # type: Any  # where its output begins in that of the job, if anybody can say
        self.timed = {}  # type: dict[str, Any]  # its call whose time is measured
        self.began = time.monotonic()  # when it began
        self.goes_ahead = False  # the last one was short
        self.report_at, self.look_at = self.began + FIRST_REPORT, self.began + LOOK[0]
        self.outcomes = Outcomes(worker, chunks, place)
        self.returned = []  # type: list[int]

    def run(self):
        """Run the batch, and report its progress and its end to the client."""
        while self.current is not None or self.start_next():
            self.go_ahead()
            if len(self.ahead) > AHEAD // 2:
                time.sleep(NAP)
            self.take_all(
                self.worker.child.receive(max(0.0, self.next_event() - time.monotonic()), self.worker.listen())
            )
            self.end_at_limit()
            self.end_at_walltime()
            self.end_if_wanted()
            self.report_progress()
        self.outcomes.print_large()
        self.report(final=True)
        self.outcomes.print_all()  # the client does not wait for that

    # -- what the child has to run -------------------------------------------------------------------------------------

    def start_next(self):
        """Give the idle child the next chunk; return False when there is none, or the client has first to read."""
        self.outcomes.print_due()
        if self.outcomes.is_full():
            self.give_back()
        while self.waiting:
            self.present(*self.waiting.popleft(), stream_positions())
            if not self.is_wanted_ended():
                self.begin(self.chunks[self.current], self.content)
                return True
            self.close("crashed", exit=-signal.SIGKILL)  # before it has begun
        return False

    def begin(self, chunk, content):
        """Give the child a chunk; a new child, if the last one was ended."""
        child = self.worker.child_for(chunk, self.extras)
        if "limit" in chunk:
            limits.adopt_orphans()
            limits.bury_orphans(child.pid)
        self.number = child.run([chunk], [content])

    def present(self, number, content, position):
        """Note that a chunk is the one that runs, from now on."""
        self.current, self.content = number, content
        self.began = time.monotonic()
        self.printed_from = position

    def go_ahead(self):
        """Give the child short chunks behind the one that runs, so that it need not wait for the next one."""
        if not self.goes_ahead or not self.waiting or len(self.ahead) > AHEAD // 2 or self.is_to_rest():
            return
        child = self.worker.child
        taken = []  # type: list[tuple[int, bytes]]
        while self.waiting and len(self.ahead) + len(taken) < AHEAD:
            chunk = self.chunks[self.waiting[0][0]]
            if "limit" in chunk or not child.has(chunk):
                break
            taken.append(self.waiting.popleft())
        if taken:
            first = child.run([self.chunks[number] for number, _ in taken], [content for _, content in taken])
            self.ahead.extend(enumerate(taken, first))

    def is_to_rest(self):
        """Return whether the child is to have nothing ahead: its time is measured, or something is to be printed."""
        measured = "limit" in self.chunks[self.current]
        return measured or self.outcomes.is_full() or self.outcomes.is_to_print()

    def recall(self):
        """Take back from the child what it has not begun."""
        if self.current is not None and "limit" in self.chunks[self.current]:
            return  # it has nothing ahead; and what a new process has not begun of this one, another one may have
        numbers = self.worker.child.take_back() if self.worker.child is not None else ()
        self.waiting.extendleft(item for number, item in reversed(self.ahead) if number in numbers)
        self.ahead = deque(pair for pair in self.ahead if pair[0] not in numbers)
        if self.current is not None and self.number in numbers:
            self.waiting.appendleft((self.current, self.content))
            self.current = None

    def hold(self):
        """Have the child begin nothing more, and take in what it has done, so that ``current`` is what it does."""
        self.recall()
        while self.worker.child is not None:
            reply = self.worker.child.receive(0.0)
            if reply is None:
                return
            self.take(reply)

    def next_event(self):
        """Return when there is something to do though the child says nothing, by time.monotonic()."""
        return min(
            self.report_at, self.look_at, self.worker.until or self.report_at, self.timed.get("until", self.report_at)
        )

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def take_all(self, reply):
        """Take what the child has sent, if anything came in time, and all that came with it."""
        while reply is not None:
            self.take(reply)
            reply = self.worker.child.received() if self.worker.child is not None else None

    def take(self, reply):
        """Take what the child has sent."""
        if reply is CLOSED:
            child = self.worker.child
            if child.proven:
                self.recall()  # what it has not begun is not to blame
            self.worker.child = None
            code = child.exit_code()  # nothing is left that could print
            if self.current is not None:
                self.close("crashed", exit=code)
            return
        kind, body, position = reply
        if kind == TIME:
            self.timed = limits.timed(json.loads(body.decode("utf-8")), self.chunks[self.current]["limit"])
            return
        self.outcomes.add(body)
        if kind == END:
            self.worker.child.proven = True
            self.goes_ahead = time.monotonic() - self.began <= SHORT
            self.settle()
            if self.ahead:
                self.number, item = self.ahead.popleft()
                self.present(*item, position)
                if self.is_to_rest():
                    self.recall()

    def end_at_limit(self):
        """End the call whose time is up, when all has been heard; those behind it go on in a new process."""
        while self.timed and time.monotonic() >= self.timed["until"]:
            reply = self.worker.child.receive(0.0)
            if reply is not None:
                self.take(reply)
                continue
            call, self.timed = self.timed, {}
            limits.end_descendants(self.worker.child.pid)
            self.worker.end_child()
            chunk, at = self.chunks[self.current], call["call"] + 1
            RecordSender(self.worker.job, chunk, self.outcomes.add).write(
                call["call"], "timelimit", **limits.overdue(call)
            )
            if any(size is not None for size in chunk["calls"][at:]):
                done = sum(size or 0 for size in chunk["calls"][:at])
                self.begin(dict(chunk, calls=[None] * at + chunk["calls"][at:]), self.content[done:])
            else:
                self.settle()

    def end_at_walltime(self):
        """End the present chunk, and give the others back, when the worker's time is up."""
        now = time.monotonic()
        if self.current is not None and self.worker.until is not None and now >= self.worker.until:
            self.hold()
            if self.current is not None:
                self.worker.end_child()
                self.close("walltime", seconds=now - self.began)
            self.give_back()

    def end_if_wanted(self):
        """End the present chunk if the client wants that; asks ever less often, unless it is told."""
        now = time.monotonic()
        if self.current is None:
            return
        if self.worker.listen() is not None:
            self.worker.hear()
        elif now >= self.look_at:
            self.worker.look()
        if self.is_wanted_ended():
            self.hold()
        if self.is_wanted_ended():
            self.worker.end_child()
            self.close("crashed", exit=-signal.SIGKILL)
        if now >= self.look_at:
            self.look_at = time.monotonic() + min(max((now - self.began) / 10, LOOK[0]), LOOK[1])

    def is_wanted_ended(self):
        """Return whether the client wants the present chunk ended."""
        return self.current is not None and self.worker.is_to_end(self.chunks[self.current])

    def report_progress(self):
        """Report what has ended so far, now and then; after a while give back what waits."""
        now = time.monotonic()
        if self.current is not None and now >= self.report_at:
            if now - self.began > FIRST_REPORT:
                self.give_back()  # they would wait for this call: another worker may have nothing to do
            self.report(final=False)
            self.report_at = time.monotonic() + (REPORT if now - self.began > FIRST_REPORT else FIRST_REPORT)

    def give_back(self):
        """Leave to other workers the chunks that have not begun."""
        self.recall()
        self.returned += [number for number, _ in self.waiting]
        self.waiting.clear()

    def close(self, kind, **facts):
        """Write for the chunk what its process cannot write any more."""
        until = stream_positions()
        if self.printed_from and until:
            facts["streams"] = [self.printed_from, until]
        RecordSender(self.worker.job, self.chunks[self.current], self.outcomes.add).write(wire.NO_CALL, kind, **facts)
        self.goes_ahead = False  # another process has first to run one
        self.settle()

    def settle(self):
        """Keep what an ended chunk left."""
        number, self.current = self.current, None
        self.content, self.timed = b"", {}
        self.outcomes.settle(number)

    def report(self, final):
        """Publish what has ended, what runs, and what is given back."""
        ended, body = self.outcomes.for_report(self.current)
        header = {"final": final, "ended": ended, "running": self.current, "returned": self.returned}
        if self.outcomes.unreached:
            header["unreached"] = True
        self.worker.report(header, body)
        if self.current is None:
            self.outcomes.print_stored()
