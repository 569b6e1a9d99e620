"""Does anybody at the embedded service wait for others: requests that wait, slow readers, long commands, idle clients?

Ten busy clients set and get values, each on one connection; beside them 100 requests that wait for a change, 8 readers
of a large stdout who do not read, 8 `exec` of 100 s, and 1,010 connections on which nothing is asked. Memory is the
service's, which runs as a process of its own; processor time is counted by request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where files are named as libraries

BASE = "/prominence/v1"
BUSY = 10
_TICKS = os.sysconf("SC_CLK_TCK")


def serve() -> None:
    """The service with two more routes: what waits for a change, and what changes it."""
    from prominence_executor.service import __main__ as program
    from prominence_executor.service.http import app
    from prominence_executor.service.http.context import Answer, Ask, jsonify
    from prominence_executor.service.http.waiting import Topic

    topic = Topic("benchmark", "topic")

    @app.routes.get("/wait")
    async def wait(ask: Ask) -> Answer:
        return jsonify(await ask.api.changes.after(ask.whole("since", 0), topic, 100))

    @app.routes.post("/change")
    async def change(ask: Ask) -> Answer:
        ask.api.changes.announce(topic)
        return jsonify(ask.api.changes.revision())

    sys.exit(program.main(["--child"]))


@dataclass
class Server:
    """The running service."""

    pid: int
    host: str
    port: int
    token: str

    def memory(self) -> float:
        """MB that it holds."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu(self) -> float:
        """Seconds that it has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self.reader, self._writer, self._token = reader, writer, token

    @classmethod
    async def at(cls, server: Server) -> Client:
        """Connect."""
        return cls(*await asyncio.open_connection(server.host, server.port), server.token)

    def say(self, method: str, path: str, body: bytes = b"") -> None:
        """Send a request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
        head += "Content-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def heard(self) -> bytes:
        """Read an answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        return await self.reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request and read its answer."""
        self.say(method, path, body)
        return await self.heard()

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def report(name: str, server: Server, before: float, seconds: float) -> None:
    """Let busy clients ask, and print how that went."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def busy(number: int) -> None:
        client = await Client.at(server)
        while time.perf_counter() < end:
            for method in ("POST", "GET"):
                began = time.perf_counter()
                await client.ask(method, f"{BASE}/kv/busy/{number}", b"v" * 200 if method == "POST" else b"")
                times.append(time.perf_counter() - began)
        client.close()

    cpu = server.cpu()
    await asyncio.gather(*(busy(number) for number in range(BUSY)))
    each = 1e6 * (server.cpu() - cpu) / len(times)
    print(
        f"{name:30} {len(times) / seconds:8.0f} {1e3 * at(times, 0.5):8.1f} {1e3 * at(times, 0.99):8.1f} {each:8.0f}"
        f" {server.memory() - before:+8.1f}"
    )


def at(values: list[float], share: float) -> float:
    """The value below which a share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def waiting(server: Server) -> list[Client]:
    """100 requests that wait, woken 20 times."""
    clients = [await Client.at(server) for _ in range(100)]
    poker, late = await Client.at(server), []
    since = int(await poker.ask("POST", "/change"))
    for _ in range(20):
        for client in clients:
            client.say("GET", f"/wait?since={since}")
        await asyncio.sleep(0.1)
        began = time.perf_counter()

        async def woken(client: Client, began: float = began) -> None:
            await client.heard()
            late.append(time.perf_counter() - began)

        changed, *_ = await asyncio.gather(poker.ask("POST", "/change"), *map(woken, clients))
        since = int(changed or b"0")
    for client in clients:
        client.say("GET", f"/wait?since={since}")
    poker.close()
    print(f"100 requests that wait are woken after {1e3 * at(late, 0.5):.1f} ms, p99 {1e3 * at(late, 0.99):.1f} ms")
    return clients


async def talker(server: Server) -> int:
    """A running job that has printed 20 MB."""
    client = await Client.at(server)
    task = {"image": "any", "runtime": "singularity", "cmd": "sh -c 'yes | head -c 20000000; sleep 1000'"}
    resources = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10}
    body = json.dumps({"tasks": [task], "resources": resources}).encode()
    job = int(json.loads(await client.ask("POST", f"{BASE}/jobs", body))["id"])
    while not await client.ask("GET", f"{BASE}/jobs/{job}/stdout?offset=19999999"):
        await asyncio.sleep(0.1)
    client.close()
    return job


async def measure(server: Server, seconds: float) -> None:
    """All of it."""
    print(f"{'10 busy clients':30} {'asks/s':>8} {'ms':>8} {'p99 ms':>8} {'CPU us':>8} {'MB':>8}")
    before = server.memory()
    await report("alone", server, before, seconds)
    before, clients = server.memory(), await waiting(server)
    await report("beside 100 that wait", server, before, seconds)
    job, before = await talker(server), server.memory()
    for method, path in [("GET", "stdout")] * 8 + [("POST", "exec?command=sleep,100")] * 8:
        clients.append(await Client.at(server))
        clients[-1].say(method, f"{BASE}/jobs/{job}/{path}")
        if method == "GET":
            await clients[-1].reader.read(100)
    await report("and 8 slow readers, 8 exec", server, before, seconds)
    before = server.memory()
    clients += [await Client.at(server) for _ in range(1010)]
    await report("and 1,010 idle connections", server, before, seconds)
    for client in clients:
        client.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: 3)")
    seconds = parser.parse_args().seconds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    with subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        url = urlsplit(said["url"])
        asyncio.run(measure(Server(process.pid, url.hostname or "", url.port or 80, said["token"]), seconds))
        process.communicate()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
