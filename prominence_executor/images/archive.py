"""From a directory tree, or from what podman and docker save, to an archive which docker, udocker and Apptainer load.

It is what ``docker save`` used to write, and what all of them understand: udocker finds no layers that are links, as
podman writes them. It reads a tree or an archive and writes one file; it runs nothing and knows nothing of Python or
Debian. The same tree gives the same bytes: members are sorted, and carry no times and no names of users.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..client.transfers import appearing_whole
from ..errors import ImageBuildError

_EPOCH = 315_532_800  # 1980-01-01: what any archive format can say
_BLOCK = 1 << 20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


def pack(
    tree: Path,
    output: Path,
    *,
    tag: str,
    env: Mapping[str, str],
    command: Sequence[str],
    scratch: Path,
    leave_out: Callable[[str], bool] = lambda name: False,
) -> None:
    """Write the archive; it appears at ``output`` when it is whole. Compressed if that ends in ``gz``.

    Args:
        tree: the root of the image's file system.
        output: the archive.
        tag: ``name:version``, under which ``docker load`` and ``udocker load`` know the image.
        env: the variables of its configuration.
        command: what a container runs when it is told nothing else.
        scratch: a directory for the layer while it is written.
        leave_out: of the paths below ``tree``, those that are not to be in it, with all below them.
    """
    layer = scratch / "layer.tar"
    diff = _write_layer(tree, layer, leave_out)
    config = _dump(_config(diff, env, command))
    _write(output, tag, config, [(diff, layer)], {"Cmd": list(command)})


def repack(saved: Path, output: Path, *, tag: str, scratch: Path) -> None:
    """Write what podman or docker has saved as such an archive, under this name; ``saved`` is removed.

    Raises:
        ImageBuildError: it is no archive of one image.
    """
    try:
        with tarfile.open(saved) as archive:
            (image,) = json.loads(_content(archive, "manifest.json").read())
            config = _content(archive, image["Config"]).read()
            known = json.loads(config)
            diffs = [digest.removeprefix("sha256:") for digest in known["rootfs"]["diff_ids"]]
            layers = [scratch / f"layer.{number}.tar" for number in range(len(diffs))]
            for name, layer in zip(image["Layers"], layers, strict=True):
                _extract(_content(archive, name), layer)
    except (ValueError, KeyError, TypeError, AttributeError, tarfile.TarError) as error:
        raise ImageBuildError(f"what was saved is no archive of one image: {type(error).__name__}: {error}") from error
    saved.unlink()
    _write(output, tag, config, list(zip(diffs, layers, strict=True)), known.get("config", {}))


def _content(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a member, or what it is a link to."""
    found = archive.extractfile(name)
    if found is None:
        raise tarfile.TarError(f"{name} is no file")
    return found


def _extract(content: IO[bytes], layer: Path) -> None:
    """Write a layer, as it is when it is not compressed: some stores keep it so."""
    is_compressed = content.read(2) == b"\x1f\x8b"
    content.seek(0)
    with open(layer, "wb") as file, gzip.GzipFile(fileobj=content) as opened:
        shutil.copyfileobj(opened if is_compressed else content, file, _BLOCK)


def _write(
    output: Path, tag: str, config: bytes, layers: Sequence[tuple[str, Path]], settings: Mapping[str, Any]
) -> None:
    """Write the archive of an image with these layers, each with the digest of its content."""
    name, _, version = tag.partition(":")
    image, place = hashlib.sha256(config).hexdigest(), ""
    members: list[tuple[str, bytes | Path]] = [(f"{image}.json", config)]
    places = []
    for number, (diff, layer) in enumerate(layers, 1):
        parent = {"parent": place} if place else {}
        place = hashlib.sha256((place + diff).encode()).hexdigest()
        legacy: dict[str, Any] = {"id": place, "created": _created(), "os": "linux", **parent}
        legacy |= {"config": settings} if number == len(layers) else {}
        members += [(f"{place}/VERSION", b"1.0"), (f"{place}/json", _dump(legacy)), (f"{place}/layer.tar", layer)]
        places.append(f"{place}/layer.tar")
    members += [
        ("manifest.json", _dump([{"Config": f"{image}.json", "RepoTags": [tag], "Layers": places}])),
        ("repositories", _dump({name: {version: place}})),
    ]
    with appearing_whole(os.fspath(output)) as file:
        if output.name.endswith("gz"):
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
                _write_members(compressed, members)  # type: ignore[arg-type]  # it writes bytes
        else:
            _write_members(file, members)


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _write_layer(tree: Path, layer: Path, leave_out: Callable[[str], bool]) -> str:
    """Write the layer and return its digest."""
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in _walk(tree, "", leave_out):
            info = tar.gettarinfo(tree / name, name)
            if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                continue  # sockets, and devices, which an ordinary user could not unpack
            info.mtime, info.uname, info.gname = _EPOCH, "", ""
            if info.isreg():
                with open(tree / name, "rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return sha256_of_file(layer)


def _walk(tree: Path, below: str, leave_out: Callable[[str], bool]) -> Iterator[str]:
    """List the names in a tree, sorted, each directory before what is in it; symbolic links are not followed."""
    with os.scandir(tree / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if not leave_out(name):
            yield name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(tree, name, leave_out)


def _write_members(file: IO[bytes], members: Sequence[tuple[str, bytes | Path]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        directories: set[str] = set()
        for name, content in members:
            directory = os.path.dirname(name)
            if directory and directory not in directories:
                directories.add(directory)
                tar.addfile(_member(directory, 0o755, tarfile.DIRTYPE))
            info = _member(name, 0o644, tarfile.REGTYPE)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.size = content.stat().st_size
                with open(content, "rb") as source:
                    tar.addfile(info, source)


def _member(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.mtime = mode, kind, _EPOCH
    return info


def _config(diff: str, env: Mapping[str, str], command: Sequence[str]) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": _created(),
        "config": {"Cmd": list(command), "Env": [f"{name}={value}" for name, value in env.items()]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created": _created(), "created_by": "prominence-executor image build"}],
    }


def _created() -> str:
    return "1980-01-01T00:00:00Z"


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
