"""Values to bytes for the remote side: pickles, what they need there, and references to objects stored apart.

The only module that pickles with cloudpickle. It knows nothing of jobs, threads or HTTP, and verifies nothing.

An object that is stored apart is one file: a line that says where its parts lie, a pickle of protocol 5, and the
pickle's large buffers (of numpy, pandas, Arrow) behind it, so that they are neither copied to be hashed nor, on the
remote side, to be read: remote/loading.py maps them into memory.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from ..formats import newer_file
from ..public import public
from ..remote.wire import ALIGNMENT, LARGE_BUFFER, OBJECT_MAGIC
from .blob import Blob, Piece


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


@dataclass
class Pickled:
    """A pickle, the modules it refers to by name, the code that it carries by value, and the objects it refers to."""

    blob: Blob
    modules: frozenset[str]
    code: frozenset[types.CodeType]
    objects: frozenset[ObjectRef] = frozenset()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no annotations
    """Notes which modules a pickle refers to, and the code that travels by value."""

    def __init__(self, file: Blob, **options: Any) -> None:
        super().__init__(file, protocol=5, **options)
        self.modules: set[str] = set()
        self.code: set[types.CodeType] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
        elif isinstance(obj, (type, types.FunctionType, types.BuiltinFunctionType)):
            module = getattr(obj, "__module__", None)
            if isinstance(module, str):
                self.modules.add(module)
            if module == "__main__" and isinstance(obj, types.FunctionType):
                self.code.add(obj.__code__)
        return super().reducer_override(obj)


class _ReferringPickler(_Pickler):
    """Writes references; a class of its own, since it is asked about every object of a pickle."""

    def __init__(self, file: Blob, references: Mapping[int, ObjectRef]) -> None:
        super().__init__(file)
        self._references = references
        self.objects: set[ObjectRef] = set()

    def persistent_id(self, obj: Any) -> str | None:
        reference = obj if type(obj) is ObjectRef else self._references.get(id(obj))
        if reference is None:
            return None
        self.objects.add(reference)
        return reference.pid


def dumps(value: Any, references: Mapping[int, ObjectRef] | None = None) -> Pickled:
    """Pickle a value for the remote side.

    Args:
        references: what stands for some of the objects in it, by their ``id``; when given, be it empty, the value may
            contain references itself, too.

    Raises:
        whatever the value's own ``__reduce__`` raises; ``pickle.PicklingError`` or ``TypeError`` for what cannot be
        pickled (a lock, an open file, a socket).
    """
    blob = Blob()
    if references is None:
        pickler = _Pickler(blob)
        pickler.dump(value)
        return Pickled(blob, frozenset(pickler.modules), frozenset(pickler.code))
    referring = _ReferringPickler(blob, references)
    referring.dump(value)
    objects = frozenset(referring.objects)
    modules = frozenset(referring.modules).union(*(item.modules for item in objects))
    code = frozenset(referring.code).union(*(item.code for item in objects))
    return Pickled(blob, modules, code, objects)


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
    pickler = _Pickler(blob, buffer_callback=stays_inside)
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


def loads_out_of_band(memory: memoryview, parts: Mapping[str, Any]) -> Any:
    """Unpickle a pickle with its buffers behind it, which stay where they are: the value keeps the memory.

    ``parts`` says how long the pickle is, and where each buffer lies: [offset, bytes, readonly].
    """
    views = [memory[at : at + size] for at, size, _ in parts["buffers"]]
    fixed = [view.toreadonly() if part[2] else view for view, part in zip(views, parts["buffers"], strict=True)]
    return pickle.loads(memory[: parts["pickle"]], buffers=fixed)  # noqa: S301  the caller has verified it


@public
def load(path: str | os.PathLike[str]) -> Any:
    """Read a result that `ProminenceFuture.save` wrote. Large arrays in it are read from the file when they are used.

    Writing to such an array changes this program's copy, not the file. As with ``pickle.load``: only for files that
    you have made yourself.

    Raises:
        ValueError: the file is none of those, or of a newer version.
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
