"""The inputs of a job: opened where they lie, and refused unless they are what was sent.

It travels as source, too: of an array, even who the job is lies in the bundle. It unpickles and imports nothing.
"""

import io
import os

from .lean import Digest, loads
from .wire import BUNDLE_MAGIC

_members = {}  # type: dict[str, dict[str, tuple[int, int]]]  # of bundles, by their paths: offset and bytes by name


def open_part(job, name):
    """Open an input: a file of the job, or a member of its bundle."""
    if not is_member(job, name):
        return open(name, "rb")
    path = job["bundle"]["name"]
    bundle = open(path, "rb", buffering=0)
    if path not in _members:
        _members[path] = members_of(bundle)
    return io.BufferedReader(Member(bundle, *_members[path][name]))


def members_of(bundle):
    """Return where the members of a bundle lie; payload/bundle.py says how it is made."""
    with open(bundle.name, "rb") as file:
        magic = file.readline(len(BUNDLE_MAGIC))
        if magic != BUNDLE_MAGIC:
            raise ValueError("%s begins with %r, this runner reads %r" % (bundle.name, magic, BUNDLE_MAGIC))
        sizes = loads(file.readline().decode("utf-8"))["members"]
        at = file.tell()
    found = {}
    for name, size in sizes.items():
        found[name] = (at, size)
        at += size
    return found


class Member(io.RawIOBase):
    """A part of a file that reads as a file."""

    def __init__(self, file, start, size):
        self._file = file
        self._start = start
        self._size = size
        self._at = 0

    def readable(self):
        """Say yes."""
        return True

    def seekable(self):
        """Say yes."""
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        """Go to an offset within the part; return it."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer):
        """Read what fits into a buffer; return how much that is."""
        self._file.seek(self._start + self._at)
        size = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += size
        return size

    def close(self):
        """Close the file, too."""
        self._file.close()
        super().close()


def is_member(job, name):
    """Return whether an input lies in the job's bundle, whose members are in folders; files of a job are not."""
    return "bundle" in job and "/" in name


def check_input(job, entry):
    """Refuse a file that did not arrive as it was sent: nothing unverified is unpickled or imported."""
    if is_member(job, entry["name"]):
        return  # start.py has made sure of it as a whole
    check_digest(entry["name"], entry["sha256"])


def check_digest(path, sha256):
    """Raise ValueError unless the file has this SHA-256."""
    digest = Digest()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError("%s did not arrive as it was sent (its SHA-256 differs)" % os.path.basename(path))
