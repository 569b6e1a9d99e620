"""Looks into `docker save` archives as a runtime does."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path


def layer_of(archive: Path, tag: str) -> dict[str, tarfile.TarInfo]:
    """The members of the layer of a docker-save archive, whose digests are verified."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        assert manifest["RepoTags"] == [tag]
        config, (layer,) = read(manifest["Config"]), manifest["Layers"]
        assert hashlib.sha256(config).hexdigest() + ".json" == manifest["Config"]
        content = read(layer)
        assert json.loads(config)["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(content).hexdigest()]
        name, _, version = tag.partition(":")
        assert json.loads(read("repositories")) == {name: {version: os.path.dirname(layer)}}
        with tarfile.open(fileobj=io.BytesIO(content)) as inner:
            return {member.name: member for member in inner.getmembers()}


def unpack(archive: Path, tree: Path) -> None:
    """Unpack the one layer of an archive."""
    with tarfile.open(archive) as tar:
        (name,) = [name for name in tar.getnames() if name.endswith("/layer.tar")]
        content = tar.extractfile(name)
        assert content is not None
        tree.mkdir()
        subprocess.run(["tar", "-x", "-C", str(tree)], input=content.read(), check=True)
