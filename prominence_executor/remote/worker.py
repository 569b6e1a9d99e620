"""The remote side of a warm worker: a job that stays, takes batches of calls from a mailbox, and answers there.

It travels beside runner.py in its archive, as ``pxworker``, under the same rules: standard library only, in the syntax
of Python 3.8, nothing of this package. The mailboxes are keys of the service's key-value store (see warm.py, which is
the other side):

    <place>/i/<worker>/<batch>/<part>    what the client sends; a batch is there when its part 0 is
    <place>/o/<worker>/<part>            what this worker has to say of its present batch, all of it, each time anew
    <place>/c/<worker>                   a call that is to be ended

A mailbox is emptied once it has been read. Outcomes are in the job's standard output, too, each in a line that begins
with a record separator: the large ones only there, the others so that a program that attaches later finds them.

All that comes is signed with the run's key, and verified before it is unpickled; all that goes is signed, too.

A supervisor talks to the service, and forks a child that runs the calls, one chunk of calls at a time. So a call that
takes its process down costs itself; and chunks that wait behind a long call can be given back.
"""

import base64
import hashlib
import hmac
import http.client
import io
import json
import os
import select
import signal
import ssl
import struct
import sys
import time
import zlib
from urllib.parse import quote, urlsplit

import __main__ as runner

FRAME = struct.Struct(">II")  # between supervisor and child: length of a header in JSON, length of what follows
PART = 15800  # characters of a value; the service takes 15,967 bytes
FIRST_NEWS = 0.2  # seconds after which a batch that still runs is reported, with what has ended of it
DAMAGED = 5  # times in a row that a message may not be as it was signed
AWAY = 900.0  # seconds without an answer after which a worker ends
NEWS = 10.0  # seconds between two reports of a long call: the client sees that the worker lives
ASK = (0.5, 5.0)  # seconds between two looks whether a call is to be ended
IDLE = (20.0, 1.0)  # a mailbox is looked into after this part of the time without a batch; at least once in so many s


