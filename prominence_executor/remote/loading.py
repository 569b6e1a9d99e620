"""Unpickles what a job was given: functions, arguments, and the objects that came as files of their own.

It verifies objects before it loads them; of other files its callers have made sure. What the user's script defines goes
into the present `Script`, and a name of ``__main__`` is one of that script; of this program nothing can be named but
what definitions.py offers.
"""

import io
import os

from . import definitions
from .inputs import check_digest, open_part
from .lean import Unpickler as PlainUnpickler
from .lean import UnpicklingError, loads
from .script import Script, present
from .wire import CALLS_MAGIC, OBJECT_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

OWN_PACKAGE = __name__.rpartition(".")[0]


class Unpickler(PlainUnpickler):
    """Resolves names to what is the user's, and persistent ids by ``objects``."""

    def __init__(self, file, objects=None, **options):
        super().__init__(file, **options)
        self._objects = objects
        self._script = present()

    def find_class(self, module, name):
        """Look a name up, but none of this program's own, which are not the script's."""
        found = definitions.lookup(self._script, module, name)
        if found is not None:
            return found
        if module == "__main__":
            self._script.used = True
            try:
                return super().find_class(module, name)
            except AttributeError:
                raise AttributeError(
                    "the script's own %r was pickled as the name %r of __main__, which did not travel with the call: "
                    "put it into a module beside the script, which does" % (name, name)
                ) from None
        if module == OWN_PACKAGE or module.startswith(OWN_PACKAGE + "."):
            raise AttributeError("%r of %s belongs to the program that runs the call, not to the call" % (name, module))
        return super().find_class(module, name)

    def persistent_load(self, pid):
        """Return the object for which this stands in the pickle."""
        if self._objects is None:
            raise UnpicklingError("an object cannot refer to another one: %r" % (pid,))
        return self._objects(pid)


def loader(job):
    """Return a function that unpickles a file, whose pickle may refer to objects that came as files of their own.

    It takes the file and where to begin. A shared object is loaded once (for each script, if it has to do with what
    that defines); each pickle has a copy of its own of a private one, made when it is written to.
    """
    home = os.getcwd()
    results = job.get("results", {})  # have been verified when they were fetched
    verified = set(results)  # type: set[str]
    shared = {}  # type: dict[str, object]

    def load_object(digest):
        path = os.path.join(home, results[digest]["name"] if digest in results else job["objects"][digest])
        if digest not in verified:
            check_digest(path, digest)
            verified.add(digest)
        return read_object(path)

    def load_shared(digest):
        script = present()
        if digest in shared:
            return shared[digest]
        if digest not in script.shared:
            before, script.used = script.used, False
            loaded = load_object(digest)
            (script.shared if script.used else shared)[digest] = loaded
            script.used = before or script.used
            return loaded
        return script.shared[digest]

    def load(file, start=None):
        if start is not None:
            file.seek(start)
        return Unpickler(file, Finder(load_shared, load_object).find).load()

    return load


class Finder:
    """What persistent ids stand for, of one pickle of a function or of arguments.

    A shared object is given by ``load_shared(digest)``, a private one by ``load_object(digest)``.
    """

    def __init__(self, load_shared, load_object):
        self.load_shared = load_shared
        self.load_object = load_object
        self.private = {}  # type: dict[str, object]  # by digest
        self.values = {}  # type: dict[int, Any]  # what takes the place of futures, by their numbers
        self.loaded = {}  # type: dict[int, object]

    def find(self, pid):
        """Return what this stands for."""
        if type(pid) is tuple:  # the arguments of a call, and the results of others; see payload/dependencies.py
            content, self.values = pid
            return Unpickler(io.BytesIO(content), self.find).load()
        kind, _, name = pid.partition(" ")
        if kind == "future":
            return self.result(int(name))
        if kind == "shared":
            return self.load_shared(name)
        if name not in self.private:
            self.private[name] = self.load_object(name)
        return self.private[name]

    def result(self, number):
        """Return the result that takes the place of a future."""
        if number not in self.loaded:
            value = self.values[number]
            is_apart = type(value) is str
            self.loaded[number] = self.find(value) if is_apart else Unpickler(io.BytesIO(value), self.find).load()
        return self.loaded[number]


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


def read_calls(job, file):
    """Return the pickled function, and the offset of each call's arguments in the file of calls."""
    magic = file.readline(len(CALLS_MAGIC))
    if magic != CALLS_MAGIC:
        raise ValueError("the file of calls begins with %r, this runner reads %r" % (magic, CALLS_MAGIC))
    index = loads(file.readline().decode("utf-8"))
    start = file.tell()
    if "function" in job:
        with open_part(job, job["function"]) as part:
            function = part.read()
    else:
        function = file.read(index["function"])
    offsets = []
    start += index["function"]
    for length in index["calls"]:
        offsets.append(None if length is None else start)
        start += length or 0
    return function, offsets


def load_function(job, content, load):
    """Make a script for a pickled function; return function, initializer, and that one's arguments.

    The script is ``__main__`` from now on.
    """
    objects = {digest: os.path.abspath(name) for digest, name in job.get("objects", {}).items()}
    script = Script(content, objects)
    script.activate()
    return load_into(script, load)


def load_into(script, load):
    """Unpickle a script's function into it, which is the present one; return what `load_function` returns."""
    head = load(io.BytesIO(script.pickle))[:3]  # behind these: the script's text
    script.loaded()
    return head


def load_spawned(module, path, objects):
    """Have a process that a call has spawned define what the call's script does, in a module that it imports for it."""
    Script(module=module).activate()
    with open(path, "rb") as file:
        load = loader({"objects": objects})
        load(file)  # the function's pickle
        load(file)
