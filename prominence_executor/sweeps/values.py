"""Values as a store keeps them: JSON where that says all, arrays as .npy without pickle, pickle for the rest.

`encode` and `decode` are exact for what they take: a tuple stays a tuple, np.float32(0.1) stays one. Files are named by
the digest of their content, and verified by it. A pickle is only loaded when the caller says that it may be; this
module does not decide that. It knows no store: where files are, it is told.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import hmac
import io
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

Json = Any

_LONGEST_TEXT = 200  # characters that stand for what only a pickle holds
_PLAIN = (type(None), bool, int, str)
_DATES: tuple[tuple[str, type[Any]], ...] = (  # a datetime is a date: it comes first
    ("$datetime", datetime.datetime),
    ("$date", datetime.date),
    ("$time", datetime.time),
)


class NotPlainError(TypeError):
    """A value that JSON and arrays do not hold."""


class DamagedError(ValueError):
    """A file is not what its name says, or not there."""


class Files:
    """A directory of files that are named by their content.

    Args:
        key: this user's, with which the names of pickles are signed; None: they are not.
        trust: load also those that somebody else has signed, or nobody.
    """

    def __init__(self, folder: Path, key: bytes | None, trust: bool) -> None:
        self._folder = folder
        self._key = key
        self._trust = trust
        self.whole = json.JSONDecoder(object_hook=partial(_decoded, self, True)).decode
        self.without_pickles = json.JSONDecoder(object_hook=partial(_decoded, self, False)).decode

    def put(self, content: bytes, suffix: str) -> str:
        """Keep a file, and return its name; what is there already is not written again."""
        name = hashlib.sha256(content).hexdigest() + suffix
        path = self._folder / name[:2] / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            new = path.with_name(f"{name}.{os.getpid()}.new")
            try:
                with open(new, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())  # the database will say that it is there
                new.rename(path)
            finally:
                new.unlink(missing_ok=True)
        return name

    def get(self, name: str) -> bytes:
        """Return a file's content. DamagedError when it is another than it was, or gone."""
        try:
            content = (self._folder / name[:2] / Path(name).name).read_bytes()
        except FileNotFoundError:
            raise DamagedError(f"the file {name} is gone") from None
        if hashlib.sha256(content).hexdigest() != name.partition(".")[0]:
            raise DamagedError(f"the file {name} is damaged")
        return content

    def put_pickle(self, value: Any) -> dict[str, Json]:
        """Keep an object as a pickle; return what `get_pickle` needs. Raises what pickling raises."""
        name = self.put(cloudpickle.dumps(value, protocol=5), ".pkl")
        return {"$pickle": name, "mac": self._mac(name)}

    def get_pickle(self, content: Mapping[str, Json]) -> Any:
        """Load a pickle.

        Raises:
            PermissionError: this user's key has not signed it, and nobody said that it may be trusted.
            DamagedError: the file is damaged or gone.
        """
        name, mac = content["$pickle"], content.get("mac") or ""
        if not self._trust and not (self._key and hmac.compare_digest(mac, self._mac(name))):
            raise PermissionError("it is a pickle that this user has not written, and a pickle can run anything")
        return pickle.loads(self.get(name))  # noqa: S301  signed by this user, or trusted

    def _mac(self, name: str) -> str:
        return hmac.new(self._key, name.encode(), "sha256").hexdigest() if self._key else ""


def dumps(value: Any, files: Files) -> str:
    """Return a value as JSON; arrays in it, and what is neither, go into files."""
    try:
        return _text(encode(value, files))
    except (NotPlainError, RecursionError):
        return _text({**files.put_pickle(value), "fields": _shown(value, files)})


def loads(text: str, files: Files) -> Any:
    """Return the value again.

    Raises:
        PermissionError: a pickle that may not be loaded.
        DamagedError: a file is damaged or gone.
    """
    return files.whole(text)


