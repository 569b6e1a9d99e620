"""The first program of every job, ``pxrun.py``: finds what it consists of in one compressed file, and runs the runner.

It travels as source inside the job's description, where nobody else can write. The rest is ``pxrun.bin`` beside it, or,
for the jobs of an array, the head of their bundle, of which it first makes sure: that comes from the object store.

It imports what Python has built in, and little else: an image often has no byte code of the standard library, and would
compile that for each job. In the syntax of Python 3.8, and for any Python: the runner says if it is the wrong one.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

BUNDLE = None  # type: tuple[str, str, int, int] | None  # its name, its SHA-256, and where in it the rest of this lies
PROGRAM = os.path.abspath(__file__)  # a call may go to another directory, and spawn processes
LARGE = 1 << 20  # bytes from which on hashlib is faster by what it costs


class Shipped:
    """Imports the runner and cloudpickle from memory, before all others of these names.

    Args:
        program: the path of this file, for who wants to do the same in another process.
        content: see payload/archive.py, which makes it.
    """

    def __init__(self, program, content):
        import zlib  # not above: it may be a file, and the job's directory is the first place on the path there

        found = marshal.loads(zlib.decompress(content))
        self.program = program
        self._modules = found["modules"]
        self._fits = found["magic"] == MAGIC_NUMBER

    def find_spec(self, name, path=None, target=None):
        """Say whether a module is here."""
        if name not in self._modules:
            return None
        file = self._modules[name][0]
        spec = ModuleSpec(name, self, origin=file, is_package=file.endswith("__init__.py"))  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec):
        """Leave it to Python."""

    def exec_module(self, module):
        """Run a module's code."""
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, name):
        """Return a module's code: what has been compiled, if this Python can read it."""
        file, code, source = self._modules[name]
        if code is not None and self._fits:
            return marshal.loads(code)
        if source is None:
            raise ImportError("%s was compiled for another Python than this one, %s" % (name, sys.version), name=name)
        return compile(source, file, "exec", dont_inherit=True, optimize=2)


def read(folder):
    """Return the compressed file; of a bundle no more than that, and only if it arrived as it was sent."""
    if BUNDLE is None:
        with open(os.path.join(folder, "pxrun.bin"), "rb") as file:
            return file.read()
    name, wanted, start, size = BUNDLE
    with open(os.path.join(folder, name), "rb") as file:
        digest = sha256(os.fstat(file.fileno()).st_size > LARGE)()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
        if digest.hexdigest() != wanted:
            sys.exit("prominence-executor: " + name + " did not arrive as it was sent (its SHA-256 differs)")
        file.seek(start)
        return file.read(size)


def sha256(large):
    """Return what makes a SHA-256, without importing hashlib for it if that is possible."""
    if not large:
        try:
            from _sha2 import sha256 as found  # type: ignore[import-not-found,unused-ignore]  # from Python 3.12 on

            return found
        except ImportError:
            try:
                from _sha256 import sha256 as found  # type: ignore[import-not-found,no-redef,unused-ignore]

                return found
            except ImportError:
                pass
    import hashlib

    return hashlib.sha256


if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the job's directory: nothing that lies there is to be imported in place of the standard library's
sys.meta_path.insert(0, Shipped(PROGRAM, read(os.path.dirname(PROGRAM))))
if __name__ == "__main__":
    __import__("pxremote.runner").runner.main()
