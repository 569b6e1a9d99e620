"""Verified outcomes to results and exceptions.

Nothing is unpickled here before its digest has been compared with the signed one. Somebody else's code runs (imports,
``__setstate__``, constructors): whatever it raises becomes the call's exception, never this program's.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from ..errors import RemotePicklingError
from ..public import public
from .exceptions import rebuild_links
from .loading import load_outcome, loads_out_of_band
from .outcomes import Outcome, read_body


def unpack(file: BinaryIO, outcome: Outcome, where: str) -> tuple[bool, Any]:
    """Unpickle a call's outcome: ``(True, result)`` or ``(False, exception)``.

    ``where`` names the job for messages. Whatever unpickling raises becomes a `RemotePicklingError`.

    Raises:
        SignatureError: the body is not the one that was signed.
    """
    header = outcome.header
    if outcome.kind == "unpicklable":
        sentence = f"the result of type {header['type']} could not be pickled {where}: {header['error']}"
        return False, RemotePicklingError(f"{sentence}\n{header['traceback']}".rstrip())
    if outcome.kind == "noroom":
        return False, RemotePicklingError(f"the outcome could not be written {where}: {header['error']}")
    body = read_body(file, outcome)
    if outcome.kind not in ("result", "ranks"):
        return False, _rebuild_exception(load_outcome(file), header, where)
    try:
        if body is not None and outcome.kind == "ranks":
            return True, _of_ranks(body, header["ranks"])
        return True, load_outcome(file) if body is None else loads_out_of_band(body, header)
    except BaseException as error:  # noqa: BLE001  __setstate__ and imports are somebody else's code
        problem = RemotePicklingError(
            f"the result, computed {where}, cannot be unpickled on this side: {type(error).__name__}: {error}"
        )
        problem.__cause__ = error
        return False, problem


def _of_ranks(body: memoryview, ranks: list[dict[str, Any]]) -> list[Any]:
    """Return the results of all ranks of an MPI job, which lie one behind the other."""
    results, at = [], 0
    for parts in ranks:
        whole = {"pickle": parts["size"], "buffers": [], **parts}
        results.append(loads_out_of_band(body[at : at + parts["size"]], whole))
        at += parts["size"]
    return results


@public
class RemoteTraceback(Exception):
    """The traceback of the remote side, as text; stands as ``__cause__`` of the exception that a call raised."""

    def __init__(self, text: str, rank: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.rank = rank  # of the MPI job, on which the call raised

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def _rebuild_exception(links: list[dict[str, Any]], header: dict[str, Any], where: str) -> BaseException:
    """Put a chain of exceptions together again; the first one's cause becomes the remote traceback."""
    errors = rebuild_links(links, where)
    first = errors[0]
    rank = header.get("rank")
    if rank is not None:
        where = f"on rank {rank} of {header['ranks']} {where}"
    lost = "".join(f"; {name} stayed there: {why}" for name, why in (links[0].get("lost") or {}).items())
    remote = RemoteTraceback(f"{header['traceback']}(raised {where}, on {header['host']}{lost})\n", rank)
    remote.__cause__, remote.__context__ = first.__cause__, first.__context__
    remote.__suppress_context__ = first.__suppress_context__
    first.__cause__ = remote
    return first
