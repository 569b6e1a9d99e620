"""The process of a warm worker that runs the calls: what its supervisor knows of it, and what it does.

The two talk through two pipes, in frames: the lengths of a header and of a body, the header in JSON, the body. The
supervisor sends modules, objects and functions once, and one chunk of calls at a time; what comes back are records.
Nothing here speaks to the service.
"""

import fcntl
import io
import json
import os
import select
import signal
import struct
import sys
import time
from collections import OrderedDict

from .calling import Between, run_call, run_initializer
from .ending import end_process
from .inheritance import Inheritance
from .limits import Telling
from .loading import load_into, loader
from .modules import add_modules
from .plain import Dumper
from .records import write_record
from .reporting import buffer_lines, flush_streams, write_failure
from .script import Script
from .supervisor import end_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

FRAME = struct.Struct(">II")  # length of a header in JSON, length of the body behind it
CLOSED = object()
FUNCTIONS = 50  # whose scripts are kept in memory; one that comes again after so many others is loaded again
SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which fcntl has since Python 3.10
PIPE_SIZE = 1 << 20  # bytes: as many as Linux gives an ordinary user
ALIVE = 0.2  # seconds between two looks whether the process lives


def wide_pipe():
    """Return the two ends of a pipe; if it may, it holds so much that what is large goes through in few pieces."""
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[1], SET_PIPE_SIZE, PIPE_SIZE)
    except OSError:
        pass  # this user's pipes hold too much together
    return ends


def frame(header, body):
    """Return a header and a body as they go through a pipe, in pieces: what is large is not copied."""
    text = json.dumps(header).encode("utf-8")
    head = FRAME.pack(len(text), len(body)) + text
    return [memoryview(head + body)] if len(body) < PIPE_SIZE else [memoryview(head), memoryview(body)]


def send_frame(pipe, header, body):
    """Write a header and a body to a pipe; blocks until all of it is taken."""
    for view in frame(header, body):
        while view:
            view = view[os.write(pipe, view) :]


class Child:
    """The process that runs the calls, seen from the supervisor.

    ``kept``: the content of what came for chunks, by name; it is added to, so that another child can be given it.
    """

    def __init__(self, job, services, kept):
        self.kept = kept
        self.sent = set()  # type: set[str]  # names of functions and objects
        self.modules = None
        requests, self._requests = wide_pipe()
        self._replies, replies = wide_pipe()
        self._received = bytearray()  # what a large answer is put together in, without copying it for each piece
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
                ChunkRunner(job, replies).run(requests)
                code = 0
            finally:
                end_process()
                flush_streams()
                os._exit(code)
        os.close(requests)
        os.close(replies)
        os.set_blocking(self._requests, False)

    def prepare(self, chunk, extras):
        """Send what the chunk needs, unless it is there; return False if there are other modules of the same names."""
        self.kept.update(extras)
        modules = chunk["modules"]
        if modules is not None and modules != self.modules:
            if self.modules is not None:
                return False
            self.modules = modules
            self.send({"kind": "modules", "name": modules}, self.kept[modules])
        needed = [("object", name) for name in chunk["objects"]] + [("function", chunk["function"])]
        for kind, name in needed:
            if name not in self.sent:
                self.sent.add(name)
                self.send({"kind": kind, "name": name}, self.kept[name])
        return True

    def forget(self, names):
        """Have it let go of objects."""
        names = [name for name in names if name in self.sent]
        if names:
            self.sent.difference_update(names)
            self.send({"kind": "forget", "names": names}, b"")

    def send(self, header, body):
        """Send the child a frame; nothing happens if it is dead, which `receive` will say."""
        for view in frame(header, body):
            while view and not self.has_ended():
                if select.select([], [self._requests], [], ALIVE)[1]:
                    try:
                        view = view[os.write(self._requests, view) :]
                    except BlockingIOError:
                        pass
                    except BrokenPipeError:
                        return

    def receive(self, timeout, other=None):
        """Return the next frame, None when none came in time, or CLOSED when there will be no more.

        ``other``: a descriptor; None is returned, too, when it is readable before there is a frame.
        """
        until = time.monotonic() + timeout
        ended = False
        while True:
            reply = self._next_frame()
            if reply is not None:
                return reply
            left = 0.0 if ended else min(ALIVE, max(0.0, until - time.monotonic()))
            both = [self._replies] if other is None else [self._replies, other]
            ready, _, _ = select.select(both, [], [], left)
            if ready and self._replies not in ready:
                return None
            data = os.read(self._replies, 1 << 20) if ready else b""
            self._received += data
            if (ready or ended) and not data:
                return CLOSED
            # What it has left running may hold its end of the pipe for long.
            ended = ended or self.has_ended()
            if not ready and not ended and time.monotonic() >= until:
                return None

    def has_ended(self):
        """Return whether the process is dead; its exit code is still to be asked for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _next_frame(self):
        """Return the first frame of what has been received, if it is there as a whole."""
        if len(self._received) < FRAME.size:
            return None
        head, size = FRAME.unpack_from(self._received)
        start, end = FRAME.size + head, FRAME.size + head + size
        if len(self._received) < end:
            return None
        text, body = bytes(self._received[FRAME.size : start]), bytes(memoryview(self._received)[start:end])
        del self._received[:end]
        return json.loads(text.decode("utf-8")), body

    def exit_code(self):
        """Wait for the dead child; return its exit code, or minus the signal that ended it."""
        end_group(self.pid)
        _, status = os.waitpid(self.pid, 0)
        if self._requests >= 0:
            os.close(self._requests)
        os.close(self._replies)
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


class RecordSender:
    """Writes records that go somewhere else than to the file of outcomes, each by itself: to ``send(bytes)``."""

    wants_files = False  # calls that are to write some have jobs of their own

    def __init__(self, job, chunk, send):
        self._job = dict(job, job=chunk["job"], attempt=chunk["attempt"])
        self._send = send

    def write(self, call, kind, dump=None, **facts):
        """Send a record to the supervisor."""
        file = io.BytesIO()
        write_record(file, self._job, call, kind, dump, None, facts)
        self._send(file.getvalue())

    def begins(self, call, function, position, is_last):
        """Go on: nobody measures the call's time."""

    def returned(self):
        """Go on: the function has returned, or raised."""