class Worker:
    """The supervisor."""

    def __init__(self, job):
        self.job = job
        self.key = bytes.fromhex(job["key"])
        self.number = job["worker"]
        self.place = job["place"]
        self.nonce = os.urandom(8).hex()  # a job that the platform starts again is another worker
        self.service = Service(job["rate"])
        self.child = None
        self.news = 0
        self.batch = 0
        self.damaged = 0  # times in a row that a message was not as it was signed
        if job["modules"]:
            runner.verify(job["modules"]["name"], job["modules"]["sha256"])
            with open(job["modules"]["name"], "rb") as file:
                _KEPT[job["modules"]["sha256"]] = file.read()
        seconds = runner.seconds_left(job.get("seconds"))
        self.until = time.monotonic() + seconds if seconds else None

    def run(self):
        """Work until the client says that it is enough, is gone, or the walltime is nearly over."""
        idle_since = time.monotonic()
        self.batch = 1
        self.say({"final": True}, b"")
        try:
            while True:
                now = time.monotonic()
                message = self.receive()
                if message is None:
                    if now - idle_since > self.job["patience"]:
                        return None
                    if self.until is not None and self.until - now < self.job["reserve"] and self.was_read():
                        return self.say({"final": True, "ending": True}, b"")
                    if self.until is not None and now > self.until:
                        return None  # the last words are still to be read where they are
                    time.sleep(min(max(self.job["shortest"], (now - idle_since) / IDLE[0]), IDLE[1]))
                    continue
                header, body = message
                if header.get("stop"):
                    return None
                self.work(header, body)
                self.service.ask("DELETE", "%s/i/%05d/%d?prefix=true" % (self.place, self.number, self.batch))
                self.batch += 1
                idle_since = time.monotonic()
        finally:
            self.end_child()

    # -- mailboxes ---------------------------------------------------------------------------------------------------

    def receive(self):
        """The next batch, or None while there is none."""
        place = "%s/i/%05d/%d/" % (self.place, self.number, self.batch)
        first = self.service.ask("GET", place + "0")
        if first is None:
            return None
        try:
            message = self.whole(place, first)
        except ValueError:
            self.damaged += 1  # it may have been damaged on its way
            if self.damaged >= DAMAGED:
                raise
            return None
        self.damaged = 0
        return message

    def whole(self, place, first):
        """The message whose first part this is, or None."""
        nonce, total, text = first.decode("ascii").split(":", 2)
        if nonce != self.nonce:
            return None  # it is for another one, which had this number before
        texts = [text]
        for part in range(1, int(total)):
            value = self.service.ask("GET", place + str(part))
            if value is None:
                return None
            texts.append(value.decode("ascii").split(":", 2)[2])
        return opened("".join(texts), self.key, "%s:%d" % (nonce, self.batch))

    def say(self, header, body):
        """Put what there is to say into the mailbox of this worker, in place of what was there."""
        self.news += 1
        asked = self.service.requests
        left = None if self.until is None else self.until - time.monotonic()
        header.update(nonce=self.nonce, batch=self.batch, left=left, requests=asked, host=os.uname().nodename)
        text = sealed(header, body, self.key, "o%d" % self.number)
        parts = [text[at : at + PART] for at in range(0, len(text), PART)]
        for part in reversed(range(len(parts))):
            value = "%d:%d:%s" % (self.news, len(parts), parts[part])
            self.service.ask("POST", "%s/o/%05d/%d" % (self.place, self.number, part), value.encode("ascii"))

    def was_read(self):
        """Whether the client has read what was said last, and removed it."""
        return self.service.ask("GET", "%s/o/%05d/0" % (self.place, self.number)) is None

    def wanted_end(self, chunk):
        """Whether the client wants the running calls ended."""
        text = self.service.ask("GET", "%s/c/%05d" % (self.place, self.number))
        if text is None:
            return False
        header, _ = opened(text.decode("ascii"), self.key, "c%d" % self.number)
        return header["end"] == [chunk["job"], chunk["attempt"]]

    # -- a batch -----------------------------------------------------------------------------------------------------

    def work(self, header, body):
        """Run a batch, and say what came of it: soon, if it takes long, and at the end."""
        self.service.rate = header["rate"]
        waiting, at = [], 0
        for chunk in header["chunks"]:
            waiting.append((chunk, body[at : at + chunk["size"]]))
            at += chunk["size"]
        extras = []
        for extra in header["extras"]:
            extras.append((extra, body[at : at + extra["size"]]))
            at += extra["size"]
        batch = Batch(self, waiting)
        batch.run(extras)

    def started_child(self):
        if self.child is None:
            self.child = Child(self.job, [self.service])
        return self.child

    def end_child(self):
        if self.child is not None:
            self.child.end()
            self.child = None


