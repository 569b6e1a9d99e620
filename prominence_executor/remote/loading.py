"""Unpickles what a job was given: functions, arguments, and the objects that came as files of their own.

It verifies objects before it loads them; of other files its callers have made sure. A name that a pickle refers to is
never looked up in the modules of this program: what the user's script has, and travels by its name alone, is not here.
"""

import os
import pickle
import sys

from .inputs import check_digest, open_part
from .lean import loads
from .wire import CALLS_MAGIC, OBJECT_MAGIC

OWN_PACKAGE = __name__.rpartition(".")[0]
OWN_NAMES = frozenset(vars(sys.modules["__main__"]))  # those that it has before anything of the user's has run


class Unpickler(pickle.Unpickler):
    """Resolves names to what is the user's, and persistent ids by ``objects``."""

    def __init__(self, file, objects=None, **options):
        super().__init__(file, **options)
        self._objects = objects

    def find_class(self, module, name):
        """Look a name up, but none of this program's own, which are not the script's."""
        if module == "__main__":
            try:
                if name.partition(".")[0] not in OWN_NAMES:
                    return super().find_class(module, name)
            except AttributeError:
                pass
            raise AttributeError(
                "the script's own %r was pickled as the name %r of __main__, and there is no script in a job: put it "
                "into a module beside the script, which travels with the call" % (name, name)
            )
        if module == OWN_PACKAGE or module.startswith(OWN_PACKAGE + "."):
            raise AttributeError("%r of %s belongs to the program that runs the call, not to the call" % (name, module))
        return super().find_class(module, name)

    def persistent_load(self, pid):
        """Return the object for which this stands in the pickle."""
        if self._objects is None:
            raise pickle.UnpicklingError("an object cannot refer to another one: %r" % (pid,))
        return self._objects(pid)


def loader(job):
    """Return a function that unpickles a file, whose pickle may refer to objects that came as files of their own.

    It takes the file and where to begin. A shared object is loaded once; each pickle has a copy of its own of a private
    one, made when it is written to.
    """
    home = os.getcwd()
    verified = set()  # type: set[str]
    shared = {}  # type: dict[str, object]

    def load_object(digest):
        path = os.path.join(home, job["objects"][digest])
        if digest not in verified:
            check_digest(path, digest)
            verified.add(digest)
        return read_object(path)

    def load(file, start=None):
        private = {}  # type: dict[str, object]

        def find(pid):
            kind, _, digest = pid.partition(" ")
            loaded = shared if kind == "shared" else private
            if digest not in loaded:
                loaded[digest] = load_object(digest)
            return loaded[digest]

        if start is not None:
            file.seek(start)
        return Unpickler(file, find).load()

    return load


def read_object(path):
    """Unpickle an object's file; its large buffers stay in the file, mapped into memory."""
    import mmap

    with open(path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        magic = file.readline(len(OBJECT_MAGIC))
        if magic != OBJECT_MAGIC:
            raise ValueError("%s begins with %r, this runner reads %r" % (path, magic, OBJECT_MAGIC))
        parts = loads(file.readline().decode("utf-8"))
        start = file.tell()
        buffers = []
        for at, size, readonly in parts["buffers"]:
            view = memory[start + at : start + at + size]
            buffers.append(view.toreadonly() if readonly else view)
        return Unpickler(file, buffers=buffers).load()


def read_calls(job, file, load):
    """Return what stands before the calls, and the offset of each call's arguments in the file of calls."""
    magic = file.readline(len(CALLS_MAGIC))
    if magic != CALLS_MAGIC:
        raise ValueError("the file of calls begins with %r, this runner reads %r" % (magic, CALLS_MAGIC))
    index = loads(file.readline().decode("utf-8"))
    start = file.tell()
    if "function" in job:
        with open_part(job, job["function"]) as part:
            head = load(part)
    else:
        head = load(file)
    offsets = []
    start += index["function"]
    for length in index["calls"]:
        offsets.append(None if length is None else start)
        start += length or 0
    return head, offsets