class TellingSender(Telling, RecordSender):
    """The same for calls whose time is measured; ``pipe`` leads to the supervisor."""

    pipe = -1

    def tell(self, facts):
        """Tell it of a call's time."""
        send_frame(self.pipe, {"kind": "time", "said": facts}, b"")


class ChunkRunner:
    """What the process does: it runs one chunk after the other."""

    def __init__(self, job, replies):
        self.job = job
        self.replies = replies
        self.home = os.getcwd()  # calls may go elsewhere
        self.pickles = {}  # type: dict[str, bytes]  # of functions, by name
        self.functions = OrderedDict()  # type: OrderedDict[str, tuple[Any, ...]]  # that have been unpickled
        self.objects = {}  # type: dict[str, str]  # digest: path
        self.load = loader({"objects": self.objects})
        self.inheritance = None  # type: Inheritance | None  # what the initializer, once it has run, has left
        self.between = Between()
        self.has_packages = "packages" not in job

    def run(self, requests):
        """Handle the supervisor's frames, one after the other, until it closes the pipe."""
        sys.argv = [""]
        buffer_lines()
        source = os.fdopen(requests, "rb", buffering=1 << 16)
        while True:
            sizes = source.read(FRAME.size)
            if len(sizes) < FRAME.size:
                return
            head, size = FRAME.unpack(sizes)
            header = json.loads(source.read(head).decode("utf-8"))
            self.handle(header, source.read(size))

    def handle(self, header, body):
        """Keep what later chunks need, or run a chunk."""
        if header["kind"] == "modules":
            add_modules(io.BytesIO(body), header["name"], self.home)
        elif header["kind"] == "object":
            self.objects[header["name"]] = self.keep("pxobj-%d-%s" % (os.getpid(), header["name"]), body)
        elif header["kind"] == "forget":
            for name in header["names"]:
                self.drop(self.objects.pop(name))
        elif header["kind"] == "function":
            self.pickles[header["name"]] = body
        else:
            self.run_chunk(header["chunk"], body)

    def keep(self, name, content):
        """Write a file in the worker's directory; return its path."""
        path = os.path.join(self.home, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def drop(self, path):
        """Remove such a file; what is mapped of it stays in memory."""
        try:
            os.unlink(path)
        except OSError:
            pass  # a call has been here

    def run_chunk(self, chunk, body):
        """Run a chunk, and send its records and its end."""
        # Of several calls each record goes at once: a crash is to cost none of those that have ended.
        kept_back = []  # type: list[bytes]
        alone = len(chunk["calls"]) == 1
        send = kept_back.append if alone else lambda data: send_frame(self.replies, {"kind": "record"}, data)
        records = RecordSender(self.job, chunk, send)
        if "limit" in chunk:
            records = TellingSender(self.job, chunk, send)
            records.pipe = self.replies
        try:
            self.run_calls(records, chunk, body)
        except BaseException as error:  # whatever it is, the client must learn of it
            write_failure(records, error)
        flush_streams()
        send_frame(self.replies, {"kind": "end"}, b"".join(kept_back))
        self.between.calls()  # the outcome waits for no thread

    def function(self, name):
        """Return a script, and the function and initializer in it; the script is the present one from now on."""
        if name in self.functions:
            self.functions.move_to_end(name)
            self.functions[name][0].activate()
            return self.functions[name]
        script = Script(self.pickles[name], self.objects)
        if self.inheritance is not None:
            self.inheritance.give(script)
        script.activate()
        loaded = load_into(script, self.load)
        if self.inheritance is not None:
            self.inheritance.complete(script)
        self.functions[name] = (script, *loaded)
        if len(self.functions) > FUNCTIONS:
            self.functions.popitem(last=False)
        return self.functions[name]

    def run_calls(self, records, chunk, body):
        """Run the initializer, if that has not been done, and the calls of a chunk."""
        if not self.has_packages:
            from .environment import add_packages  # behind the modules, which stand before it all the same

            add_packages(self.job["packages"], self.home)
            self.has_packages = True
        script, function, initializer, initargs = self.function(chunk["function"])
        dumper = Dumper(script)
        if initializer is not None and self.inheritance is None:
            inheritance = Inheritance(script)
            if not run_initializer(records, dumper, initializer, initargs):
                return
            inheritance.take()
            self.inheritance = inheritance
        several = len(chunk["calls"]) > 1
        self.between.take()
        at = 0
        for call, size in enumerate(chunk["calls"]):
            if size is not None:  # else it was cancelled
                content = body[at : at + size]
                at += size
                arguments = lambda data=content: self.load(io.BytesIO(data))  # noqa: E731
                if at > size:
                    self.between.calls()
                run_call(records, dumper, call, function, arguments, self.between, several)