class Batch:
    """The chunks of one message, and what has come of each."""

    def __init__(self, worker, waiting):
        self.worker = worker
        self.waiting = waiting
        self.records = {}  # type: dict[int, bytes]  # number of the chunk in the batch: bytes
        self.placed = {}  # type: dict[int, list[int]]  # likewise: where in the job's standard output they are
        self.unprinted = []  # type: list[dict[str, object]]  # chunks whose records are not in it yet
        self.printed_at = time.monotonic()
        self.order = {id(chunk): number for number, (chunk, _) in enumerate(waiting)}
        self.returned = []  # type: list[int]
        self.ended = 0
        self.room = worker.job["room"]

    def run(self, extras):
        worker = self.worker
        now = time.monotonic()
        tell_at, ask_at, began = now + FIRST_NEWS, now + ASK[0], now
        current = None
        while True:
            if current is None:
                if not self.waiting:
                    break
                if sum(map(len, self.records.values())) > self.room:
                    self.give_back()  # until the client has read this
                    break
                chunk, content = self.waiting.pop(0)
                current, began = chunk, time.monotonic()
                self.records[self.order[id(chunk)]] = b""
                child = worker.started_child()
                if not child.takes(extras, chunk):  # other modules of the same names: only a new process can have them
                    worker.end_child()
                    child = worker.started_child()
                    child.takes(extras, chunk)
                child.send({"kind": "chunk", "chunk": chunk}, content)
            now = time.monotonic()
            limit = min(tell_at, ask_at, worker.until or tell_at)
            frame = worker.child.receive(max(0.0, limit - now))
            if frame is CLOSED:
                self.close(current, "crashed", exit=worker.child.exit_code())
                worker.child, current = None, None
            elif frame is not None and frame[0]["kind"] == "record":
                self.records[self.order[id(current)]] += frame[1]
            elif frame is not None:
                self.records[self.order[id(current)]] += frame[1]
                self.settle(current)
                current = None
            now = time.monotonic()
            if current is not None and worker.until is not None and now >= worker.until:
                worker.end_child()
                self.close(current, "walltime", seconds=now - began)
                current = None
                self.give_back()
            if current is not None and now >= ask_at:
                if worker.wanted_end(current):
                    worker.end_child()
                    self.close(current, "crashed", exit=-signal.SIGKILL)
                    current = None
                ask_at = time.monotonic() + min(max((now - began) / 10, ASK[0]), ASK[1])
            if current is not None and now >= tell_at:
                if now - began > FIRST_NEWS:
                    self.give_back()  # they would wait for this call: another worker may have nothing to do
                self.tell(current, final=False)
                tell_at = time.monotonic() + (NEWS if now - began > FIRST_NEWS else FIRST_NEWS)
        self.print_all()
        self.tell(None, final=True)

    def give_back(self):
        self.returned += [self.order[id(chunk)] for chunk, _ in self.waiting]
        self.waiting = []

    def close(self, chunk, kind, **facts):
        """Write for a chunk what its process cannot write any more."""
        Records(self.worker.job, chunk, lambda data: self.add(chunk, data)).write(runner.NO_CALL, kind, **facts)
        self.settle(chunk)

    def add(self, chunk, data):
        self.records[self.order[id(chunk)]] += data

    def settle(self, chunk):
        """A chunk has ended; its child writes nothing to the standard output now."""
        number = self.order[id(chunk)]
        self.ended += 1
        if len(self.records[number]) > self.room:
            place = self.printed([chunk])
            if place is not None:
                self.placed[number] = place
                self.records[number] = b""
        else:
            self.unprinted.append(chunk)
            if time.monotonic() > self.printed_at + FIRST_NEWS:
                self.print_all()

    def print_all(self):
        if self.unprinted:
            self.printed(self.unprinted)
        self.unprinted, self.printed_at = [], time.monotonic()

    def printed(self, chunks):
        """Put chunks' records into the standard output; returns where they are, or None when nobody can say."""
        pairs = [(chunk, self.records[self.order[id(chunk)]]) for chunk in chunks]
        described = []
        for chunk, content in pairs:
            about = {"job": chunk["job"], "attempt": chunk["attempt"], "calls": len(chunk["calls"])}
            described.append(dict(about, size=len(content)))
        header = {"chunks": described}
        return printed(sealed(header, b"".join(content for _, content in pairs), self.worker.key, "stdout"))

    def tell(self, current, final):
        ready = {n: data for n, data in self.records.items() if current is None or n != self.order[id(current)]}
        header = {
            "final": final,
            "ended": [[number, len(data), self.placed.get(number)] for number, data in ready.items()],
            "running": None if current is None else self.order[id(current)],
            "returned": self.returned,
        }
        self.worker.say(header, b"".join(ready.values()))


def printed(text):
    """Write a line to the job's standard output; returns where it is: [offset, length], or None when nobody can say."""
    data = b"\x1e" + text.encode("ascii") + b"\n"
    try:
        offset = os.lseek(1, 0, os.SEEK_END) if runner.stat.S_ISREG(os.fstat(1).st_mode) else None
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return None if offset is None else [offset, len(data)]
    except OSError:
        return None


# -- sealed texts: signed, compressed, in letters that a key-value store takes ----------------------------------------


def sealed(header, body, key, purpose):
    line = json.dumps(header).encode("utf-8") + b"\n"
    content = zlib.compress(line + body, 1)
    mac = hmac.new(key, purpose.encode("ascii") + b"\n" + content, hashlib.sha256).digest()
    return base64.b64encode(mac + content).decode("ascii")


def opened(text, key, purpose):
    data = base64.b64decode(text)
    mac = hmac.new(key, purpose.encode("ascii") + b"\n" + data[32:], hashlib.sha256).digest()
    if not hmac.compare_digest(mac, data[:32]):
        raise ValueError("a message is not signed with this run's key, or is not the one that was asked for")
    line, _, body = zlib.decompress(data[32:]).partition(b"\n")
    return json.loads(line.decode("utf-8")), body


