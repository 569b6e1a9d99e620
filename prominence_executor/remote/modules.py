"""The user's own modules in a job: files again, where Python finds them as it did on the user's machine.

It unpacks what its callers have verified (payload/modules.py says how it is packed), and imports nothing of it. It
travels where a job needs it.
"""

import os
import sys
import zlib
from _frozen_importlib_external import EXTENSION_SUFFIXES  # those of importlib.machinery

from .lean import loads
from .wire import MODULES_FOLDER, MODULES_HEAD, MODULES_MAGIC

OURS = ("__main__", "cloudpickle", __name__.partition(".")[0])


def add_modules(file, digest, home):
    """Unpack an archive, unless that has been done here, and have its modules found before all others.

    It lies in a directory of ``home`` that is named by ``digest``. Its folders stand on sys.path in their order.
    """
    folder = os.path.join(home, MODULES_FOLDER + digest[:16])
    magic = file.read(len(MODULES_MAGIC))
    if magic.startswith(b"PK\3\4"):  # a zip of sources: an earlier version has packed it, and a journal kept it
        with open(folder, "wb") as target:
            target.write(magic + file.read())
        sys.path.insert(0, folder)
        return
    if magic != MODULES_MAGIC:
        raise ValueError("the modules begin with %r, this runner reads %r" % (magic, MODULES_MAGIC))
    size = MODULES_HEAD.unpack(file.read(MODULES_HEAD.size))[0]
    members = loads(zlib.decompress(file.read(size)).decode("ascii"))["files"]
    if not os.path.isdir(folder):
        partial = "%s.%s" % (folder, os.urandom(8).hex())  # MPI ranks may share the directory
        unpack(memoryview(zlib.decompress(file.read())), members, partial)
        try:
            os.rename(partial, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    roots = sorted({int(member["name"].partition("/")[0]) for member in members})
    sys.path[0:0] = [os.path.join(folder, str(root)) for root in roots]
    make_way({member["name"].split("/")[1].partition(".")[0] for member in members})
    refused = {module_name(member): member["name"] for member in members if is_foreign(member)}
    if refused:
        sys.meta_path.append(Refused(refused))


def unpack(content, members, folder):
    """Write the members into a new folder, and nothing elsewhere; those for another platform are left out."""
    known = set()
    for member in members:
        parts = member["name"].split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError("%r is no name of a module's file" % member["name"])
        piece, content = content[: member["size"]], content[member["size"] :]
        if is_foreign(member):
            continue
        above = os.path.join(folder, *parts[:-1])
        if above not in known:
            os.makedirs(above, exist_ok=True)
            known.add(above)
        mode = 0o755 if member.get("program") else 0o644
        target = os.open(os.path.join(above, parts[-1]), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while piece:
                piece = piece[os.write(target, piece) :]
        finally:
            os.close(target)


def make_way(names):
    """Forget modules that this program has imported itself, or a call before, where the user's have their names."""
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in names and top not in OURS:
            del sys.modules[name]


def is_foreign(member):
    """Return whether a member is compiled for another Python or platform than this one."""
    return "tag" in member and member["tag"] not in EXTENSION_SUFFIXES


def module_name(member):
    """Return the name by which a compiled module is imported."""
    return member["name"].partition("/")[2][: -len(member["tag"])].replace("/", ".")


class Refused:
    """Finds no module, but says of some why there is none: it is asked when no one else has found them."""

    def __init__(self, names):
        self._names = names

    def find_spec(self, name, path=None, target=None):
        """Raise ImportError for a module that did not fit."""
        if name in self._names:
            raise ImportError(
                "%r is a compiled module of your own, %s, and this image's Python takes %s: build it for the image, "
                "or put it there" % (name, os.path.basename(self._names[name]), EXTENSION_SUFFIXES[0]),
                name=name,
            )
