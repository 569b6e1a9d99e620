"""The one object that all jobs of an array share: the runner, and the calls, functions and modules of every job in it.

A zip application like the runner's archive, with more members (their names are those that remote/runner.py looks for):

    jobs/<position>.json    who the job at this position is, and which of the other members it needs
    calls/<position>        its calls' arguments
    functions/<SHA-256>     a pickled function with its initializer, once for all jobs that share it
    modules/<SHA-256>       an archive of the user's own modules, likewise, unless it is an object of its own
    files/<SHA-256>         a small file that the calls of all jobs are given

The run's key is not in it: that travels in the description of the jobs alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from .archive import runner_archive, zip_entry
from .blob import Blob
from .calls import Identity, Payload, calls_file


def array_archive(
    jobs: Iterable[tuple[Identity, Payload]],
    parts: Iterable[str] = (),
    files: Mapping[str, Iterable[bytes]] | None = None,
    apart: Mapping[str, str] | None = None,
    results: Mapping[str, Any] | None = None,
) -> Blob:
    """Pack the jobs of an array into its bundle, in the order of their positions.

    Args:
        parts: of the runner; see `runner_archive`.
        files: that all jobs are given, by their SHA-256.
        apart: names of the objects in which modules travel by themselves, by their SHA-256.
        results: what jobs are told of the results that they fetch, by their SHA-256.
    """
    file = io.BytesIO(runner_archive(*parts))
    digests: dict[int, str] = {}  # of a function that many jobs share, by its identity
    known: set[str] = set()
    with zipfile.ZipFile(file, "a") as archive:

        def add(name: str, content: Callable[[], bytes]) -> str:
            if name not in known:
                known.add(name)
                entry = zip_entry(name)
                entry.compress_type = zipfile.ZIP_STORED  # pickles are read by offset
                archive.writestr(entry, content())
            return name

        for sha256, content in (files or {}).items():
            add(f"files/{sha256}", partial(b"".join, content))
        for position, (identity, payload) in enumerate(jobs):
            function, modules = payload.function, payload.modules
            if id(function) not in digests:
                digests[id(function)] = function.sha256()
            calls = calls_file(payload, with_function=False)
            facts: dict[str, Any] = {
                "job": identity.job,
                "attempt": identity.attempt,
                "function": add(f"functions/{digests[id(function)]}", function.tobytes),
                "calls": {"name": add(f"calls/{position}", calls.tobytes)},
                "modules": [],
            }
            if modules and modules.sha256 in (apart or {}):
                facts["modules"] = [{"name": (apart or {})[modules.sha256], "sha256": modules.sha256}]
            elif modules:
                facts["modules"] = [{"name": add(f"modules/{modules.sha256}", partial(bytes, modules.content))}]
            if payload.results:
                facts["results"] = {item.sha256: (results or {})[item.sha256] for item in payload.results}
            add(f"jobs/{position}.json", json.dumps(facts).encode)
    return Blob([file.getvalue()])
