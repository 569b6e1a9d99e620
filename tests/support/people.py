"""One user of the embedded service, for tests: requests, and waiting for what they lead to."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import requests

ENDED = ("completed", "failed", "killed", "deleted")


def files_named(folder: Path, name: str) -> list[Path]:
    """All files of this name anywhere below a folder, which sandboxes may leave while this looks."""
    return [Path(place, name) for place, _, names in os.walk(folder) if name in names]


def alive(pid: int) -> bool:
    """Whether a process runs; an ended one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Person:
    """Calls the API of a running service as one user, and waits with deadlines."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self._headers = url, {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, headers=self._headers, timeout=60, **options)

    @staticmethod
    def described(command: str, **parts: Any) -> dict[str, Any]:
        """A job description; `task` and `resources` are merged into the usual ones."""
        task = {"image": "any", "runtime": "singularity", "cmd": command, **parts.pop("task", {})}
        resources = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10, **parts.pop("resources", {})}
        inputs = [
            {"filename": name, "content": base64.b64encode(text.encode()).decode()}
            for name, text in parts.pop("files", {}).items()
        ]
        return {"tasks": [task], "resources": resources, "inputs": inputs, **parts}

    def create(self, command: str, **parts: Any) -> int:
        answer = self("POST", "/jobs", json=self.described(command, **parts))
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def job(self, job: int) -> dict[str, Any]:
        described: dict[str, Any] = self("GET", f"/jobs/{job}").json()[0]
        return described

    def ended(self, path: str | int, seconds: float = 30) -> dict[str, Any]:
        """The description of a job (its id) or of anything (its path) once it has ended."""
        path, deadline = path if isinstance(path, str) else f"/jobs/{path}", time.monotonic() + seconds
        while True:
            described: dict[str, Any] = self("GET", path).json()[0]
            if described["status"] in ENDED:
                return described
            assert time.monotonic() < deadline, described
            time.sleep(0.02)

    def stdout(self, job: int) -> str:
        return self("GET", f"/jobs/{job}/stdout").content.decode()
