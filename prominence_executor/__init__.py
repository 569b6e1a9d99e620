"""Run Python functions as batch jobs of PROMINENCE, from plain Python.

`ProminenceExecutor` is a ``concurrent.futures.Executor``; `Job`, `Task` and their relatives describe jobs by hand;
`ProminenceClient` is the REST API. The embedded service is `prominence_executor.local`.

This module may only gather the public names, and have moved.py find those of modules that have moved. Those with
something heavy behind them are imported when first used (PEP 562), so that ``import prominence_executor`` costs next to
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import *  # noqa: F403  the exception tree is public as a whole
from .errors import __all__ as _errors
from .moved import install as _find_moved_modules
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client.client import ProminenceClient
    from .client.job import Job
    from .client.model import Artifact, InputFile, JobPolicies, Notification, Resources, Task
    from .client.watching import Watch
    from .client.workflow import Dependency, ParameterSweep, Repeat, Workflow, WorkflowPolicies, Zip
    from .executor.executor import ProminenceExecutor
    from .executor.image_check import ImageReport
    from .executor.submission import local_sources
    from .payload.pickling import load
    from .payload.results import RemoteTraceback
    from .reports.report import Report
    from .run.future import ProminenceFuture
    from .run.retry import Attempt, Retry
    from .runs.report import report_of
    from .sweeps.identity import Labelled
    from .sweeps.point import Point
    from .sweeps.stored import StoredSweep, open_sweep
    from .sweeps.sweep import Sweep, sweep
    from .transports.warm.options import Warm

__all__ = [
    "Artifact",
    "Attempt",
    "Dependency",
    "ImageReport",
    "InputFile",
    "Job",
    "JobPolicies",
    "Labelled",
    "Notification",
    "ParameterSweep",
    "Point",
    "ProminenceClient",
    "ProminenceExecutor",
    "ProminenceFuture",
    "RemoteTraceback",
    "Repeat",
    "Report",
    "Resources",
    "Retry",
    "StoredSweep",
    "Sweep",
    "Task",
    "Warm",
    "Watch",
    "Workflow",
    "WorkflowPolicies",
    "Zip",
    "load",
    "local_sources",
    "open_sweep",
    "report_of",
    "sweep",
    *_errors,
]

_HOMES = {
    "client.client": ("ProminenceClient",),
    "executor.executor": ("ProminenceExecutor",),
    "run.future": ("ProminenceFuture",),
    "run.retry": ("Attempt", "Retry"),
    "executor.image_check": ("ImageReport",),
    "executor.submission": ("local_sources",),
    "client.job": ("Job",),
    "client.model": ("Artifact", "InputFile", "JobPolicies", "Notification", "Resources", "Task"),
    "payload.pickling": ("load",),
    "payload.results": ("RemoteTraceback",),
    "reports.report": ("Report",),
    "client.watching": ("Watch",),
    "runs.report": ("report_of",),
    "sweeps.identity": ("Labelled",),
    "sweeps.point": ("Point",),
    "sweeps.stored": ("StoredSweep", "open_sweep"),
    "sweeps.sweep": ("Sweep", "sweep"),
    "transports.warm.options": ("Warm",),
    "client.workflow": ("Dependency", "ParameterSweep", "Repeat", "Workflow", "WorkflowPolicies", "Zip"),
}


_find_moved_modules()


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
