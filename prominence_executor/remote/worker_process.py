"""What the process of a warm worker does that runs the calls: one chunk of them after the other.

It is told by its supervisor, which worker_child.py starts it for, and tells it what comes of each call. Nothing here
speaks to the service.
"""

import io
import json
import os
import sys
from collections import OrderedDict

from .calling import Between, run_call, run_initializer
from .inheritance import Inheritance
from .limits import Telling
from .loading import load_into, loader
from .modules import add_modules
from .plain import Dumper
from .records import write_record
from .reporting import buffer_lines, flush_streams, stream_positions, write_failure
from .script import Script
from .worker_pipes import END, RECORD, TIME, read_frames, send_reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

FUNCTIONS = 50  # whose scripts are kept in memory; one that comes again after so many others is loaded again


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
        send_reply(self.pipe, TIME, json.dumps(facts).encode("utf-8"))


class ChunkRunner:
    """What the process does: it runs one chunk after the other."""

    def __init__(self, job, replies, numbers):
        self.job = job
        self.replies = replies
        self.numbers = numbers  # of chunks
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
        for frame in read_frames(requests):
            self.handle(*frame)
            del frame  # it may be large, and the next one may come late

    def handle(self, header, body):
        """Keep what later chunks need, or run chunks."""
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
            at = 0
            for number, chunk in enumerate(header["chunks"], header["first"]):
                size = header["sizes"][number - header["first"]]
                if self.numbers.take(number):
                    self.run_chunk(chunk, body[at : at + size])
                at += size

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
        send = kept_back.append if alone else lambda data: send_reply(self.replies, RECORD, data)
        records = RecordSender(self.job, chunk, send)
        if "limit" in chunk:
            records = TellingSender(self.job, chunk, send)
            records.pipe = self.replies
        try:
            self.run_calls(records, chunk, body)
        except BaseException as error:  # whatever it is, the client must learn of it
            write_failure(records, error)
        flush_streams()
        send_reply(self.replies, END, b"".join(kept_back), stream_positions())
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
        is_new = chunk["function"] not in self.functions
        script, function, initializer, initargs = self.function(chunk["function"])
        dumper = Dumper(script)
        if initializer is not None and self.inheritance is None:
            inheritance = Inheritance(script)
            if not run_initializer(records, dumper, initializer, initargs):
                return
            inheritance.take()
            self.inheritance = inheritance
            is_new = True
        if is_new:  # else all is as it was after the last chunk
            self.between.take()
        several = len(chunk["calls"]) > 1
        at = 0
        for call, size in enumerate(chunk["calls"]):
            if size is not None:  # else it was cancelled
                content = body[at : at + size]
                at += size
                arguments = lambda data=content: self.load(io.BytesIO(data))  # noqa: E731
                if at > size:
                    self.between.calls()
                run_call(records, dumper, call, function, arguments, self.between, several)
