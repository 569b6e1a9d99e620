"""What takes the place of futures among the arguments of calls, and what is said when there is nothing.

In any thread. It waits for no future, and sends nothing: dependents.py does. Only `value_of` may ask a service.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from ..errors import DependencyError
from ..payload.calls import Payload
from ..payload.dependencies import Value, Waits, joined
from ..payload.modules import LocalModules, ModuleZip
from ..run.chunk import Chunk
from ..run.future import call_of
from ..run.objects import Objects
from ..run.stored import stored_at

MODULES = LocalModules()

Ready = tuple[Chunk, Waits, Payload]  # a call that waited, for what, and what is to be sent now


def value_of(objects: Objects, service: str, future: Future[Any]) -> Value:
    """Return what takes the place of a future that has a result; raises what pickling that raises.

    It blocks only for a large result that is still at another service than ``service``.
    """
    stored = stored_at(service, future)
    if stored is not None:
        return Value.of_stored(stored)
    result = future.result()
    return Value.of_pickle(objects.dumps(result, (result,)))


def completed(payload: Payload, values: dict[int, Value]) -> Payload:
    """Return a call's payload with results in the place of all of its futures."""
    waits, blob = payload.waits, payload.arguments[0]
    assert waits is not None  # noqa: S101  it waits
    assert blob is not None  # noqa: S101  likewise
    found = values.values()
    return Payload(
        payload.function,
        [joined(blob, values)],
        _modules(payload.modules, waits, values),
        payload.objects.union(*(value.objects for value in found)),
        payload.name,
        frozenset(value.stored for value in found if value.stored is not None),
    )


def _modules(packed: ModuleZip | None, waits: Waits, values: dict[int, Value]) -> ModuleZip | None:
    """Pack again what travels with a call if its new arguments refer to more."""
    modules = waits.modules.union(*(value.modules for value in values.values()))
    code = waits.code.union(*(value.code for value in values.values()))
    if modules == waits.modules and code == waits.code:
        return packed
    return MODULES.pack(modules, code, waits.data_limit)


def runs_of(ready: Sequence[Ready]) -> list[list[Ready]]:
    """Divide calls that are ready into those that share a job: neighbours of one ``map``, with the same modules."""
    runs: list[list[Ready]] = []
    for item in ready:
        chunk, waits, payload = item
        if runs:
            last, others, before = runs[-1][-1]
            alike = others.group is waits.group is not None and before.modules == payload.modules
            alike = alike and last.options == chunk.options
            if alike and len(runs[-1]) < waits.together and last.first + last.size == chunk.first:
                runs[-1].append(item)
                continue
        runs.append([item])
    return runs


def dependency_error(chunk: Chunk, failed: Future[Any]) -> DependencyError:
    """Say that a call cannot run because of a future; of a chain of such, the first one is named."""
    error = CancelledError() if failed.cancelled() else Future.exception(failed)
    found = call_of(failed)
    if isinstance(error, DependencyError) and error.__cause__ is not None:
        number, reason = error.call, error.reason
        cause: BaseException = error.__cause__
    else:
        assert error is not None  # noqa: S101  it has failed
        number, cause = found[1] if found is not None else None, error
        reason = f"{_name(chunk, failed)} {_what_became_of(error)}"
    name = chunk.payload.name if chunk.payload else ""
    who = f"call {chunk.first}" + (f" ({name})" if name else "")
    text = f"{who} was not sent, since a call that it depends on has no result: {reason}"
    problem = DependencyError(text, number, reason)
    problem.__cause__ = cause
    return problem


def _name(chunk: Chunk, future: Future[Any]) -> str:
    found = call_of(future)
    if found is None:
        return "a future that is no executor's of jobs"
    run, number = found
    return f"call {number}" if run == chunk.run_id else f"call {number} of run {run}"


def _what_became_of(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "was cancelled"
    text = str(error)
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")
