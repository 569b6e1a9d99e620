"""How options are written down, so that another program can send a call as the first would have: as plain values."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from ..client.model import JobPolicies, Resources
from ..environments.locks import lock_from
from ..payload.files import FileSource
from . import retry
from .options import Options


def plain_options(options: Options) -> dict[str, object]:
    """Return options as values that JSON can hold."""
    return {
        **{name: getattr(options, name) for name in ("image", "runtime")},
        "retries": retry.plain(options.retries),
        **({} if options.time_limit is None else {"time_limit": options.time_limit}),
        "resources": asdict(options.resources),
        "policies": None if options.policies is None else asdict(options.policies),
        "labels": dict(options.labels),
        "env": dict(options.env),
        "files": {name: _plain_file(source) for name, source in options.files.items()},
        **{name: getattr(options, name) for name in ("outputs", "outputs_dir", "task_type", "procs_per_node")},
        **_plain_requirements(options),
    }


def options_from(plain: dict[str, Any]) -> Options:
    """Invert `plain_options`."""
    resources, policies, usual = plain.pop("resources"), plain.pop("policies"), Resources()
    if "requirements" in plain:
        plain["requirements"] = lock_from(plain["requirements"], "the lock in the journal")
    files = {name: _file(source) for name, source in plain.pop("files", {}).items()}
    retries = retry.from_plain(plain.pop("retries", 0))
    return Options(
        # A default that nobody chose is one again, so that it gives way to what excludes it.
        resources=Resources(**{name: value for name, value in resources.items() if value != getattr(usual, name)}),
        policies=None if policies is None else JobPolicies(**policies),
        files=files,
        retries=retries,
        outputs=tuple(plain.pop("outputs", ())),
        **plain,
    )


def _plain_requirements(options: Options) -> dict[str, object]:
    if options.requirements is None:  # else older versions could not read it, and there is no need
        return {}
    return {"requirements": options.requirements.plain(), "requirements_limit": options.requirements_limit}


def _plain_file(source: FileSource) -> dict[str, object]:
    if source.content is not None:
        return {"size": source.size, "content": base64.b64encode(source.content).decode()}
    return {"path": source.path, "size": source.size, "mtime_ns": source.mtime_ns}


def _file(plain: dict[str, Any]) -> FileSource:
    if "content" in plain:
        plain["content"] = base64.b64decode(plain["content"])
    return FileSource(**plain)
