"""The process of a warm worker that runs the calls, as its supervisor knows it: starts it, tells it, hears it, ends it.

Modules, objects and functions are sent once; then chunks of calls, which it runs one after the other. What it does with
them is in worker_process.py. Nothing here speaks to the service.
"""

import os
import select
import signal
import sys
import time

from .ending import end_process
from .reporting import flush_streams
from .supervisor import end_group
from .worker_pipes import Frames, Numbers, Replies, wide_pipe
from .worker_process import ChunkRunner

CLOSED = object()
ALIVE = 0.2  # seconds between two looks whether the process lives


class Child:
    """The process that runs the calls.

    ``kept``: the content of what came for chunks, by name; it is added to, so that another child can be given it.
    """

    def __init__(self, job, services, kept):
        self.kept = kept
        self.sent = set()  # type: set[str]  # names of functions and objects
        self.modules = None
        self.proven = False  # it has run a chunk
        requests, self._requests = wide_pipe()
        self._replies, replies = wide_pipe()
        self._numbers = Numbers()  # of chunks
        self._received = Replies()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                os.close(self._requests)
                os.close(self._replies)
                for service in services:
                    service.close()
                os.environ.update(job.get("env") or {})  # what the supervisor needs as the service has set it
                ChunkRunner(job, replies, self._numbers).run(requests)
                code = 0
            finally:
                end_process()
                flush_streams()
                os._exit(code)
        os.close(requests)
        os.close(replies)
        self._frames = Frames(self._requests)

    def has(self, chunk):
        """Return whether all is there that the chunk needs."""
        return (
            chunk["modules"] in (None, self.modules)
            and chunk["function"] in self.sent
            and self.sent.issuperset(chunk["objects"])
        )

    def prepare(self, chunk, extras):
        """Send what the chunk needs, unless it is there; return False if there are other modules of the same names."""
        self.kept.update(extras)
        modules = chunk["modules"]
        if modules is not None and modules != self.modules:
            if self.modules is not None:
                return False
            self.modules = modules
            self._frames.add({"kind": "modules", "name": modules}, self.kept[modules])
        needed = [("object", name) for name in chunk["objects"]] + [("function", chunk["function"])]
        for kind, name in needed:
            if name not in self.sent:
                self.sent.add(name)
                self._frames.add({"kind": kind, "name": name}, self.kept[name])
        return True

    def forget(self, names):
        """Have it let go of objects."""
        names = [name for name in names if name in self.sent]
        if names:
            self.sent.difference_update(names)
            self._frames.add({"kind": "forget", "names": names}, b"")

    def run(self, chunks, contents):
        """Have it run chunks, with the arguments of their calls, after those that it has; return the first's number.

        If it is dead, nothing happens, which `receive` will say.
        """
        first = self._numbers.put(len(chunks))
        header = {"kind": "chunks", "first": first, "chunks": chunks, "sizes": [len(content) for content in contents]}
        self._frames.add(header, b"".join(contents))
        return first

    def take_back(self):
        """Take back the chunks that it has not begun; return their numbers."""
        return self._numbers.take_all()

    def receive(self, timeout, other=None):
        """Return the next reply, None when none came in time, or CLOSED when there will be no more.

        ``other``: a descriptor; None is returned, too, when it is readable before there is a reply.
        """
        until = time.monotonic() + timeout
        reading = [self._replies] if other is None else [self._replies, other]
        ended = False
        while True:
            reply = self.received()
            if reply is not None:
                return reply
            left = 0.0 if ended else min(ALIVE, max(0.0, until - time.monotonic()))
            ready, room, _ = select.select(reading, [self._requests] if self._frames else [], [], left)
            if room:
                self._frames.push()
            if self._replies in ready:
                data = os.read(self._replies, 1 << 20)
                if not data:
                    return CLOSED
                self._received.add(data)
            elif ended:
                return CLOSED
            elif ready:
                return None
            else:
                ended = self.has_ended()  # what it has left running may hold its end of the pipe for long
                if not ended and time.monotonic() >= until:
                    return None

    def received(self):
        """Return the next reply if it has been read already."""
        return self._received.next()

    def has_ended(self):
        """Return whether the process is dead; its exit code is still to be asked for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def exit_code(self):
        """Wait for the dead child; return its exit code, or minus the signal that ended it."""
        end_group(self.pid)
        _, status = os.waitpid(self.pid, 0)
        if self._requests >= 0:
            os.close(self._requests)
        os.close(self._replies)
        self._numbers.close()
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def finish(self, seconds):
        """Let it end by itself, for so many seconds; then kill what is left."""
        os.close(self._requests)
        self._requests = -1
        until = time.monotonic() + seconds
        pause = 0.001
        while not self.has_ended() and time.monotonic() < until:
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        self.end()

    def end(self):
        """Kill it, with all that it has started."""
        end_group(self.pid)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass
        self.exit_code()
