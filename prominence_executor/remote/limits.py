"""Calls that may take only so long: one whose time is up is ended, with all that it has started; the others go on.

It travels where a call has such a limit, and with warm workers. It runs in the supervisor, and nothing of the user's;
only `Telling` is of the process that runs the calls, and says through a pipe when the time of a call begins and ends.
"""

import functools
import json
import os
import select
import signal
import stat
import time

from .records import OutcomeWriter, last_end
from .reporting import stream_positions
from .supervisor import append, close_child, end_group, files_left, seconds_left
from .wire import NO_CALL

ALIVE = 0.2  # seconds between two looks whether the process lives, where what it has started holds its pipe
NAME = 200  # characters of a function's name
TAIL = 2000  # characters of what the call has printed, of each stream
ENDING = 5.0  # seconds in which processes that were killed should be gone
SUBREAPER = 36  # Linux's PR_SET_CHILD_SUBREAPER


# -- in the process of the calls ---------------------------------------------------------------------------------------


class Telling:
    """A part of what writes outcomes: tells the supervisor that a call begins, and that it has returned."""

    def begins(self, call, function, position, is_last):
        """Begin the time of a call: its arguments are there."""
        self.tell({"call": call, "name": name_of(function)[:NAME], "streams": position, "last": is_last})

    def returned(self):
        """End the time of the call."""
        self.tell({})

    def tell(self, facts):
        # type: (dict[str, object]) -> None
        """Send the supervisor what is known of the call; nothing when its time is over."""
        raise NotImplementedError


def name_of(function):
    """Return what a message may call a function, as the client does."""
    while isinstance(function, functools.partial):
        function = function.func
    kind = type(function)
    name = getattr(function, "__qualname__", None) or kind.__qualname__
    return "%s.%s" % (getattr(function, "__module__", None) or kind.__module__, name)


class TellingWriter(Telling, OutcomeWriter):
    """The file of outcomes of a job whose calls have a limit, and the pipe to its supervisor."""

    pipe = -1

    def tell(self, facts):
        """Write a line to the supervisor."""
        try:
            os.write(self.pipe, json.dumps(facts).encode("ascii") + b"\n")
        except OSError:
            pass  # the call has closed it


# -- the supervisor of a job -------------------------------------------------------------------------------------------


def supervise(job, start_child):
    """Run the calls of a job, each within its time: in one process, and in another one behind each that was ended.

    ``start_child(job, outcomes)`` forks it.
    """
    began = time.monotonic()
    seconds = seconds_left(job.get("seconds"))
    until = began + seconds if seconds else None
    outcomes, part = TellingWriter(job), job
    while True:
        watch = Watch(job["limit"], until)
        child = watch.start(part, outcomes, start_child)
        adopt_orphans()
        how = watch.wait(child)
        if how == "ended":
            close_child(job, child)
            return
        end_descendants(child)
        os.waitpid(child, 0)
        if how == "walltime":
            append(job, "walltime", seconds=time.monotonic() - began)
            return
        write_overdue(job, watch.timed)
        if watch.timed["last"]:
            OutcomeWriter(job, append=True).write(NO_CALL, "end")
            return
        part = dict(job, first=watch.timed["call"] + 1)
        outcomes = TellingWriter(job, append=True)


class Watch:
    """The time of the calls of one process.

    ``until``: when the walltime is over.
    """

    def __init__(self, limit, until):
        self._limit = limit
        self._until = until
        self._source, self._target = os.pipe()
        self._received = b""
        self.timed = {}  # what the process has said of the call whose time runs; see `timed`

    def start(self, job, outcomes, start_child):
        """Fork the process; return its id."""
        outcomes.pipe = self._target
        child = start_child(job, outcomes)
        os.close(self._target)
        return child

    def wait(self, child):
        """Return why the process is to be looked after: it has "ended", or the "limit", or the "walltime" is over."""
        silent = False  # nothing more comes, though it may live
        try:
            while True:
                now = time.monotonic()
                deadlines = [at for at in (self.timed.get("until"), self._until) if at is not None]
                pause = max(0.0, min([ALIVE, *(at - now for at in deadlines)]))
                if silent:
                    time.sleep(pause)
                elif select.select([self._source], [], [], pause)[0]:
                    silent = not self._read()
                    if not silent:
                        continue  # before anything is decided, all is read
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return "ended"
                now = time.monotonic()
                if self._until is not None and now >= self._until:
                    return "walltime"
                if now >= self.timed.get("until", now + 1.0):
                    return "limit"
        finally:
            os.close(self._source)

    def _read(self):
        """Take in what the process says; False when there will be no more."""
        data = os.read(self._source, 1 << 16)
        lines = (self._received + data).split(b"\n")
        self._received = lines.pop()
        if lines:
            self.timed = timed(json.loads(lines[-1].decode("ascii")), self._limit)
        return bool(data)


def timed(said, limit):
    """Return what is known of a call whose time runs, with the end of it; nothing if that is no call's."""
    now = time.monotonic()
    return dict(said, limit=limit, began=now, until=now + limit) if said else {}


def write_overdue(job, call):
    """Write for a call what its process cannot write any more; if it has just done so, that stands."""
    with open(job["outcome"], "rb") as file:
        last = last_end(file)[1]
    if last.get("call") == call["call"] and last.get("kind") != "started":
        return
    facts = overdue(call)
    facts.update(files_left(job))
    OutcomeWriter(job, append=True).write(call["call"], "timelimit", **facts)


def overdue(call):
    """Return what a record says of a call whose time was up."""
    began = call["streams"]
    return {
        "name": call["name"],
        "limit": call["limit"],
        "seconds": time.monotonic() - call["began"],
        "streams": [began, stream_positions()] if began else None,
        "printed": [printed(stream, began[stream - 1]) for stream in (1, 2)] if began else None,
    }


def printed(stream, start):
    """Return the end of what was written to a standard stream, a file, from a position on; None if nobody can say."""
    try:
        own = os.open("/proc/self/fd/%d" % stream, os.O_RDONLY)
        try:
            facts = os.fstat(own)
            at = max(start, facts.st_size - TAIL)
            return os.pread(own, TAIL, at).decode("utf-8", "replace") if stat.S_ISREG(facts.st_mode) else None
        finally:
            os.close(own)
    except OSError:
        return None


# -- processes ---------------------------------------------------------------------------------------------------------


def adopt_orphans():
    """Have what loses its parent become a child of this process, as far as the system can: so nothing gets away."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    except Exception:  # another system, or a Python without ctypes
        pass


def bury_orphans(child):
    """Wait for those that have ended; not for ``child``, whose status somebody else asks for."""
    try:
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == child:
                return
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        pass


def end_descendants(child):
    """Kill the process of the calls, and all that it has started, whatever group or session that is in."""
    until = time.monotonic() + ENDING
    found = descendants()  # before it is dead: where orphans are not adopted, nobody knows afterwards whose they were
    end_group(child)
    while found:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended
        bury_orphans(child)
        if time.monotonic() > until:
            return
        time.sleep(0.005)
        found = descendants()


def descendants():
    """Return all living processes that this one, or one that it has started, has started."""
    parents = {}  # type: dict[int, int]
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(name)] = -1 if fields[0] in (b"Z", b"X") else int(fields[1])
    found = set()  # type: set[int]
    newer = {os.getpid()}
    while newer:
        newer = {pid for pid, parent in parents.items() if parent in newer}
        found |= newer
    return found
