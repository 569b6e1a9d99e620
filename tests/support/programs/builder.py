"""Stands in for podman, docker and apptainer, under whose name it is called: their command lines, as documented.

It knows the options that are used of each, and refuses others. What an image's script does is done for real, in a
folder that stands for the image, by stand-ins for apt-get and pip which say how they were called.

    builder.py FOLDER NAME ARGUMENTS...     what was done is told in FOLDER/log, images are files in FOLDER/images
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]
IMAGES = FOLDER / "images"
STUB = """#!/bin/sh
echo "{name} $*" >> '{folder}/steps'
[ -z "$PIP_CONFIG_FILE" ] || cat "$PIP_CONFIG_FILE" >> '{folder}/configuration'
[ "$2" = check.py ] && exec '{python}' "$@"
exit 0
"""


def tell(**facts: object) -> None:
    with open(FOLDER / "log", "a") as log:
        log.write(json.dumps({"program": NAME, **facts}) + "\n")


def prepare(context: Path, command: str, secret: Path | None = None) -> None:
    """Run the image's command on a copy of the context; its root is a folder."""
    root = FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(context, root / "prominence-build")
    script = root / "prominence-build" / "prepare.sh"
    script.write_text(
        script.read_text().replace("/prominence-build", f"{root}/prominence-build").replace("/var", "/gone")
    )
    (root / "bin").mkdir()
    for name in ("python3", "apt-get"):
        program = root / "bin" / name
        program.write_text(STUB.format(name=name, folder=FOLDER, python=sys.executable))
        program.chmod(0o755)
    command = command.replace("/prominence-build", f"{root}/prominence-build")
    if secret is not None:
        command = command.replace("/run/secrets/pip", str(secret))
    shutil.copyfile(root / "prominence-build" / "requirements.txt", FOLDER / "requirements")
    done = subprocess.run(["sh", "-c", command], env={"PATH": f"{root}/bin:/usr/bin:/bin"}, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if (root / "prominence-build").exists():
        sys.exit("the context is left in the image")


def build(words: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--secret")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--pull", action="store_true")
    if NAME == "podman":
        parser.add_argument("--layers", required=True, choices=["false"])  # else it leaves images without names
    parser.add_argument("context", type=Path)
    given = parser.parse_args(words)
    lines = given.file.read_text().splitlines()
    tell(verb="build", lines=lines, arguments=given.build_arg, words=words)
    match = re.fullmatch(r"RUN (--mount=type=secret,id=pip,target=/run/secrets/pip )?(.*)", lines[2])
    if match is None or lines[1] != "COPY . /prominence-build/":
        sys.exit("this is no such Containerfile")
    secret = Path(given.secret.removeprefix("id=pip,src=")) if given.secret else None
    prepare(given.context, match[2], secret)
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / given.tag.replace("/", "+")).touch()


def save(words: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    if NAME == "podman":
        parser.add_argument("--format", required=True, choices=["docker-archive"])
    parser.add_argument("--output", required=True)
    parser.add_argument("image")
    given = parser.parse_args(words)
    if not (IMAGES / given.image.replace("/", "+")).exists():
        sys.exit("no such image")
    with tarfile.open(given.output, "w") as archive:
        write_image(archive, given.image)


def write_image(archive: tarfile.TarFile, name: str) -> None:
    """Write an image of two layers as podman does, with links, or as Docker of today does, with one compressed."""
    layers = []
    for content in (b"one", b"two"):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as tar:
            add(tar, content.decode(), content)
        layers.append(written.getvalue())
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    config = json.dumps({"config": {"Cmd": ["python3"]}, "rootfs": rootfs}).encode()
    places = [f"{digest}.tar" if NAME == "podman" else f"blobs/sha256/{digest}" for digest in digests]
    for place, layer in zip(places, layers, strict=True):
        add(archive, place, gzip.compress(layer) if NAME == "docker" and layer is layers[0] else layer)
    if NAME == "podman":
        link = tarfile.TarInfo("0123/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{places[1]}"
        archive.addfile(link)
    add(archive, "config.json", config)
    add(
        archive, "manifest.json", json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": places}]).encode()
    )


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def build_sif(words: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("image", type=Path)
    parser.add_argument("spec")
    given = parser.parse_args(words)
    tell(verb="build", words=words)
    if given.spec.startswith("docker-archive://"):
        given.image.write_bytes(b"sif of " + Path(given.spec.removeprefix("docker-archive://")).read_bytes())
        return
    text = Path(given.spec).read_text()
    match = re.search(r"%files\n    (\S+) /prominence-build\n\n%post\n    (.*)\n", text)
    if match is None or not text.startswith("Bootstrap: docker\nFrom: "):
        sys.exit("this is no such definition")
    prepare(Path(match[1]), match[2])
    given.image.write_text(text)


def main() -> None:
    verb, *words = sys.argv[3:]
    if verb in ("info", "version") or words == ["--help"]:
        sys.exit(os.environ.get("NOT_READY" if words != ["--help"] else "NO_BUILDX") or 0)
    if verb == "rmi":
        os.unlink(IMAGES / words[0].replace("/", "+"))
    elif verb == "save":
        save(words)
    elif verb == "build":
        (build_sif if NAME == "apptainer" else build)(words)
    else:
        sys.exit(f"{NAME} has no command {verb}")


main()
