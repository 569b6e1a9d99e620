"""The files of a job: inputs, artifacts, outputs and images, and the sentences that refuse them.

Whether an uploaded object is there is asked of the caller; nothing here looks at files.
"""

from __future__ import annotations

import base64
import binascii
import glob
import urllib.parse
from collections.abc import Callable
from typing import Any

from .bounds import LONGEST_NAME, LONGEST_PATH, MOST_FILES, MOST_PATTERNS
from .items import Refused, shown
from .parameters import substituted

_LONGEST_OUTPUT = 240  # bytes; one that is a directory gets an ending
WORKERS_OWN_NAMES = {"logs", "json", "promlet.py", ".job.json"}


def check_inputs(inputs: Any) -> None:
    """Refuse inputs that cannot be placed."""
    if not isinstance(inputs, list):
        raise Refused("an array of inputs must be provided")
    if len(inputs) > MOST_FILES:
        raise Refused(f"a job may have at most {MOST_FILES} inputs")
    for item in inputs:
        if not isinstance(item, dict):
            raise Refused("each input must be defined as a dict")
        for key in item:
            if key not in ("filename", "content", "executable"):
                raise Refused(f"invalid item {shown(key)} in input")
        if "filename" not in item:
            raise Refused("each input must contain a filename")
        if "content" not in item:
            raise Refused("each input must contain base64 encoded content")
        _check_input_name(item["filename"])
        _check_executable(item)
        decoded(item)


def decoded(item: dict[str, Any]) -> bytes:
    """Return an input's content. Raises Refused."""
    try:
        return base64.b64decode(item["content"])
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refused(f'content of input "{shown(item["filename"])}" is not valid base64') from error


def _check_executable(item: dict[str, Any]) -> None:
    if not isinstance(item.get("executable", False), bool):
        raise Refused("executable must be either true or false")


def _check_input_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise Refused("the filename of an input must be a string")
    base = name.rsplit("/", 1)[-1]
    if name.startswith("/") or ".." in name.split("/") or base in ("", ".") or "\0" in name:
        raise Refused(f'input filename "{shown(name)}" leaves the job\'s directory')
    if "," in name:
        raise Refused(f'input filename "{shown(name)}" must not contain a comma')
    if base in WORKERS_OWN_NAMES:
        raise Refused(f'input filename "{shown(name)}" is one of the worker\'s own')
    if len(base.encode()) > LONGEST_NAME or len(name.encode()) >= LONGEST_PATH:
        raise Refused("the filename of an input must be shorter")


def check_artifacts(artifacts: Any) -> None:
    """Refuse artifacts that cannot be had or mounted."""
    if not isinstance(artifacts, list):
        raise Refused("an array of artifacts must be provided")
    if len(artifacts) > MOST_FILES:
        raise Refused(f"a job may have at most {MOST_FILES} artifacts")
    for item in artifacts:
        if not isinstance(item, dict):
            raise Refused("each artifact must be defined as a dict")
        for key in item:
            if key not in ("url", "mountpoint", "executable"):
                raise Refused(f"invalid item {shown(key)} in artifact")
        _check_url(item.get("url"))
        _check_executable(item)
        mountpoint = item.get("mountpoint", "a:/home/user/a")
        if not isinstance(mountpoint, str) or mountpoint.count(":") != 1 or not all(mountpoint.split(":")):
            raise Refused("invalid mountpoint for artifact")
        # A comma would make a second one, for a container's runtime.
        if "," in mountpoint or "\0" in mountpoint or len(mountpoint.encode()) >= LONGEST_PATH:
            raise Refused("invalid mountpoint for artifact")
        source, target = mountpoint.split(":")
        if source.startswith("/") or ".." in source.split("/") or ".." in target.split("/"):
            raise Refused("invalid mountpoint for artifact")


def _check_url(url: Any) -> None:
    if not isinstance(url, str) or not url:
        raise Refused("an artifact must contain a URL")
    if "\0" in url or len(url.encode()) >= LONGEST_PATH:
        raise Refused(f"the URL of an artifact must be less than {LONGEST_PATH} bytes in length")
    try:
        # The port is read when it is asked for.
        _ = urllib.parse.urlsplit(url).port if "://" in url and "$" not in url else None
    except ValueError as error:
        raise Refused(f'"{shown(url)}" is not the URL of an artifact: {error}') from error


def check_outputs(item: str, names: Any) -> None:
    """Refuse names that no output can have."""
    if not isinstance(names, list):
        raise Refused(f"an array of {item} must be provided")
    if len(names) > MOST_FILES:
        raise Refused(f"a job may have at most {MOST_FILES} {item}")
    for name in names:
        if not isinstance(name, str):
            raise Refused(f"{item} must be a list of strings")
        base = name.rstrip("/").rsplit("/", 1)[-1]
        if base in ("", ".", "..") or "\0" in name or not fits(name):
            raise Refused(f'"{shown(name)}" cannot be the name of an output')
        if sum(map(glob.has_magic, name.split("/"))) > MOST_PATTERNS:
            raise Refused(f'"{shown(name)}" has more than {MOST_PATTERNS} patterns')


def fits(name: str, more: int = 0) -> bool:
    """Return whether an output can be found and kept under a name that becomes so many bytes longer."""
    base = name.rstrip("/").rsplit("/", 1)[-1]
    return len(base.encode()) + more <= _LONGEST_OUTPUT and len(name.encode()) + more < LONGEST_PATH


def check_mounts(job: dict[str, Any]) -> None:
    """Refuse what only a container can have, where tasks are plain processes."""
    for item in job.get("artifacts", []):
        target = item.get("mountpoint", "a:/home/user/a").split(":")[1]
        if not target.startswith(("/home/user/", "/tmp/")):  # noqa: S108
            raise Refused(
                "tasks of this service are plain processes: an artifact can be mounted in /home/user or /tmp only"
            )


def check_objects(job: dict[str, Any], exists: Callable[[str], bool], values: dict[str, str] | None = None) -> None:
    """Refuse names of artifacts and images that should be uploaded objects and are not."""
    for item in job.get("artifacts", []):
        name = substituted(item["url"], values or {})
        if "://" not in name and not exists(name):
            raise Refused(f"Artifact {shown(name)} does not exist")
    for task in job["tasks"]:
        image = task["image"]
        if "://" not in image and image.endswith((".sif", ".tar", ".tgz")) and not exists(image):
            raise Refused(f"Image {shown(image)} does not exist")