# -- the service -----------------------------------------------------------------------------------------------------


class Service:
    """The key-value store, over one connection that stays; asked no more often than is fair to others.

    ``rate``: requests per second, counted over a second.
    """

    def __init__(self, rate):
        self.rate = rate
        self.requests = 0
        self.free_at = 0.0
        url = urlsplit(os.environ["PROMINENCE_URL"])
        self.prefix = url.path.rstrip("/") + "/kv/"
        self.headers = {"Authorization": "Bearer " + os.environ["PROMINENCE_TOKEN"], "Content-Type": "text/plain"}
        host = url.hostname or ""
        if url.scheme == "https":
            context = ssl.create_default_context()
            self.connection = http.client.HTTPSConnection(host, url.port, timeout=60, context=context)
        else:
            self.connection = http.client.HTTPConnection(host, url.port, timeout=60)  # type: ignore[assignment]

    def ask(self, method, key, body=None):
        """The answer's body, or None for a key that is not there; waits for a service that is away for a while."""
        path, _, query = key.partition("?")
        target = self.prefix + quote(path) + ("?" + query if query else "")
        wait = 0.0  # a connection that the service has closed meanwhile is simply made again
        until = time.monotonic() + AWAY
        while True:
            self.pace()
            try:
                self.connection.request(method, target, body=body, headers=self.headers)
                response = self.connection.getresponse()
                content = response.read()
                if response.status < 300 and not content.lstrip().startswith(b"<"):  # a page of somebody in between
                    return content
                if response.status == 404:
                    return None
            except (OSError, http.client.HTTPException):
                self.connection.close()
            if time.monotonic() > until:
                sys.exit("prominence-executor: the service has not answered for %d s" % AWAY)
            time.sleep(wait)
            wait = min(max(wait * 2, 0.1), 10.0)

    def pace(self):
        now = time.monotonic()
        self.requests += 1
        self.free_at = max(self.free_at, now - 1.0) + 1.0 / self.rate
        if self.free_at > now:
            time.sleep(self.free_at - now)

    def close(self):
        self.connection.close()


# -- the child -------------------------------------------------------------------------------------------------------

CLOSED = object()


class Child:
    """The process that runs the calls, seen from the supervisor."""

    def __init__(self, job, services):
        self.functions = set()  # type: set[str]
        self.objects = set()  # type: set[str]
        self.modules = None
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                os.close(self._requests)
                os.close(self._replies)
                for service in services:
                    service.close()
                serve(job, requests, replies)
                code = 0
            finally:
                runner.flush_streams()
                os._exit(code)
        os.close(requests)
        os.close(replies)
        self._received = b""

    def takes(self, extras, chunk):
        """Give the child what the chunk needs, unless it has it; False if it has other modules of the same kind."""
        contents = {extra["name"]: (extra, content) for extra, content in extras}
        modules = chunk["modules"]
        if self.modules not in (None, modules) and modules is not None:
            return False
        if modules is not None and self.modules is None:
            self.modules = modules
            self.send({"kind": "modules", "name": modules}, kept(modules, contents))
        for name in chunk["objects"]:
            if name not in self.objects:
                self.objects.add(name)
                self.send({"kind": "object", "name": name}, kept(name, contents))
        if chunk["function"] not in self.functions:
            self.functions.add(chunk["function"])
            self.send({"kind": "function", "name": chunk["function"]}, kept(chunk["function"], contents))
        return True

    def send(self, header, body):
        text = json.dumps(header).encode("utf-8")
        view = memoryview(FRAME.pack(len(text), len(body)) + text + body)
        try:
            while view:
                view = view[os.write(self._requests, view) :]
        except BrokenPipeError:
            pass  # it has died, as `receive` will say

    def receive(self, timeout):
        """The next frame, None when none came in time, or CLOSED when there will be no more."""
        until = time.monotonic() + timeout
        while True:
            if len(self._received) >= FRAME.size:
                head, size = FRAME.unpack_from(self._received)
                end = FRAME.size + head + size
                if len(self._received) >= end:
                    text = self._received[FRAME.size : FRAME.size + head]
                    body = self._received[FRAME.size + head : end]
                    self._received = self._received[end:]
                    return json.loads(text.decode("utf-8")), body
            ready, _, _ = select.select([self._replies], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._replies, 1 << 20)
            if not data:
                return CLOSED
            self._received += data

    def exit_code(self):
        runner.end_group(self.pid)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._requests)
        os.close(self._replies)
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def end(self):
        """Kill it, with all that it has started."""
        runner.end_group(self.pid)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass
        self.exit_code()


