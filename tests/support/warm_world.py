"""A service in memory for warm workers, whose workers are threads: two hundred of them fit where two real ones would.

`MemoryService` keeps keys and jobs, and starts a `MemoryWorker` for each job; `MemoryClient` has the verbs of the
client that a pool of workers uses. A worker here speaks the protocol of remote/worker.py with messages that are signed,
and makes signed records; it differs in that it runs calls in its own thread. `Pool` is the real pool on top of that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pickle
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prominence_executor.errors import NotFoundError
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.remote.wire import sign, split, verify
from prominence_executor.run.chunk import Chunk
from prominence_executor.run.connection import Connection, ServiceHealth
from prominence_executor.run.context import LOG, RunContext
from prominence_executor.run.environments import Environments
from prominence_executor.run.future import ProminenceFuture
from prominence_executor.run.history import History
from prominence_executor.run.images import LocalImages
from prominence_executor.run.journal import NullJournal
from prominence_executor.run.objects import Objects
from prominence_executor.run.options import Options
from prominence_executor.run.registry import ChunkRegistry
from prominence_executor.run.retry import Again
from prominence_executor.run.settle import Settler
from prominence_executor.run.slots import Slots
from prominence_executor.run.uploads import UploadCache
from prominence_executor.transports.warm.options import WarmOptions
from prominence_executor.transports.warm.pool import WarmPool

_PREFIX = struct.Struct(">QI32s")  # of a record: length of its body, length of its header, HMAC of the header


class MemoryService:
    """Keys and jobs; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._jobs: dict[int, dict[str, Any]] = {}
        self._workers: dict[int, MemoryWorker] = {}
        self._bells: dict[str, threading.Event] = {}  # by the place of a worker's mailbox
        self.most_running = 0

    def start(self, description: dict[str, Any]) -> int:
        """Create a job."""
        content = {item["filename"]: item["content"] for item in description["inputs"]}["pxjob.json"]
        with self._lock:
            job_id = len(self._jobs) + 1
            worker = MemoryWorker(self, job_id, json.loads(base64.b64decode(content)))
            self._jobs[job_id] = {"id": job_id, "name": description["name"], "status": "running"}
            self._workers[job_id] = worker
            self._bells[worker.inbox] = worker.bell
            self.most_running = max(self.most_running, len(self.running()))
        worker.thread.start()
        return job_id

    def end(self, job_id: int, status: str) -> bool:
        """End a job that has not ended; its worker says no more. Returns whether it had not."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job["status"] != "running":
                return False
            job["status"] = status
            self._workers[job_id].kill()
            return True

    def running(self) -> list[int]:
        """The jobs that have not ended."""
        return [job_id for job_id, job in list(self._jobs.items()) if job["status"] == "running"]

    def jobs(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(job) for job in self._jobs.values()]

    def stdout(self, job_id: int) -> bytes:
        return self._workers[job_id].printed

    def get(self, key: str) -> str | None:
        with self._lock:
            return self._keys.get(key)

    def set(self, key: str, value: str) -> None:
        with self._lock:
            self._keys[key] = value
            bell = self._bells.get(key.rsplit("/", 2)[0])
        if bell is not None:
            bell.set()

    def under(self, prefix: str) -> dict[str, str]:
        with self._lock:
            return {key: value for key, value in self._keys.items() if key.startswith(prefix)}

    def remove(self, prefix: str) -> None:
        with self._lock:
            for key in [key for key in self._keys if key.startswith(prefix)]:
                del self._keys[key]

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Within this, nobody has an answer."""
        with self._lock:
            yield

    def join(self) -> None:
        """Wait for the threads of all workers, which have been ended."""
        for worker in self._workers.values():
            worker.thread.join(10)


