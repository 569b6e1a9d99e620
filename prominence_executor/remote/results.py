"""Results of other jobs that the calls of this one are given: fetched from the object store, and verified.

It travels where a job needs it, and unpickles nothing: loading.py finds the results as objects in files of their own.

A result is a signed record in the outcome file of its job; of that file only the record is asked for. It counts when
its header is signed with its run's key and names the digest that this job was told, and when its content has that
digest. An address is good for seven days, and this job may have waited for longer: then the service is asked for a
fresh one, with this job's own token.
"""

import http.client
import os
import time
import urllib.error
import urllib.request

from .lean import Digest, loads, same
from .tls import ssl_context
from .wire import OUTCOME_FILE, PREFIX, mac_of

PATIENCE = 900.0  # seconds for which the object store, or the service, may be away
PAUSES = (0.5, 10.0)  # seconds between two attempts: the first, and the longest
DAMAGED = 3  # times that a record may come otherwise than it was signed
BLOCK = 1 << 20  # bytes


class NotFetched(Exception):
    """A result did not come, or not as it was signed; the client makes an ArtifactError of it."""


class Damaged(Exception):
    """What came is not what was signed."""


def fetch_results(job):
    """Put the results that this job needs into their files."""
    fetcher = Fetcher(job.get("tls"))
    for digest, entry in sorted(job["results"].items()):
        path = entry["name"]
        if not os.path.exists(path):  # else the platform runs the task once more
            key = job.get("keys", {}).get(entry["run"], job["key"])
            fetcher.fetch(path, digest, entry, bytes.fromhex(key))


class Fetcher:
    """Fetches records; ``tls``: what the client's settings say of certificates."""

    def __init__(self, tls):
        self.context = ssl_context(tls)

    def fetch(self, path, digest, entry, key):
        """Fetch a result into a file, which appears when it has been verified. Raises NotFetched."""
        url, asked = entry["url"], False
        until, pause, damaged = time.monotonic() + PATIENCE, PAUSES[0], 0
        while True:
            try:
                if not url:
                    asked = True
                    url = self.fresh_address(entry)
                self.download(url, path, digest, entry, key)
                return
            except Damaged as error:
                problem, damaged = str(error), damaged + 1
                final = damaged >= DAMAGED
            except urllib.error.HTTPError as error:
                problem = str(error)
                refused = 400 <= error.code < 500 and error.code not in (408, 429)
                final = refused and asked
                if refused and not asked:
                    url = None  # it has expired
                    continue
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem, final = str(error) or type(error).__name__, False
            if final or time.monotonic() > until:
                text = "%s could not be fetched: %s" % (entry["what"], problem)
                raise NotFetched(text) from None  # a traceback may show an address
            time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    def download(self, url, path, digest, entry, key):
        """Fetch the record once, and verify it."""
        first, size = entry["offset"], entry["size"]
        request = urllib.request.Request(url, headers={"Range": "bytes=%d-%d" % (first, first + size - 1)})
        partial = "%s.%d.part" % (path, os.getpid())
        try:
            with self.open(request) as answer, open(partial, "wb") as file:
                if answer.status != 206:
                    skip(answer, first)
                length, head, mac = PREFIX.unpack(exactly(answer, PREFIX.size))
                if PREFIX.size + length + head != size:
                    raise Damaged("its length is not the one that was signed")
                file.write(entry["head"].encode("ascii"))
                found = copy(answer, file, length)
                text = exactly(answer, head)
            if not same(mac_of(key, text), mac):
                raise Damaged("it is not signed with the key of its run")
            if loads(text.decode("utf-8"))["sha256"] != digest or found != digest:
                raise Damaged("it is not what was signed")
            os.rename(partial, path)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)

    def fresh_address(self, entry):
        """Ask the service where the record is now."""
        url = "%s/jobs/%d" % (os.environ.get("PROMINENCE_URL", "").rstrip("/"), entry["id"])
        request = urllib.request.Request(url)
        # Whoever the service redirects to does not get the token.
        request.add_unredirected_header("Authorization", "Bearer " + os.environ.get("PROMINENCE_TOKEN", ""))
        with self.open(request) as answer:
            jobs = loads(answer.read().decode("utf-8"))
        for output in (jobs[0].get("outputFiles") or ()) if jobs else ():
            if isinstance(output, dict) and output.get("name") == OUTCOME_FILE and output.get("url"):
                return output["url"]
        raise NotFetched("%s is not at the service any more" % entry["what"])

    def open(self, request):
        """Make a request; raises HTTPError for an answer that is none, OSError without one."""
        return urllib.request.urlopen(request, timeout=60, context=self.context)


def exactly(answer, size):
    """Read so many bytes."""
    parts = []
    while size:
        part = answer.read(min(size, BLOCK))
        if not part:
            raise OSError("it was cut short")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def skip(answer, size):
    """Read so many bytes, and forget them."""
    while size:
        size -= len(exactly(answer, min(size, BLOCK)))


def copy(answer, file, size):
    """Copy so many bytes to a file; return their digest."""
    digest = Digest()
    while size:
        part = exactly(answer, min(size, BLOCK))
        file.write(part)
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()
