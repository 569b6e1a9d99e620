"""What a job does that cannot have the result of another one: it says so soon, and shows its token to nobody else."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prominence_executor.remote.results import Fetcher, NotFetched

ENTRY = {"id": 7, "offset": 0, "size": 100, "head": "", "what": "the result of call 3"}


class Refusing(http.server.BaseHTTPRequestHandler):
    """Refuses objects, and answers a question for a fresh address as the server is told to."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(server.answer if "/jobs/" in self.path else 403)
        if server.answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as running:
        running.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("PROMINENCE_URL", f"http://127.0.0.1:{running.server_port}/v1")
        monkeypatch.setenv("PROMINENCE_TOKEN", "secret")
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("answer", [401, 404, 302])
def test_a_refused_address_is_asked_for_once(server: Any, tmp_path: Path, answer: int) -> None:
    server.answer = answer
    entry = {**ENTRY, "url": f"http://127.0.0.1:{server.server_port}/object"}
    with pytest.raises(NotFetched, match="the result of call 3 could not be fetched"):
        Fetcher(None).fetch(str(tmp_path / "result"), "0" * 64, entry, bytes(32))
    asked = [path for path, _ in server.asked]
    assert asked.count("/object") == asked.count("/v1/jobs/7") == 1
    assert {path for path, token in server.asked if token} == {"/v1/jobs/7"}
    assert list(tmp_path.iterdir()) == []