def fields_of(text: str, files: Files) -> Any:
    """Return a value as far as it can be had without unpickling: for a pickled object, a dict of its fields."""
    return files.without_pickles(text)


def encode(value: Any, files: Files) -> Json:
    """Return what JSON takes. NotPlainError when the value, or something in it, is of another kind."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [encode(item, files) for item in value]
    if kind is tuple:
        return {"$tuple": [encode(item, files) for item in value]}
    if kind is dict:
        if all(type(key) is str and key[:1] != "$" for key in value):
            return {key: encode(item, files) for key, item in value.items()}
        return {"$dict": [[encode(key, files), encode(item, files)] for key, item in value.items()]}
    if kind is complex:
        return {"$complex": [encode(value.real, files), encode(value.imag, files)]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    for tag, date in _DATES:
        if kind is date:
            return {tag: value.isoformat()}
    return _encode_array(value, files)


def _encode_array(value: Any, files: Files) -> Json:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)) or value.dtype.hasobject:
        raise NotPlainError(type(value).__name__)
    if type(value) is not numpy.ndarray and isinstance(value, numpy.ndarray):
        raise NotPlainError(type(value).__name__)  # a masked array has more than its data
    if isinstance(value, numpy.generic) and value.dtype.itemsize <= 16 and value.dtype.names is None:
        return {"$scalar": [value.dtype.str, base64.b64encode(value.tobytes()).decode("ascii"), repr(value.item())]}
    file = io.BytesIO()
    numpy.lib.format.write_array(file, numpy.asarray(value), allow_pickle=False)
    return {"$array": files.put(file.getvalue(), ".npy")}


def _decoded(files: Files, unpickles: bool, content: dict[str, Any]) -> Any:
    """Return what an object of JSON stands for; what is inside it has been decoded."""
    tag = next(iter(content), "")
    if tag[:1] != "$":
        return content
    inside = content[tag]
    if tag == "$pickle":
        return files.get_pickle(content) if unpickles else content.get("fields")
    if tag in ("$array", "$scalar"):
        return _decode_array(tag, inside, files)
    return _SIMPLE[tag](inside)


_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$tuple": tuple,
    "$dict": dict,
    "$complex": lambda items: complex(*items),
    "$bytes": base64.b64decode,
    **{name: date.fromisoformat for name, date in _DATES},
}


def _decode_array(tag: str, inside: Any, files: Files) -> Any:
    try:
        import numpy
    except ImportError:
        raise ImportError("the store has arrays in it: reading them needs numpy") from None
    if tag == "$array":
        return numpy.lib.format.read_array(io.BytesIO(files.get(inside)), allow_pickle=False)
    dtype = numpy.dtype(inside[0])
    return numpy.frombuffer(base64.b64decode(inside[1]), dtype)[0]


def written(value: Any) -> str:
    """Return how a person writes a value: as `repr` does, but a number of numpy as any other."""
    numpy = sys.modules.get("numpy")
    return repr(value.item() if numpy is not None and isinstance(value, numpy.number) else value)


def assignments(params: Mapping[str, Any]) -> str:
    """Return how a person writes parameters: ``energy=1.5, gamma=0.2``."""
    return ", ".join(f"{name}={written(value)}" for name, value in params.items())


def named_parts(value: Any) -> dict[str, Any] | None:
    """Return the parts of a mapping, a dataclass or a named tuple by their names; None for anything else."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    return None


def _shown(value: Any, files: Files) -> Json:
    """Return what tables can show of an object that is pickled: its plain parts by name, all else as text."""
    named = named_parts(value)
    if named is None:
        return repr(value)[:_LONGEST_TEXT]
    shown = {}
    for name, item in named.items():
        try:
            shown[name] = encode(item, files)
        except NotPlainError:
            shown[name] = repr(item)[:_LONGEST_TEXT]
    return {name: item for name, item in shown.items() if name[:1] != "$"}


_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
