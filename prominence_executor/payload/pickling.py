"""Values to bytes for the remote side: pickles, what they need there, and references to objects stored apart.

The only module that pickles calls; how what the script defines travels, remote/dumping.py says. It knows nothing of
jobs, threads or HTTP, and verifies nothing.

An object that is stored apart is one file: a line that says where its parts lie, a pickle of protocol 5, and the
pickle's large buffers (of numpy, pandas, Arrow) behind it, so that they are neither copied to be hashed nor, on the
remote side, to be read: remote/loading.py maps them into memory.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
import types
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ..formats import newer_file
from ..public import public
from ..remote.definitions import epilogue
from ..remote.dumping import Marker, ScriptPickler
from ..remote.wire import ALIGNMENT, LARGE_BUFFER, OBJECT_MAGIC
from .annotations import left_out, names_of
from .blob import Blob, Piece
from .loading import loads_out_of_band
from .origin import ORIGIN
from .sources import packed_sources

_MARKER = Marker(ORIGIN)


@dataclass(eq=False)
class ObjectRef:
    """Stands in a pickle for an object that is stored apart; `ProminenceExecutor.scatter` gives one to the user.

    It may stand anywhere inside the arguments of a call, which is given the object itself.
    """

    sha256: str  # of the object's file
    size: int  # bytes of it
    shared: bool  # by all calls of a job; otherwise each has a copy of its own, as of any argument
    modules: frozenset[str] = field(default=frozenset(), repr=False)
    code: frozenset[types.CodeType] = field(default=frozenset(), repr=False)
    content: Blob | None = field(default=None, repr=False)  # until it is surely at the service

    @property
    def pid(self) -> str:
        """The persistent id in pickles, by which remote/loading.py finds the object."""
        return f"{'shared' if self.shared else 'private'} {self.sha256}"

    def __reduce__(self) -> Any:
        raise TypeError("a scattered object belongs to its executor: only the arguments of its calls may contain it")


def _refuse(pickler: ScriptPickler, future: Any) -> Any:
    """Refuse a future, which could be pickled no more than its lock, by a sentence."""
    raise TypeError(
        "a future cannot be pickled: it belongs to this process; the arguments of a call may contain it, and the call "
        "is given its result"
    )


class Epilogue:
    """Stands behind all else in a function's pickle: the text of its code, and what its annotations name."""


@dataclass
class Pickled:
    """A pickle, the modules it refers to by name, the code that it carries by value, and the objects it refers to."""

    blob: Blob
    modules: frozenset[str]
    code: frozenset[types.CodeType]
    objects: frozenset[ObjectRef] = frozenset()
    futures: tuple[Future[Any], ...] = ()  # those in it, by the numbers in their persistent ids


class _Pickler(ScriptPickler):
    """Notes which modules a pickle refers to, the code that travels by value, and names that are no code's alone."""

    special = {**ScriptPickler.special, Epilogue: lambda self, _: self.epilogue(), Future: _refuse}

    annotations: frozenset[str] = frozenset()  # names in annotations that have been left strings

    def reduce_function(self, func: types.FunctionType) -> Any:
        """Add what a function of the script names by ``__main__.name``, and note its annotations."""
        reduced = super().reduce_function(func)
        if func.__module__ == "__main__" and type(reduced) is tuple:
            if func.__annotations__:
                self.annotations = self.annotations.union(names_of(func.__annotations__))
            code = func.__code__
            if "__main__" in code.co_names and func.__globals__ is self.variables:
                words = [*code.co_names, *(const for const in code.co_consts if isinstance(const, str))]
                found = {name: self.variables[name] for name in words if name in self.variables and name[:2] != "__"}
                reduced[2][1]["__globals__"].update(found)
        return reduced

    def reduce_class(self, kind: type) -> Any:
        """Note the annotations of a class of the script."""
        if kind.__module__ == "__main__" and "__annotations__" in kind.__dict__:
            self.annotations = self.annotations.union(names_of(kind.__annotations__))
        return super().reduce_class(kind)

    def epilogue(self) -> Any:
        """Reduce what stands behind all else."""
        annotated: dict[str, Any] = {}
        if self.annotations:
            annotated = left_out(self.annotations, self.variables, self.memo.copy(), self._apart, self._is_importable)
            self.modules.update(part[0] for part in annotated.values() if isinstance(part, tuple))
        return epilogue, (_MARKER, packed_sources(self.code), annotated)

    def _apart(self, value: Any) -> tuple[bytes, Iterable[str]]:
        file = io.BytesIO()
        pickler = _Pickler(file, _MARKER)
        pickler.dump(value)
        self.modules |= pickler.modules
        self.code |= pickler.code
        return file.getvalue(), pickler.annotations

    def _is_importable(self, value: Any) -> bool:
        return value.__module__ != "__main__" and self.reducer_override(value) is NotImplemented


