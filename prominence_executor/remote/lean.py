"""JSON, SHA-256, pickle and signals by the interpreter's own C modules: those around them cost a job too much.

An image often has no byte code of the standard library, so that each job would compile it: json, re behind pickle, enum
behind signal take a tenth of the start of a job each, hashlib loads a library. Where the C modules are missing, or are
not as they were, the standard library's own do the same. It travels as source, too; what is large is hashed by hashlib,
which is faster by then.
"""

import sys

try:
    from _sha2 import sha256 as _small  # type: ignore[import-not-found,unused-ignore]  # from Python 3.12 on
except ImportError:
    try:
        from _sha256 import sha256 as _small  # type: ignore[import-not-found,no-redef,unused-ignore]
    except ImportError:
        from hashlib import sha256 as _small  # type: ignore[assignment,unused-ignore]

try:
    from _operator import _compare_digest
except ImportError:
    from hmac import compare_digest as _compare_digest  # type: ignore[no-redef,unused-ignore]

try:
    import _signal as signals  # type: ignore[import-not-found]
except ImportError:
    import signal as signals

try:
    from _pickle import Pickler, Unpickler, UnpicklingError
    from _pickle import dump as dump_plain
except ImportError:
    from pickle import Pickler, Unpickler, UnpicklingError
    from pickle import dump as dump_plain

__all__ = (
    "Digest", "Pickler", "Unpickler", "UnpicklingError", "dump_plain", "dumps", "hmac_sha256", "loads", "same",
    "signals",
)  # fmt: skip

same = _compare_digest  # of two digests, in a time that does not tell where they differ
LARGE = 1 << 20  # bytes from which on hashlib has gained what it costs
_BLOCK = 64  # bytes of SHA-256
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # what HMAC makes of a key's bytes


class Digest:
    """The SHA-256 of what it is updated with."""

    def __init__(self, data=b""):
        self._held = []  # type: list[bytes]  # until it is known whether it is large
        self._size = 0
        self._digest = None
        self.update(data)

    def update(self, data):
        """Take in more bytes."""
        if self._digest is not None:
            self._digest.update(data)
            return
        self._held.append(bytes(data))
        self._size += len(self._held[-1])
        if self._size > LARGE or "hashlib" in sys.modules:
            from hashlib import sha256

            self._digest, held, self._held = sha256(), self._held, []
            for part in held:
                self._digest.update(part)

    def digest(self):
        """Return the 32 bytes."""
        return (self._digest or _small(b"".join(self._held))).digest()

    def hexdigest(self):
        """Return them as text."""
        return self.digest().hex()


def hmac_sha256(key, content):
    # type: (bytes, bytes) -> bytes
    """Return the HMAC-SHA-256 of some content."""
    if len(key) > _BLOCK:
        key = _small(key).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner = Digest(key.translate(_INNER))
    inner.update(content)
    return bytes(_small(key.translate(_OUTER) + inner.digest()).digest())


def _constant(name):
    return {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}[name]


class _Context:
    """What the C scanner is told: as json.JSONDecoder has it."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo = {}  # type: dict[str, str]


def _refuse(value):
    raise TypeError("%r cannot be said in JSON" % (value,))


try:
    if "json" in sys.modules:
        raise ImportError  # it costs nothing any more
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Context)  # type: ignore[arg-type]
    make_encoder({}, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
except (ImportError, TypeError, ValueError, AttributeError):
    import json

    loads, dumps = json.loads, json.dumps
else:

    def loads(text):  # type: ignore[misc]
        """Return the value that a text in JSON says; ValueError when it is none."""
        start = len(text) - len(text.lstrip(" \t\n\r"))
        try:
            value, end = _scan(text, start)
        except StopIteration:
            raise ValueError("no JSON at character %d" % start) from None
        if text[end:].strip(" \t\n\r"):
            raise ValueError("more than JSON from character %d on" % end)
        return value

    def dumps(value):  # type: ignore[misc]
        """Return a value as JSON, in ASCII."""
        encode = make_encoder({}, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
        return "".join(encode(value, 0))
