"""Tiny wheels, and an index that serves them on 127.0.0.1, with a password if it is to have one."""

from __future__ import annotations

import base64
import hashlib
import html
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path

USER, PASSWORD = "reader", "s3cret-p4ss"


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    requires: Iterable[str] = (),
    tag: str = "py3-none-any",
) -> Path:
    """Make a wheel: a package of its name that has ``VERSION``, and other files."""
    content = {f"{name}/__init__.py": f"VERSION = {version!r}\n".encode(), **(files or {})}
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {item}\n" for item in requires)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    return write(folder / f"{name}-{version}-{tag}.whl", info, content)


def wheel_of_installed(folder: Path, name: str) -> Path:
    """Make the wheel again from which a package of this Python was installed."""
    found = distribution(name)
    version, tag = found.version, "py3-none-any"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    content: dict[str, bytes] = {}
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            content[file.as_posix()] = Path(str(file.locate())).read_bytes()
    for line in content[f"{info}/WHEEL"].decode().splitlines():
        if line.startswith("Tag: "):
            tag = line.removeprefix("Tag: ")
    return write(folder / f"{name.replace('-', '_')}-{version}-{tag}.whl", info, content)


def only_these(folder: Path) -> dict[str, str]:
    """Return the variables with which uv and pip take packages from a folder alone."""
    configuration = folder / "uv.toml"
    configuration.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    return {
        "UV_CONFIG_FILE": str(configuration), "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder),
    }  # fmt: skip


def write(path: Path, info: str, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in content.items() if "RECORD" not in name)
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@contextmanager
def index(folder: Path, *, private: bool = False) -> Iterator[str]:
    """Serve the wheels and source archives of a folder as a package index does; yield its address."""
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if private and self.headers.get("Authorization") != wanted:
                self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="wheels"'})
                return
            parts = [part for part in self.path.split("/") if part]
            if parts[:1] == ["files"] and (folder / parts[1]).is_file():
                self._answer(200, (folder / parts[1]).read_bytes(), {})
                return
            names = [path.name for path in sorted(folder.iterdir()) if path.name.startswith(f"{parts[-1]}-")]
            links = "".join(
                f'<a href="/files/{html.escape(name)}#sha256={self._sha256(name)}">{name}</a>' for name in names
            )
            self._answer(200 if names else 404, links.encode(), {"Content-Type": "text/html"})

        do_HEAD = do_GET

        def _sha256(self, name: str) -> str:
            return hashlib.sha256((folder / name).read_bytes()).hexdigest()

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        user = f"{USER}:{PASSWORD}@" if private else ""
        yield f"http://{user}127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
