"""Why a call has no outcome: turns what the service says of an ended job, and what the runner says, into exceptions.

Pure: no HTTP, no threads. The rules follow what the real service answers (the words of ``statusReason``, the exit
codes in ``execution.tasks``); an exit code alone tells nothing when an outcome is there.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from ..client.status import is_held
from ..errors import (
    ArtifactError,
    CallCrashedError,
    ImagePullError,
    InitializerError,
    JobDeletedError,
    JobError,
    JobFailedError,
    NoMatchingResourcesError,
    OutcomeLostError,
    OutOfMemoryError,
    ProminenceError,
    PythonMismatchError,
    QueueTimeExceededError,
    RemoteEnvironmentError,
    StageOutError,
    TimeLimitExceededError,
    WalltimeExceededError,
)
from ..images.files import shown
from ..payload.modules import why_missing
from ..payload.outcomes import Outcome, OutcomeFile
from ..payload.results import RemoteTraceback
from ..remote.wire import OUTCOME_FILE

_SIGKILL = 9  # signal.SIGKILL, which Windows does not name
STDERR_TAIL = 2000  # characters of the job's standard error that an exception carries

# The beginning of the service's statusReason, the exception, and what it means to a user.
_REASONS: tuple[tuple[str, type[JobError], str], ...] = (
    ("Walltime limit exceeded", WalltimeExceededError, "the job was killed at its walltime"),
    ("Job used too much memory", OutOfMemoryError, "the job was killed because it used more memory than it asked for"),
    ("Container image pull failed", ImagePullError, "the container image could not be fetched where the job ran"),
    ("Artifact download failed", ArtifactError, "an input of the job could not be fetched where it ran"),
    ("Maximum time queued was exceeded", QueueTimeExceededError, "the job waited too long in the queue"),
    ("No matching resources", NoMatchingResourcesError, "no site can give the job the resources it asks for"),
    ("The service was restarted", JobFailedError, "the job was lost with the service, which ended while it ran"),
    ("Stageout failed", StageOutError, "the job ended without leaving the outcome file behind"),
)


# What the runner calls it when a result of another job, which its calls are to be given, does not come.
_NOT_FETCHED = "pxremote.results.NotFetched"

# What udocker says of a program that the image does not have; its exit code is then 2, singularity's 255.
_UDOCKER_HAS_NONE = "command not found or has no execute bit set"


def outcome_url(job: dict[str, Any]) -> str | None:
    """Return the signed URL of the outcome file in a detailed description, or None when it was not uploaded."""
    return output_url(job, OUTCOME_FILE)


def output_url(job: dict[str, Any], name: str) -> str | None:
    """Return the signed URL of any output file, or None when it was not uploaded."""
    for output in job.get("outputFiles") or ():
        if isinstance(output, dict) and output.get("name") == name:
            return output.get("url") or None
    return None


def outcome_size(job: dict[str, Any]) -> int:
    """Return the size of the outcome file in bytes, 0 when the service does not say."""
    for output in job.get("outputFiles") or ():
        if isinstance(output, dict) and output.get("name") == OUTCOME_FILE:
            return output.get("size") or 0
    return 0


def job_error(job: dict[str, Any], stderr: str = "") -> JobError:
    """Say why an ended job left no outcome file."""
    status, text = job.get("status"), str(job.get("statusReason") or "")
    facts = _facts(job, stderr)
    if status == "deleted":
        return JobDeletedError("the job was deleted", **facts)
    exit_code = _exit_code(job)
    for beginning, kind, meaning in _REASONS:
        if text.startswith(beginning):
            if kind is StageOutError:
                return _no_outcome(job, exit_code, meaning, facts)
            return kind(meaning, **facts)
    if is_held(job):
        return JobFailedError("the service held the job", **facts)
    if status == "completed" and not (job.get("execution") or {}).get("tasks"):
        return JobFailedError("the platform's own worker failed before or while it ran the job", **facts)
    if status == "killed":
        return JobFailedError("the platform killed the job", **facts)
    return _no_outcome(job, exit_code, "the job ended without an outcome", facts)


def _no_outcome(job: dict[str, Any], exit_code: int | None, meaning: str, facts: dict[str, Any]) -> JobError:
    """Explain why the runner did not write its file: it was killed, there is no Python, or nobody knows."""
    if exit_code == -_SIGKILL:
        memory = (job.get("resources") or {}).get("memory")
        limit = f" (it had {memory} GB)" if memory else ""
        return OutOfMemoryError(f"the job was killed by signal 9, probably out of memory{limit}", **facts)
    if exit_code is not None and exit_code < 0:
        return CallCrashedError(f"the job was ended by {signal_name(-exit_code)}", **facts)
    no_program = exit_code in (126, 127, 255) or (exit_code == 2 and _UDOCKER_HAS_NONE in facts["stderr"])
    if no_program and "python3" in facts["stderr"]:
        return JobFailedError(f"{_image_of(job)} has no working python3, which calls need", **facts)
    if exit_code == 255 and "image format not recognized" in facts["stderr"]:
        return ImagePullError(f"{_image_of(job)} is not in a format that the runtime can open", **facts)
    if exit_code:
        return JobFailedError(f"{meaning}; its command ended with exit code {exit_code}", **facts)
    if facts["reason"] and facts["status"] == "failed":
        return StageOutError(meaning, **facts)
    return OutcomeLostError(meaning, **facts)


def _facts(job: dict[str, Any], stderr: str) -> dict[str, Any]:
    """Return what every `JobError` carries of a job."""
    return {
        "job_id": job.get("id"),
        "status": job.get("status"),
        "reason": job.get("statusReason"),
        "stderr": stderr[-STDERR_TAIL:],
    }


def _exit_code(job: dict[str, Any]) -> int | None:
    tasks = (job.get("execution") or {}).get("tasks") or [{}]
    code = tasks[-1].get("exitCode")
    return code if isinstance(code, int) else None


def initializer_error(cause: BaseException, job_id: int | None) -> InitializerError:
    """Say that the calls of a job did not run because its initializer raised."""
    error = InitializerError(f"the initializer raised {type(cause).__name__}: {cause} (job {job_id})")
    error.__cause__ = cause
    return error


def time_limit_error(header: Mapping[str, Any], number: int, job_id: int | None) -> TimeLimitExceededError:
    """Say that a call was ended at its time limit; ``header``: of its record, ``number``: of the call in the run."""
    error = TimeLimitExceededError(
        f"call {number} of the run, {header['name']}, was ended at its time limit of {header['limit']:g} s",
        job_id=job_id,
    )
    error.limit = header["limit"]
    error.stdout, error.stderr = ((text or "")[-STDERR_TAIL:] for text in header.get("printed") or ("", ""))
    return error


def note_import(error: BaseException, image: str | None, job_id: int | None) -> None:
    """Add to an ImportError that a call raised where it was raised; ``image`` is None when that is not known."""
    where = f"job {job_id}" if image is None else f"the image {shown(image)!r} of job {job_id}"
    why = "what a call imports must be in the image, or lie beside the program"
    if isinstance(error, ModuleNotFoundError) and error.name:
        why = why_missing(error.name)
    note = f"raised in {where}: {why}"
    if hasattr(error, "add_note"):
        error.add_note(note)
    elif isinstance(error.__cause__, RemoteTraceback):  # before Python 3.11 an exception has no notes
        error.__cause__.text += note + "\n"


def call_error(outcomes: OutcomeFile, call: int, first: int, job: dict[str, Any], stderr: str = "") -> ProminenceError:
    """Say why one call of a chunk has no outcome though the job left an outcome file.

    ``call`` is its position in the chunk, ``first`` the number in the run of the chunk's first call.
    """
    record = outcomes.job
    facts = _facts(job, stderr)
    if record is not None and record.kind == "python":
        return _python_mismatch(record, job)
    if record is not None and record.kind == "failure" and record.header.get("type") == _NOT_FETCHED:
        return ArtifactError(str(record.header.get("error")), **facts)
    if record is not None and record.kind == "failure":
        return _load_failure(record, job)
    running = outcomes.running
    before = ""
    if running is not None and running != call:
        before = f"; call {first + call} of the run had not begun, call {first + running} in the same job was running"
    if record is not None and record.kind == "walltime":
        return WalltimeExceededError(f"the job's walltime was nearly over and the call had not ended{before}", **facts)
    failed = next((outcome for outcome in outcomes.calls.values() if "rank" in outcome.header), None)
    if failed is not None:
        which = f"call {first + failed.call} of the run failed on rank {failed.header['rank']}"
        return CallCrashedError(f"{which}, which ended their MPI job before this call", **facts)
    exit_code = record.header.get("exit") if record is not None and record.kind == "crashed" else _exit_code(job)
    how = _how_it_ended(exit_code)
    rank = record.header.get("rank") if record is not None else None
    who = "the process of the calls" if rank is None else f"the process of rank {rank} of the MPI job"
    if exit_code == -_SIGKILL:
        return OutOfMemoryError(f"{who} {how}: probably out of memory{before}", **facts)
    return CallCrashedError(f"{who} {how}{before}", **facts)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended before the call did"
    if exit_code < 0:
        return f"was ended by {signal_name(-exit_code)}"
    return f"ended with exit code {exit_code} before the call did"


def signal_name(number: int) -> str:
    """Name a signal by number and word."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _image_of(job: dict[str, Any]) -> str:
    images = [shown(str(task["image"])) for task in job.get("tasks") or () if task.get("image")]
    return f"the image {images[0]!r}" if images else "its image"


def _python_mismatch(record: Outcome, job: dict[str, Any]) -> PythonMismatchError:
    header = record.header
    return PythonMismatchError(
        f"{_image_of(job)} has Python {header['here']} ({header['executable']}), but this program runs "
        f"Python {header['wanted']}: a pickled function needs the same minor version (job {job.get('id')})"
    )


def _load_failure(record: Outcome, job: dict[str, Any]) -> RemoteEnvironmentError:
    header = record.header
    module = str(header.get("module") or "")
    if module and header.get("type") == "ModuleNotFoundError":
        what = f"{_image_of(job)} has no module {module!r}, which the call needs: {why_missing(module)}"
    else:
        what = f"the call could not be loaded in {_image_of(job)}: {header.get('type')}: "
        what += str(header.get("error"))
    traceback = str(header.get("traceback", "")).rstrip()
    return RemoteEnvironmentError(f"{what} (job {job.get('id')})" + (f"\n{traceback}" if traceback else ""))
