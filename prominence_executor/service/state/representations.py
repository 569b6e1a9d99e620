"""Rows turned into the JSON that the service answers: the short form of lists, the detailed form of describe.

Reads nothing but what it is given; signs output URLs afresh each time, as the service does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..schema.parameters import as_texts, substituted

if TYPE_CHECKING:
    import sqlite3


def events(row: sqlite3.Row) -> dict[str, int]:
    """Return the times of a job or workflow, in whole seconds."""
    named = (("createTime", row["created"]), ("endTime", row["ended"]), ("startTime", row["started"]))
    return {name: int(value) for name, value in named if value is not None}


def short(row: sqlite3.Row) -> str:
    """Return one job of a list, as JSON text: thousands are listed at a time, so tasks are passed on unparsed."""
    parameters = "" if row["parameters"] is None else f', "parameters": {row["parameters"]}'
    reason = f', "statusReason": {json.dumps(row["reason"])}' if row["reason"] else ""
    return (
        f'{{"events": {json.dumps(events(row))}, "id": {row["id"]}, "name": {json.dumps(row["name"])}{parameters}, '
        f'"status": "{row["status"]}"{reason}, "tasks": {row["tasks"]}}}'
    )


def short_list(rows: Iterable[sqlite3.Row]) -> str:
    """Return many jobs as JSON text."""
    return "[" + ", ".join(map(short, rows)) + "]\n"


def parameter_texts(row: sqlite3.Row) -> dict[str, str]:
    """Return a factory's parameters of one instance as they are substituted."""
    return as_texts(json.loads(row["parameters"] or "{}"))


def stored_name(declared: str, directory: bool = False) -> str:
    """Return under which name an output is kept: its base name, with .tgz for a directory."""
    return declared.rstrip("/").rsplit("/", 1)[-1] + (".tgz" if directory else "")


def execution(row: sqlite3.Row, body: dict[str, Any], site: str) -> dict[str, Any]:
    """Return what is told of a job's run, at a place of that name."""
    shown: dict[str, Any] = {"runtimeVersion": {}}
    if row["started"] is not None:
        asked = body["resources"]
        shown["site"] = site
        shown["provisionedResources"] = {
            "cpus": row["cpus"], "disk": asked["disk"], "memory": row["memory"], "nodes": row["nodes"],
        }  # fmt: skip
    if row["retries"]:
        shown["retries"] = row["retries"]
    shown.update(json.loads(row["execution"]))
    return dict(sorted(shown.items()))


def detailed(row: sqlite3.Row, body: dict[str, Any], url_of: Callable[[str], str], site: str) -> dict[str, Any]:
    """Return one job as GET /jobs/n answers it. `url_of` signs the key of an output."""
    job = {**body, "name": row["name"]}
    job.update(events=events(row), execution=execution(row, body, site), id=row["id"], status=row["status"])
    if row["reason"]:
        job["statusReason"] = row["reason"]
    if row["parameters"] is not None:
        job["parameters"] = json.loads(row["parameters"])
    uploaded, values = json.loads(row["outputs"]), parameter_texts(row)
    for item in ("outputFiles", "outputDirs"):
        if item in job:
            names = [(name, stored_name(substituted(name, values), item == "outputDirs")) for name in job[item]]
            # Uploaded outputs are told by declared name: of two with one base name, each has its own size.
            job[item] = [
                _output(name, uploaded.get(item, {}).get(name), f"scratch/{row['place']}/{stored}", url_of)
                for name, stored in names
            ]
    return dict(sorted(job.items()))


def _output(name: str, size: int | None, key: str, url_of: Callable[[str], str]) -> dict[str, Any]:
    if size is None:
        return {"name": name, "url": ""}
    return {"name": name, **({"size": size} if size else {}), "url": url_of(key)}