class MemoryWorker:
    """A warm worker in a thread."""

    def __init__(self, service: MemoryService, job_id: int, job: dict[str, Any]) -> None:
        self._job_id = job_id
        self.inbox = f"{job['place']}/i/{job['worker']:05d}"
        self.bell = threading.Event()  # something has come, or it is to end
        self.printed = b""
        self.thread = threading.Thread(target=self._run, name=f"memory-worker-{job['worker']}", daemon=True)
        self._service = service
        self._job = job
        self._key = bytes.fromhex(job["key"])
        self._nonce = os.urandom(8).hex()
        self._batch = 1
        self._said = 0
        self._killed = False
        self._extras: dict[str, bytes] = {}

    def kill(self) -> None:
        self._killed = True
        self.bell.set()

    def _run(self) -> None:
        self._say({"final": True}, b"")
        while not self._killed:
            self.bell.clear()
            message = self._receive()
            if message is None:
                self.bell.wait(0.5)
                continue
            if message[0].get("stop"):
                self._service.end(self._job_id, "completed")
                return
            self._work(*message)
            if not self._killed:
                self._service.remove(f"{self.inbox}/{self._batch:09d}/")
            self._batch += 1

    def _receive(self) -> tuple[dict[str, Any], bytes] | None:
        parts: list[str] = []
        total = 1
        while len(parts) < total:
            value = self._service.get(f"{self.inbox}/{self._batch:09d}/{len(parts)}")
            nonce, number, part = value.split(":", 2) if value is not None else ("", "0", "")
            if nonce != self._nonce:
                return None
            total = int(number)
            parts.append(part)
        return verify("".join(parts), self._key, f"{self._nonce}:{self._batch}")

    def _work(self, header: dict[str, Any], body: bytes) -> None:
        at = 0
        contents = []
        for item in [*header["chunks"], *header["extras"]]:
            contents.append(body[at : at + item["size"]])
            at += item["size"]
        for extra, content in zip(header["extras"], contents[len(header["chunks"]) :], strict=True):
            self._extras[extra["name"]] = content
        ended, records = [], []
        for number, (chunk, content) in enumerate(zip(header["chunks"], contents, strict=False)):
            if self._killed:
                return
            made = self._run_chunk(chunk, content)
            place = self._print(chunk, made) if len(made) > self._job["room"] else None
            records.append(b"" if place else made)
            ended.append([number, len(records[-1]), place])
        self._say({"final": True, "ended": ended, "running": None, "returned": []}, b"".join(records))

    def _run_chunk(self, chunk: dict[str, Any], content: bytes) -> bytes:
        function, _, _ = pickle.loads(self._extras[chunk["function"]])
        at, records = 0, b""
        for call, size in enumerate(chunk["calls"]):
            if size is not None:
                args, kwargs = pickle.loads(content[at : at + size])
                at += size
                began = time.monotonic()
                result = pickle.dumps(function(*args, **kwargs))
                records += self._record(chunk, call, result, time.monotonic() - began)
        return records

    def _record(self, chunk: dict[str, Any], call: int, body: bytes, seconds: float) -> bytes:
        header = {"format": 1, "call": call, "kind": "result", "size": len(body), "seconds": seconds}
        header |= {"run": self._job["run"], "job": chunk["job"], "attempt": chunk["attempt"]}
        text = json.dumps({**header, "sha256": hashlib.sha256(body).hexdigest()}).encode()
        mac = hmac.new(self._key, text, hashlib.sha256).digest()
        return _PREFIX.pack(len(body), len(text), mac) + body + text

    def _print(self, chunk: dict[str, Any], records: bytes) -> list[int]:
        about = {"job": chunk["job"], "attempt": chunk["attempt"], "calls": len(chunk["calls"]), "size": len(records)}
        line = b"\x1e" + sign({"chunks": [about]}, records, self._key, "stdout").encode() + b"\n"
        offset = len(self.printed)
        self.printed += line
        return [offset, len(line)]

    def _say(self, header: dict[str, Any], body: bytes) -> None:
        if self._killed:
            return
        self._said += 1
        about = {"nonce": self._nonce, "batch": self._batch, "left": None, "requests": self._said}
        number = self._job["worker"]
        values = split(sign({**header, **about}, body, self._key, f"o{number}"), str(self._said))
        for part in reversed(range(len(values))):
            self._service.set(f"{self._job['place']}/o/{number:05d}/{part}", values[part])


