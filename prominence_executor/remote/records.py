"""The file of outcomes: signed records, one behind the other, and none that is only half there.

It travels as source, too: a Python that is the wrong one says so in a record. wire.py says how a record is framed.
"""

import os

from .lean import Digest, dumps, loads
from .wire import FORMAT, NO_CALL, OUTCOME_MAGIC, PREFIX, mac_of


class OutcomeWriter:
    """Appends signed records to the file of outcomes, and takes back one that could not be finished."""

    collector = None  # of the files that calls write, if they are wanted
    wants_files = False  # whether they are: of an MPI job, one process collects those of all
    rank = 0  # of an MPI job's processes
    places = True  # whether this process puts the files that calls are given in their places

    def __init__(self, job, append=False, name=None):
        self._job = job
        self._name = os.path.abspath(name or job["outcome"])  # a call may change the working directory
        if append:
            self._file = open(self._name, "r+b")
            self._file.seek(last_end(self._file)[0])
            self._file.truncate()
        else:
            self._file = open(self._name, "w+b")
            self._file.write(OUTCOME_MAGIC)
            self._file.flush()

    def write(self, call, kind, dump=None, **facts):
        """Append one record, its body written by ``dump(file)``; on any error the file is as it was before."""
        start = self._file.tell()
        try:
            write_record(self._file, self._job, call, kind, dump, self.collector, facts)
        except BaseException:
            self._truncate(start)
            raise

    def ready(self):
        """Go on: the files that the calls are given are in their places."""

    def begins(self, call, function, position, is_last):
        """Go on: the arguments of a call are there. Who measures its time begins now; see limits.py."""

    def returned(self):
        """Go on: the function has returned, or raised."""

    def ended(self, call):
        """Go on: a call has ended, and its outcome has been written."""

    def _truncate(self, start):
        try:
            self._file.close()  # drops what is still buffered, on a full disk with an error
        except OSError:
            pass
        with open(self._name, "r+b") as file:
            file.truncate(start)
        self._file = open(self._name, "r+b")
        self._file.seek(start)

    def close(self):
        """Close the file."""
        self._file.close()


class HashingWriter:
    """A file to pickle into: counts and hashes what goes through it."""

    def __init__(self, file):
        self._file = file
        self._digest = Digest()
        self.size = 0

    def write(self, data):
        """Write, hash and count; return the number of bytes."""
        data = memoryview(data).cast("B")
        self._file.write(data)
        self._digest.update(data)
        self.size += data.nbytes
        return data.nbytes

    def hexdigest(self):
        """Return the SHA-256 of all that was written."""
        return self._digest.hexdigest()


def write_record(file, job, call, kind, dump, collector, facts):
    """Write a record where the file is: its prefix last, so that one without it is none."""
    start = file.tell()
    file.write(bytes(PREFIX.size))
    body = HashingWriter(file)
    if dump is not None:
        facts.update(dump(body) or {})
    if collector is not None and call != NO_CALL and kind != "started":
        facts["files"] = collector.collect(call)
    header = {"format": FORMAT, "call": call, "kind": kind, "size": body.size, "sha256": body.hexdigest()}
    for name in ("run", "job", "attempt"):
        header[name] = job[name]
    header.update(facts)
    text = dumps(header).encode("utf-8")
    file.write(text)
    file.flush()
    end = file.tell()
    file.seek(start)
    file.write(PREFIX.pack(body.size, len(text), mac_of(bytes.fromhex(job["key"]), text)))
    file.flush()
    file.seek(end)


def last_end(file):
    """Return where the last finished record of a file ends, and its header."""
    size = os.fstat(file.fileno()).st_size
    end, header = len(OUTCOME_MAGIC), {}
    while end + PREFIX.size <= size:
        file.seek(end)
        body, length, _ = PREFIX.unpack(file.read(PREFIX.size))
        if length == 0 or end + PREFIX.size + body + length > size:
            break
        file.seek(body, os.SEEK_CUR)
        header = loads(file.read(length).decode("utf-8"))
        end = file.tell()
    return end, header


def ended_well(job):
    """Return whether the child said that it came to the end, or why it did not."""
    with open(job["outcome"], "rb") as file:
        return last_end(file)[1].get("kind") in ("end", "failure", "initializer")
