"""The one object that all jobs of an array share: the runner, and the calls, functions and modules of every job in it.

A line that says which format it is, one in JSON with the names of its members and their sizes in bytes, and behind it
one after the other (the names are those that remote/runner.py looks for):

    runner                  what `runner_data` returns
    jobs/<position>.json    who the job at this position is, and which of the other members it needs
    calls/<position>        its calls' arguments
    functions/<SHA-256>     a pickled function with its initializer, once for all jobs that share it
    modules/<SHA-256>       an archive of the user's own modules, likewise, unless it is an object of its own
    files/<SHA-256>         a small file that the calls of all jobs are given

The run's key is not in it: that travels in the description of the jobs alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..remote.wire import BUNDLE_MAGIC
from .archive import runner_data
from .blob import Blob
from .calls import Identity, Payload, calls_file


def array_bundle(
    jobs: Iterable[tuple[Identity, Payload]],
    parts: Iterable[str] = (),
    files: Mapping[str, Iterable[bytes]] | None = None,
    apart: Mapping[str, str] | None = None,
    results: Mapping[str, Any] | None = None,
) -> tuple[Blob, int, int]:
    """Pack the jobs of an array into its bundle, in the order of their positions; return it, and where the runner lies.

    Args:
        parts: of the runner; see `runner_data`.
        files: that all jobs are given, by their SHA-256.
        apart: names of the objects in which modules travel by themselves, by their SHA-256.
        results: what jobs are told of the results that they fetch, by their SHA-256.
    """
    runner = runner_data(*parts)
    members: dict[str, Blob] = {"runner": Blob([runner])}
    digests: dict[int, str] = {}  # of a function that many jobs share, by its identity
    for sha256, content in (files or {}).items():
        members[f"files/{sha256}"] = Blob(list(content))
    for position, (identity, payload) in enumerate(jobs):
        function, modules = payload.function, payload.modules
        if id(function) not in digests:
            digests[id(function)] = function.sha256()
        name = f"functions/{digests[id(function)]}"
        members.setdefault(name, function)
        members[f"calls/{position}"] = calls_file(payload, with_function=False)
        facts: dict[str, Any] = {
            "job": identity.job,
            "attempt": identity.attempt,
            "function": name,
            "calls": {"name": f"calls/{position}"},
            "modules": [],
        }
        if modules and modules.sha256 in (apart or {}):
            facts["modules"] = [{"name": (apart or {})[modules.sha256], "sha256": modules.sha256}]
        elif modules:
            facts["modules"] = [{"name": f"modules/{modules.sha256}"}]
            if f"modules/{modules.sha256}" not in members:
                members[f"modules/{modules.sha256}"] = Blob([bytes(modules.content)])
        if payload.results:
            facts["results"] = {item.sha256: (results or {})[item.sha256] for item in payload.results}
        members[f"jobs/{position}.json"] = Blob([json.dumps(facts).encode()])
    index = {"members": {name: blob.size for name, blob in members.items()}}
    whole = Blob([BUNDLE_MAGIC, json.dumps(index).encode() + b"\n"])
    start = whole.size
    for blob in members.values():
        for piece in blob:
            whole.write(piece)
    return whole, start, len(runner)
