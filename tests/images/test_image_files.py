"""Image files: which names mean one, what their objects are called, and how they are uploaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prominence_executor.client import ProminenceClient
from prominence_executor.errors import TransferError
from prominence_executor.images.files import (
    PREFIX,
    image_file,
    is_local,
    missing_object,
    object_name,
    push,
    resolved,
    shown,
    upload,
)
from prominence_executor.local import LocalService


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "some.tar"
    path.write_bytes(os.urandom(100_000))
    return path


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def name_of(path: Path, ending: str = "") -> str:
    return f"pximage-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}{ending or path.suffix}"


def stored(client: ProminenceClient) -> dict[str, int]:
    return {item["name"]: item["size"] for item in client.list_data() if item["name"].startswith(PREFIX)}


@pytest.mark.parametrize(
    "name",
    [
        "python:3.11-slim",
        "docker.io/library/python:3.11",
        "https://host/x.sif",
        "my.sif",
        "/cvmfs/a/b",
        "no/such/file.tar",
    ],
)
def test_names_are_left_as_they_are(name: str) -> None:
    assert resolved(name) == name
    assert not is_local(resolved(name))


def test_files_become_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "below" / "my.sif"
    path.parent.mkdir()
    path.touch()
    for given in (path, Path("below/my.sif"), "./below/my.sif", "~/below/my.sif", "below/my.sif", str(path)):
        assert resolved(given) == str(path)
        assert is_local(resolved(given))


@pytest.mark.parametrize("given", ["./no.tar", "../no.tar", "~/no.tar", "/no.tar", Path("no.tar"), Path("/tmp")])
def test_a_file_that_is_not_there_is_an_error(given: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image: there is no file /"):
        resolved(given)


def test_a_file_that_does_not_end_as_images_do_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.zip").touch()
    with pytest.raises(ValueError, match=r"\.tar.*image\.zip"):
        resolved(tmp_path / "image.zip")


@pytest.mark.parametrize(("file", "ending"), [("a.tar", ".tar"), ("a.tgz", ".tgz"), ("a.tar.gz", ".tgz"), ("a", "")])
def test_an_object_is_named_by_content_with_an_ending_that_runtimes_know(
    tmp_path: Path, file: str, ending: str
) -> None:
    path = tmp_path / (file if ending else "a.sif")
    path.write_bytes(os.urandom(100))
    name = object_name(image_file(str(path)))
    assert name == name_of(path, ending or ".sif")
    assert shown(name) == f"{path} ({name})"
    assert shown("python:3") == "python:3"


def test_an_image_is_pushed_once_by_content(client: ProminenceClient, image: Path, tmp_path: Path) -> None:
    assert push(client, image) == name_of(image)
    before = client.requests_sent["PUT upload"] + client.requests_sent["POST upload"]
    (tmp_path / "copy.tar").write_bytes(image.read_bytes())
    assert push(client, tmp_path / "copy.tar") == name_of(image)
    assert client.requests_sent["PUT upload"] + client.requests_sent["POST upload"] == before
    assert stored(client)[name_of(image)] == 100_000
    client.delete_data(name_of(image))


def test_a_name_of_ones_own_is_uploaded_in_any_case(client: ProminenceClient, image: Path) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        seen.clear()
        assert push(client, image, "mine.tar", lambda sent, size: seen.append((sent, size))) == "mine.tar"
        assert seen[-1] == (100_000, 100_000)
    client.delete_data("mine.tar")
    for name in ("mine", "../mine.tar", "-x.tar", "a b.tar"):
        with pytest.raises(ValueError, match=r"name must be letters.*\.tar"):
            push(client, image, name)


def test_a_file_that_is_changed_while_it_is_uploaded_is_not_left_at_the_service(
    client: ProminenceClient, image: Path
) -> None:
    file = image_file(str(image))
    name = object_name(file)
    with pytest.raises(TransferError, match="was changed while it was uploaded"):
        upload(client, file, name, lambda sent, size: os.utime(image, (1, 1)))
    assert name not in stored(client)


def test_the_service_names_the_object_that_it_has_no_longer() -> None:
    assert missing_object("Image pximage-00ff.tar does not exist") == "pximage-00ff.tar"
    assert missing_object("Image other.tar does not exist") is None
