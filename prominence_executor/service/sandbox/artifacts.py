"""Artifacts into a sandbox before a job's tasks: downloads and uploaded objects, unpacked, and mounted.

Names here come from users and archives from anywhere: nothing is written outside the sandbox, whatever names, links and
archive members say. It is imported for jobs that have artifacts: what it needs is a third of a program's start.
"""

from __future__ import annotations

import re
import urllib.parse
from http.client import HTTPException
from typing import Any

from ..schema.parameters import substituted
from ..state.objects import ObjectStore
from ..state.shortage import shortage
from .archives import BROKEN, Budget, OverBudget, Stopped, receive_copy, unpack
from .downloads import open_url, receive
from .sandbox import Sandbox
from .staging import upload_key

# What separates paths, or quotes, on the command lines of container runtimes.
_UNBINDABLE = re.compile(r'[,:\\"\x00-\x1f]')


class StageInFailed(Exception):
    """An artifact could not be had, or not be unpacked; the text says why if the service itself refused it."""


def place_artifacts(
    sandbox: Sandbox,
    objects: ObjectStore,
    user: str,
    artifacts: list[dict[str, Any]],
    values: dict[str, str],
    budget: Budget,
) -> None:
    """Place artifacts in HOME by base name, archives unpacked. Raises StageInFailed, also when it is to stop."""
    for item in artifacts:
        url = substituted(item["url"], values)
        try:
            path = sandbox.home / _base_name(url)
            if "://" in url:
                with open_url(url) as response:
                    receive(response, path, budget)
            else:
                receive_copy(objects.path(upload_key(user, url)), path, budget)
            path.chmod(0o775 if item.get("executable") else 0o644)
            unpack(path, sandbox.home, budget)
            _mount(sandbox, item.get("mountpoint"), values)
        except OverBudget as error:
            raise StageInFailed(f"artifact {url}: {error}") from error
        except (*BROKEN, HTTPException, Stopped) as error:
            short = shortage(error)
            raise StageInFailed(f"artifact {url}: {short}" if short else "") from error


def _base_name(url: str) -> str:
    """Return under which name an artifact is placed. Raises ValueError."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path) if "://" in url else url
    base = name.rsplit("/", 1)[-1]
    if base in ("", ".", "..") or "\0" in base:
        raise ValueError(f"{url} names no file")
    return base


def _mount(sandbox: Sandbox, mountpoint: str | None, values: dict[str, str]) -> None:
    """Make a mountpoint: a container's own, or a link inside HOME or /tmp, as plain processes have no mounts."""
    if mountpoint is None:
        return
    source, target = substituted(mountpoint, values).split(":")
    real, link = sandbox.resolved(source), sandbox.inside(target)
    if real is None:
        raise ValueError("nothing to mount")
    if sandbox.mounts is not None:
        # What the path leads to may be called as an archive's member was.
        if _UNBINDABLE.search(str(real)) or _UNBINDABLE.search(target) or ".." in target.split("/"):
            raise ValueError("not to be mounted")
        sandbox.mounts.append((real, target if target.startswith("/") else f"/home/user/{target}"))
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    if sandbox.resolved(link.parent) is None or ".." in link.parts:
        raise ValueError("outside")
    if link != real:
        link.symlink_to(real)
