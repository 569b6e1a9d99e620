"""What both sides have to say alike: names of files, marks of formats, how records are framed and messages are signed.

The client imports it as it is; in a job it travels with the runner, also as source, for a Python that is the wrong one.
It may import nothing of this package but lean.py, reads no file, and asks nobody.

A record of an outcome file is PREFIX, body, header. The header is JSON and names run, job, attempt, call, kind and the
body's SHA-256; the prefix holds both lengths and the header's MAC, and is written last: a record without it does not
count.

A message, which a key-value store or a job's standard output carries, is in base64: a MAC, and compressed a line of
JSON and the body behind it. The MAC is of a purpose, too, so that no message passes for another one.
"""

import binascii
import zlib
from _struct import Struct

from .lean import dumps, hmac_sha256, loads, same

TYPE_CHECKING = False  # that of typing would cost a job some milliseconds
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

FORMAT = 1
RUNNER_FILE = "pxrun.py"
RUNNER_DATA = "pxrun.bin"
JOB_FILE = "pxjob.json"
CALLS_FILE = "pxcalls"
OUTCOME_FILE = "pxoutcome"
FILES_FILE = "pxfiles"
RANKS_FOLDER = "pxranks-"  # so begins the name of the directory that the ranks of an MPI job share
SCRIPTS_FOLDER = "pxscripts-"  # likewise, where processes that a call spawns find the script
OUTCOME_MAGIC = b"PXOUT1\n"
FILES_MAGIC = b"PXFILES1\n"
CALLS_MAGIC = b"PXCALLS1\n"
OBJECT_MAGIC = b"PXOBJ1\n"
MODULES_MAGIC = b"PXMODS1\n"
BUNDLE_MAGIC = b"PXARRAY1\n"
MODULES_HEAD = Struct(">I")  # length of the header
MODULES_FOLDER = "pxmodules-"  # so begins the name of the directory in which a job has the user's own modules
PACKAGES_FOLDER = ".pxpackages-"  # likewise, packages; patterns of output files do not look into it
PREFIX = Struct(">QI32s")  # length of the body, length of the header, MAC of the header
NO_CALL = -1  # the call of a record that speaks of the whole job
LARGE_BUFFER = 1 << 16  # bytes from which on a buffer lies behind its pickle
LARGE_RESULT = 1 << 20  # bytes of a result from which on it may stay at the service, for other jobs that need it
ALIGNMENT = 64  # bytes: at a multiple of it such a buffer begins, as numpy and Arrow like it
PART = 15800  # characters of a message in one value of the key-value store, which takes 15,967 bytes
MAC_SIZE = 32  # bytes
SAMPLED, SAMPLE = 1 << 19, 1 << 16  # bytes of a message that is tried first, and of it what is tried


def mac_of(key, content):
    # type: (bytes, bytes) -> bytes
    """Return the HMAC-SHA-256 of some content."""
    return hmac_sha256(key, content)


def sign(header, body, key, purpose):
    # type: (dict[str, Any], bytes, bytes, str) -> str
    """Return a message: signed, compressed, in letters that a key-value store takes."""
    # What is large and does not get smaller would only cost time.
    level = int(len(body) < SAMPLED or len(zlib.compress(body[:SAMPLE], 1)) < 0.9 * SAMPLE)
    content = zlib.compress(dumps(header).encode("utf-8") + b"\n" + body, level)
    mac = mac_of(key, purpose.encode("ascii") + b"\n" + content)
    return binascii.b2a_base64(mac + content, newline=False).decode("ascii")


def verify(text, key, purpose):
    # type: (str, bytes, str) -> tuple[dict[str, Any], bytes]
    """Return header and body of a message; ValueError: it is not signed with this key for this purpose."""
    data = binascii.a2b_base64(text)
    mac, content = data[:MAC_SIZE], data[MAC_SIZE:]
    if not same(mac_of(key, purpose.encode("ascii") + b"\n" + content), mac):
        raise ValueError("a message is not signed with this run's key, or is not the one that was asked for")
    line, _, body = zlib.decompress(content).partition(b"\n")
    return loads(line.decode("utf-8")), body


def split(text, tag):
    # type: (str, str) -> list[str]
    """Return a message as the values of a mailbox, which are to be written last one first.

    Each is ``<tag>:<number of values>:<part>``; a reader takes those of one tag together.
    """
    parts = [text[at : at + PART] for at in range(0, len(text), PART)]
    return ["%s:%d:%s" % (tag, len(parts), part) for part in parts]