class MemoryClient:
    """The verbs that a pool of warm workers uses."""

    url = "memory:"

    def __init__(self, service: MemoryService) -> None:
        self._service = service

    def create_job(self, description: dict[str, Any]) -> int:
        return self._service.start(description)

    def list_jobs(
        self, *, constraint: tuple[str, str] | None = None, ids: Iterable[int] | None = None, detail: bool = False
    ) -> list[dict[str, Any]]:
        if ids is None:
            return [job for job in self._service.jobs() if job["status"] == "running"]
        wanted = set(ids)
        return [job for job in self._service.jobs() if job["id"] in wanted]

    def delete_jobs(self, ids: Iterable[int]) -> None:
        ended = [self._service.end(job_id, "deleted") for job_id in ids]
        if not any(ended):
            raise NotFoundError("none of these is active", 404)

    def stdout(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        return self._service.stdout(job_id)[offset:]

    def stderr(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        return b""

    def kv_set(self, key: str, value: str) -> None:
        self._service.set(key, value)

    def kv_list(self, prefix: str, values: bool = False, *, wait: float = 0.0, since: Any = None) -> Any:
        found = self._service.under(prefix)
        return found if values else list(found)

    def kv_delete(self, key: str, prefix: bool = False) -> None:
        self._service.remove(key)

    def close(self) -> None:
        pass


class Pool:
    """The real pool of warm workers on such a service."""

    def __init__(self, service: MemoryService, options: WarmOptions) -> None:
        run_id, uploads = "memory", UploadCache()
        context = RunContext(
            run_id=run_id,
            key=os.urandom(32),
            connection=Connection(lambda: MemoryClient(service)),  # type: ignore[arg-type,return-value]
            health=ServiceHealth(run_id, 60.0, LOG),
            journal=NullJournal(),
            objects=Objects(uploads),
            images=LocalImages(uploads),
            environments=Environments(uploads),
            uploads=uploads,
            lazy=False,
            attached=False,
            stopping=threading.Event(),
            history=History(run_id, LOG),
        )
        self.registry = ChunkRegistry(run_id)
        self._stopping = context.stopping
        self._service = service
        self._options = Options()
        self._warm = WarmPool(
            context, self.registry, Settler(context, _never), options, Slots(self.registry, None), lambda chunk: None
        )
        self._warm.start()
        self.scale = self._warm.scale
        self.workers = self._warm.workers

    def submit(self, function: Blob, arguments: list[tuple[Any, ...]]) -> list[ProminenceFuture[Any]]:
        """Queue calls as one chunk. ``function``: see `pickled`."""
        payload = Payload(function, [Blob([pickle.dumps((args, {}))]) for args in arguments])

        def make(first: int) -> list[Chunk]:
            calls: list[ProminenceFuture[Any]] = [ProminenceFuture(first + n) for n in range(len(arguments))]
            return [Chunk(self.registry.run_id, first, calls, self._options, payload, self._warm)]

        [chunk] = self.registry.admit(len(arguments), make)
        futures = list(chunk.calls)
        self._warm.submit(chunk)
        return futures

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *raised: object) -> None:
        """End all, the workers' threads too."""
        self.registry.stop_admitting()
        self._stopping.set()
        self._warm.close(False)
        self._service.join()


def pickled(function: Any) -> Blob:
    """What stands for a function in a payload."""
    return Blob([pickle.dumps((function, None, ()))])


def _never(chunk: Chunk, again: list[Again]) -> None:
    raise AssertionError("no call here has retries")