_KEPT = {}  # type: dict[str, bytes]  # name: content of the functions, modules and objects that came, for another child


def kept(name, contents):
    if name in contents:
        _KEPT[name] = contents[name][1]
    return _KEPT[name]


class Records(runner.Outcomes):
    """Outcomes that go somewhere else than to the file: each record by itself."""

    def __init__(self, job, chunk, send):
        self._job = dict(job, job=chunk["job"], attempt=chunk["attempt"])
        self._key = bytes.fromhex(job["key"])
        self._file = io.BytesIO()
        self._send = send

    def write(self, call, kind, dump=None, **facts):
        runner.Outcomes.write(self, call, kind, dump, **facts)
        self._send(self._file.getvalue())
        self._file = io.BytesIO()

    def take_back(self, start):
        self._file.seek(start)
        self._file.truncate()


def serve(job, requests, replies):
    """The child: runs one chunk after the other."""
    import cloudpickle

    sys.argv = [""]
    home = os.getcwd()  # calls may go elsewhere
    runner.line_buffered()
    source = os.fdopen(requests, "rb", buffering=1 << 16)

    def send(kind, body=b""):
        text = json.dumps({"kind": kind}).encode("utf-8")
        view = memoryview(FRAME.pack(len(text), len(body)) + text + body)
        while view:
            view = view[os.write(replies, view) :]

    blobs = {}  # type: dict[str, bytes]
    objects = {}  # type: dict[str, str]  # digest: path
    load = runner.loader({"objects": objects})
    loaded = {}  # type: dict[str, object]
    ready = []  # type: list[bool]
    while True:
        head = source.read(FRAME.size)
        if len(head) < FRAME.size:
            return
        sizes = FRAME.unpack(head)
        header = json.loads(source.read(sizes[0]).decode("utf-8"))
        body = source.read(sizes[1])
        if header["kind"] == "modules":
            path = os.path.abspath("pxmods-%d-%s" % (os.getpid(), header["name"][:32]))
            with open(path, "wb") as file:
                file.write(body)
            sys.path.insert(1, path)
        elif header["kind"] == "object":
            objects[header["name"]] = os.path.join(home, "pxobj-%d-%s" % (os.getpid(), header["name"]))
            with open(objects[header["name"]], "wb") as file:
                file.write(body)
        elif header["kind"] == "function":
            blobs[header["name"]] = body
        else:
            chunk = header["chunk"]
            # Of several calls each record goes at once: a crash is to cost none of those that have ended.
            kept_back = []  # type: list[bytes]
            alone = len(chunk["calls"]) == 1
            records = Records(job, chunk, kept_back.append if alone else lambda data: send("record", data))
            try:
                run_chunk(cloudpickle, records, chunk, body, load, blobs, loaded, ready)
            except BaseException as error:  # whatever it is, the client must hear of it
                runner.report_failure(records, error)
            runner.flush_streams()
            send("end", b"".join(kept_back))


def run_chunk(cloudpickle, records, chunk, body, load, blobs, loaded, ready):
    name = chunk["function"]
    if name not in loaded:
        loaded[name] = load(io.BytesIO(blobs.pop(name)))
    function, initializer, initargs = loaded[name]
    if initializer is not None and not ready:
        if not runner.initialized(records, cloudpickle, initializer, initargs):
            return
        ready.append(True)
    at = 0
    for call, size in enumerate(chunk["calls"]):
        if size is not None:  # else it was cancelled
            content = body[at : at + size]
            at += size
            several = len(chunk["calls"]) > 1
            runner.run_call(records, cloudpickle, call, function, lambda data=content: load(io.BytesIO(data)), several)
