"""The pipes between a warm worker and its process of calls, and what goes through them.

In one the worker sends frames: the lengths of a header and of a body, the header in JSON, the body. In another the
process replies: with what kind of a reply it is, the length of its body, and where the standard streams are, the body.
The third holds the number of each chunk of calls that was sent. Whoever takes a number out of it has the chunk: the
process, to run it, or the worker, which wants it back. So none is ever both run and taken back.
"""

import fcntl
import json
import os
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Deque  # noqa: F401  in comments

FRAME = struct.Struct(">IQ")  # length of a header in JSON, length of the body behind it
REPLY = struct.Struct(">cQqq")  # kind, length of the body behind it, lengths of the standard streams or -1
NUMBER = struct.Struct(">I")
RECORD, TIME, END = b"r", b"t", b"e"  # a record; what is said of a call's time; the end of a chunk, with records
SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which fcntl has since Python 3.10
PIPE_SIZE = 1 << 20  # bytes: as many as Linux gives an ordinary user
UNKNOWN = (-1, -1)


def wide_pipe():
    """Return the two ends of a pipe; if it may, it holds so much that what is large goes through in few pieces."""
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[1], SET_PIPE_SIZE, PIPE_SIZE)
    except OSError:
        pass  # this user's pipes hold too much together
    return ends


def pieces(head, body):
    """Return both as they go through a pipe: what is large is not copied."""
    return [memoryview(head + body)] if len(body) < PIPE_SIZE else [memoryview(head), memoryview(body)]


def send_reply(pipe, kind, body, position=None):
    """Write a reply; blocks until all of it is taken. ``position``: of the standard streams, if it is known."""
    for view in pieces(REPLY.pack(kind, len(body), *(position or UNKNOWN)), body):
        while view:
            view = view[os.write(pipe, view) :]


class Replies:
    """Replies, put together from what is read of a pipe."""

    def __init__(self):
        self._received = bytearray()  # what a large one is put together in, without copying it for each piece

    def add(self, data):
        """Take in what was read."""
        self._received += data

    def next(self):
        """Return kind, body and position of the first reply, if it is there as a whole."""
        if len(self._received) < REPLY.size:
            return None
        kind, size, out, err = REPLY.unpack_from(self._received)
        end = REPLY.size + size
        if len(self._received) < end:
            return None
        body = bytes(memoryview(self._received)[REPLY.size : end])
        del self._received[:end]
        return kind, body, None if out < 0 else [out, err]


class Frames:
    """Frames on their way into a pipe: whoever sends one does not wait until it is taken."""

    def __init__(self, pipe):
        self._pipe = pipe
        self._unsent = deque()  # type: Deque[memoryview]
        os.set_blocking(pipe, False)

    def __bool__(self):
        return bool(self._unsent)

    def add(self, header, body):
        """Send a frame, as far as the pipe takes it."""
        text = json.dumps(header).encode("utf-8")
        self._unsent.extend(pieces(FRAME.pack(len(text), len(body)) + text, body))
        self.push()

    def push(self):
        """Send more of it, as far as the pipe takes it; nothing is left when nobody reads any more."""
        while self._unsent:
            try:
                view = self._unsent[0][os.write(self._pipe, self._unsent[0]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._unsent.clear()
                return
            if view:
                self._unsent[0] = view
            else:
                self._unsent.popleft()


def read_frames(pipe):
    """Yield header and body of each frame, until nobody sends any more."""
    source = os.fdopen(pipe, "rb", buffering=1 << 16)
    while True:
        sizes = source.read(FRAME.size)
        if len(sizes) < FRAME.size:
            return
        head, size = FRAME.unpack(sizes)
        header = json.loads(source.read(head).decode("utf-8"))
        yield header, source.read(size)


class Numbers:
    """The pipe of numbers, for both: the process that takes the next one, and the worker that takes back all."""

    def __init__(self):
        self._end, self._start = os.pipe()
        os.set_blocking(self._end, False)
        self._following = 0  # the first one that was not put in yet
        self._taken = -1  # the last one that was taken

    def put(self, count):
        """Put in so many, which are at most 1,000; return the first of them."""
        first, self._following = self._following, self._following + count
        os.write(self._start, b"".join(map(NUMBER.pack, range(first, self._following))))
        return first

    def take(self, number):
        """Return whether a number is the next one, or has been taken back. The numbers asked for rise."""
        while self._taken < number:
            data = self._read(NUMBER.size)
            if not data:
                return False
            self._taken = NUMBER.unpack(data)[0]
        return self._taken == number

    def take_all(self):
        """Return all that nobody has taken."""
        return {number for (number,) in NUMBER.iter_unpack(self._read(NUMBER.size << 10))}

    def _read(self, size):
        try:
            return os.read(self._end, size)
        except BlockingIOError:
            return b""

    def close(self):
        """Close both ends."""
        os.close(self._end)
        os.close(self._start)