class _ReferringPickler(_Pickler):
    """Writes references; a class of its own, since it is asked about every object of a pickle."""

    def __init__(self, file: Blob, references: Mapping[int, ObjectRef], takes_futures: bool) -> None:
        super().__init__(file, _MARKER)
        self._references = references
        self._takes_futures = takes_futures
        self.objects: set[ObjectRef] = set()
        self.futures: dict[Future[Any], int] = {}

    def persistent_id(self, obj: Any) -> str | None:
        reference = obj if type(obj) is ObjectRef else self._references.get(id(obj))
        if reference is None:
            if self._takes_futures and isinstance(obj, Future):
                return f"future {self.futures.setdefault(obj, len(self.futures))}"
            return None
        self.objects.add(reference)
        return reference.pid


def dumps(value: Any, references: Mapping[int, ObjectRef] | None = None, *, takes_futures: bool = False) -> Pickled:
    """Pickle a value for the remote side.

    Args:
        references: what stands for some of the objects in it, by their ``id``; when given, be it empty, the value may
            contain references itself, too.
        takes_futures: it may contain futures; ``references`` must be given then.

    Raises:
        whatever the value's own ``__reduce__`` raises; ``pickle.PicklingError`` or ``TypeError`` for what cannot be
        pickled (a lock, an open file, a socket).
    """
    blob = Blob()
    if references is None:
        pickler = _Pickler(blob, _MARKER)
        pickler.dump(value)
        return Pickled(blob, frozenset(pickler.modules), frozenset(pickler.code))
    referring = _ReferringPickler(blob, references, takes_futures)
    referring.dump(value)
    objects = frozenset(referring.objects)
    modules = frozenset(referring.modules).union(*(item.modules for item in objects))
    code = frozenset(referring.code).union(*(item.code for item in objects))
    return Pickled(blob, modules, code, objects, tuple(referring.futures))


@dataclass
class OutOfBandPickle:
    """A value as a file of its own: the pieces are the value's own memory, where that is possible."""

    pieces: list[Piece]
    modules: frozenset[str]
    code: frozenset[types.CodeType]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(len(piece) for piece in self.pieces)


def dumps_out_of_band(value: Any) -> OutOfBandPickle:
    """Pickle a value as a file of its own; raises what `dumps` raises. The value must not change while it is used."""
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes >= LARGE_BUFFER:
            buffers.append(view)
        return view.nbytes < LARGE_BUFFER

    blob = Blob()
    pickler = _Pickler(blob, _MARKER, stays_inside)
    pickler.dump(value)
    pieces: list[Piece] = []
    at = blob.size
    places = []
    for view in buffers:
        gap = -at % ALIGNMENT
        pieces += [bytes(gap), view]
        places.append([at + gap, view.nbytes, view.readonly])
        at += gap + view.nbytes
    head = object_header({"pickle": blob.size, "buffers": places})
    return OutOfBandPickle([head, *blob, *pieces], frozenset(pickler.modules), frozenset(pickler.code))


def object_header(parts: Mapping[str, Any]) -> bytes:
    """Return the lines before a pickle and its buffers, which make a file of them."""
    line = json.dumps({"pickle": parts["pickle"], "buffers": parts["buffers"]}).encode()
    return OBJECT_MAGIC + line + b" " * (-(len(OBJECT_MAGIC) + len(line) + 1) % ALIGNMENT) + b"\n"


@public
def load(path: str | os.PathLike[str]) -> Any:
    """Read a result that `ProminenceFuture.save` wrote. Large arrays in it are read from the file when they are used.

    Writing to such an array changes this program's copy, not the file. As with ``pickle.load``: only for files that
    you have made yourself.

    Raises:
        ValueError: it did not write the file, or a newer version did.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        magic = file.readline(len(OBJECT_MAGIC))
        if magic != OBJECT_MAGIC:
            sentence = newer_file(os.fspath(path), magic, OBJECT_MAGIC)
            raise ValueError(sentence or f"{os.fspath(path)} was not written by ProminenceFuture.save")
        parts = json.loads(file.readline())
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return loads_out_of_band(memory[file.tell() :], parts)
