"""The files of a job: inputs, artifacts, outputs and images, and the sentences that refuse them.

Whether an uploaded object is there is asked of the caller; nothing here looks at files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from .items import Refused
from .parameters import substituted

WORKERS_OWN_NAMES = {"logs", "json", "promlet.py", ".job.json"}


def check_inputs(inputs: Any) -> None:
    """Refuse inputs that cannot be placed."""
    if not isinstance(inputs, list):
        raise Refused("an array of inputs must be provided")
    for item in inputs:
        if not isinstance(item, dict):
            raise Refused("each input must be defined as a dict")
        for key in item:
            if key not in ("filename", "content", "executable"):
                raise Refused(f"invalid item {key} in input")
        if "filename" not in item:
            raise Refused("each input must contain a filename")
        if "content" not in item:
            raise Refused("each input must contain base64 encoded content")
        _check_input_name(item["filename"])
        decoded(item)


def decoded(item: dict[str, Any]) -> bytes:
    """Return an input's content. Raises Refused."""
    try:
        return base64.b64decode(item["content"])
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refused(f'content of input "{item["filename"]}" is not valid base64') from error


def _check_input_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise Refused("the filename of an input must be a string")
    base = name.rsplit("/", 1)[-1]
    if name.startswith("/") or ".." in name.split("/") or base in ("", ".") or "\0" in name:
        raise Refused(f'input filename "{name}" leaves the job\'s directory')
    if "," in name:
        raise Refused(f'input filename "{name}" must not contain a comma')
    if base in WORKERS_OWN_NAMES:
        raise Refused(f'input filename "{name}" is one of the worker\'s own')
    if len(base.encode()) > 255:
        raise Refused("the filename of an input must be shorter")


def check_artifacts(artifacts: Any) -> None:
    """Refuse artifacts that cannot be had or mounted."""
    if not isinstance(artifacts, list):
        raise Refused("an array of artifacts must be provided")
    for item in artifacts:
        if not isinstance(item, dict):
            raise Refused("each artifact must be defined as a dict")
        for key in item:
            if key not in ("url", "mountpoint", "executable"):
                raise Refused(f"invalid item {key} in artifact")
        if not isinstance(item.get("url"), str) or not item["url"]:
            raise Refused("an artifact must contain a URL")
        mountpoint = item.get("mountpoint", "a:/home/user/a")
        if not isinstance(mountpoint, str) or mountpoint.count(":") != 1 or not all(mountpoint.split(":")):
            raise Refused("invalid mountpoint for artifact")
        if "," in mountpoint:  # a second one, for a container's runtime
            raise Refused("invalid mountpoint for artifact")
        source, target = mountpoint.split(":")
        if source.startswith("/") or ".." in source.split("/") or ".." in target.split("/"):
            raise Refused("invalid mountpoint for artifact")


def check_outputs(item: str, names: Any) -> None:
    """Refuse names that no output can have."""
    if not isinstance(names, list):
        raise Refused(f"an array of {item} must be provided")
    for name in names:
        if not isinstance(name, str):
            raise Refused(f"{item} must be a list of strings")
        base = name.rstrip("/").rsplit("/", 1)[-1]
        if base in ("", ".", "..") or "\0" in name or len(base.encode()) > 240:
            raise Refused(f'"{name}" cannot be the name of an output')


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
            raise Refused(f"Artifact {name} does not exist")
    for task in job["tasks"]:
        image = task["image"]
        if "://" not in image and image.endswith((".sif", ".tar", ".tgz")) and not exists(image):
            raise Refused(f"Image {image} does not exist")
