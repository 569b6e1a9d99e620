"""The exception tree: everything this package raises that is not the user's own exception.

It may not import anything but the standard library and public.py: every other module raises from here. One file,
although a long one, so that the tree is seen whole.

    ProminenceError
      AuthenticationError         the token is missing, refused or expired (HTTP 401)
      PermissionDeniedError       somebody else's job or object (403)
      InvalidRequestError         the service refused the request (400, 405, 413, 415, ...); also a ValueError
        NotFoundError             no such job, key or path (404)
          OutputNotFoundError     the job has no such output file or directory
        KeyValueConflictError     a compare-and-swap that found another value
      ServiceError                the service answered, but with an error of its own or not as its API says
        ServiceUnavailableError   no answer at all, or one that says "later" (429, 502, 503, 504)
      TransferError               a file did not arrive whole at, or from, the object store
      JobError                    what the platform did to a job; carries job_id, status, reason, stderr; a RuntimeError
        ...                       (see below)
      OutcomeError                an outcome arrived that may not, or can not, be unpickled
        SignatureError            it is not signed by this run: never unpickled
        RemotePicklingError       the result or exception could not be pickled there, or unpickled here; a PicklingError
      RemoteEnvironmentError      the call could not be loaded there: a module is missing, a file was damaged
        PythonMismatchError       the image's Python is not of the client's minor version
      InitializerError            a job's initializer raised, and its calls did not run; also a BrokenExecutor
      BrokenRunError              nothing can be done any more (token refused for good); also a BrokenExecutor
      RunExistsError              the run id that was asked for has been used
      RunNotFoundError            no such run to attach to (a NotFoundError)
      NotSubmittedError           a call of an attached run never reached the service
      DependencyError             a call was not sent, since one whose result it was to be given has none
      ImageBuildError             an image could not be built on this machine
      RequirementsError           packages could not be chosen, fetched, or are too large to travel
      StoreError                  a sweep's store cannot be read or written
        StoreInUseError           another program writes it
      CodeChangedError            a sweep's function is not the one that its stored points were computed with
      PointFailedError            stands for a stored exception that cannot be unpickled here

    UserWarning
      ShortCallsWarning           a long run of calls that are short against the jobs in which they go out one by one
"""

from __future__ import annotations

import pickle
from concurrent.futures import BrokenExecutor

from .public import public

__all__ = [
    "ArtifactError",
    "AuthenticationError",
    "BrokenRunError",
    "CallCrashedError",
    "CodeChangedError",
    "DependencyError",
    "ImageBuildError",
    "ImagePullError",
    "InitializerError",
    "InvalidRequestError",
    "JobDeletedError",
    "JobError",
    "JobFailedError",
    "KeyValueConflictError",
    "NoMatchingResourcesError",
    "NotFoundError",
    "NotSubmittedError",
    "OutOfMemoryError",
    "OutcomeError",
    "OutcomeLostError",
    "OutputNotFoundError",
    "PermissionDeniedError",
    "PointFailedError",
    "ProminenceError",
    "PythonMismatchError",
    "QueueTimeExceededError",
    "RemoteEnvironmentError",
    "RemotePicklingError",
    "RequirementsError",
    "RunExistsError",
    "RunNotFoundError",
    "ServiceError",
    "ServiceUnavailableError",
    "ShortCallsWarning",
    "SignatureError",
    "StageOutError",
    "StoreError",
    "StoreInUseError",
    "TimeLimitExceededError",
    "TransferError",
    "WalltimeExceededError",
    "WorkerLostError",
]


@public
class ProminenceError(Exception):
    """Base of every exception that this package raises on its own account.

    Attributes:
        status_code: the HTTP status that the service answered with, or None when no answer is behind the error.
        retry_after: seconds after which the service asked to be tried again, a day at most; None when it did not.
    """

    status_code: int | None = None
    retry_after: float | None = None

    @property
    def may_have_arrived(self) -> bool:
        """Whether the request may have been carried out all the same.

        After a POST that creates something, True means: look for it before creating it again. False means that the
        service never saw the request, or refused it.
        """
        return False

    @property
    def is_server_fault(self) -> bool:
        """Whether the service failed while it worked on the request (HTTP 500): maybe the request's own fault."""
        return False


@public
class AuthenticationError(ProminenceError):
    """The token is missing, was refused, or has expired."""


@public
class PermissionDeniedError(ProminenceError):
    """The job or object belongs to somebody else."""


@public
class InvalidRequestError(ProminenceError, ValueError):
    """The service refused the request.

    Attributes:
        status_code: the HTTP status, or None when the request was refused before it was sent.
    """

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


@public
class NotFoundError(InvalidRequestError):
    """There is no such job, workflow, key or path."""


@public
class OutputNotFoundError(NotFoundError):
    """The job has no output file or directory of that name, or has not uploaded it."""


@public
class KeyValueConflictError(InvalidRequestError):
    """A compare-and-swap found another value than the expected one, or none."""


@public
class ServiceError(ProminenceError):
    """The service answered with an error of its own (500), or with something that is not in its API."""

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def may_have_arrived(self) -> bool:
        """True: an error of the service does not say how far it came."""
        return True

    @property
    def is_server_fault(self) -> bool:
        """Whether the status is 500."""
        return self.status_code == 500


@public
class ServiceUnavailableError(ServiceError):
    """The service could not be reached, did not answer in time, or asked to come back later.

    Attributes:
        request_sent: False when the request certainly never reached the service, so that repeating it is safe.
        retry_after: seconds after which the service asked to be tried again, if it did.
    """

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        *,
        request_sent: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status_code)
        self.request_sent = request_sent
        self.retry_after = retry_after

    @property
    def may_have_arrived(self) -> bool:
        """Whether the request was sent, as far as that is known."""
        return self.request_sent


@public
class TransferError(ProminenceError):
    """A file did not arrive whole at, or from, the object store; it may be sent again."""


@public
class JobError(ProminenceError, RuntimeError):
    """The platform ended a job, or lost it, before the call in it had an outcome.

    A RuntimeError, as what the standard library raises for a process that has ended under its call.

    Attributes:
        job_id: the service's number of the job, or None if it never had one.
        status: the service's status word, for example ``"failed"``.
        reason: the service's own ``statusReason``, or what we know instead.
        stderr: the last part of the job's standard error, possibly empty.
        advice: what to change, where that is known: what the job had asked for, and used as far as the service tells.
    """

    advice: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        job_id: int | None = None,
        status: str | None = None,
        reason: str | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.status = status
        self.reason = reason
        self.stderr = stderr

    @property
    def message(self) -> str:
        """What happened, without what is known of the job; also what ``repr`` shows."""
        return str(self.args[0]) if self.args else ""

    @message.setter
    def message(self, text: str) -> None:
        self.args = (text,)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only attributes are not in args, so the default reduction would lose them.
        facts = (type(self), self.message, self.job_id, self.status, self.reason, self.stderr)
        others = {name: value for name, value in vars(self).items() if name in ("advice", "limit", "stdout")}
        return (_rebuild_job_error, facts, others) if others else (_rebuild_job_error, facts)

    def __str__(self) -> str:
        where = f"job {self.job_id}" if self.job_id is not None else "job"
        parts = [self.message or type(self).__name__]
        known = ", ".join(word for word in (self.status, self.reason) if word)
        parts.append(f"({where}: {known})" if known else f"({where})")
        text = " ".join(parts)
        if self.advice:
            text += "\n" + self.advice
        if self.stderr.strip():
            text += "\n--- end of the job's standard error ---\n" + self.stderr.strip()
        return text


def _rebuild_job_error(
    kind: type[JobError], message: str, job_id: int | None, status: str | None, reason: str | None, stderr: str
) -> JobError:
    return kind(message, job_id=job_id, status=status, reason=reason, stderr=stderr)


@public
class JobFailedError(JobError):
    """The job failed for a reason that has no class of its own."""


@public
class JobDeletedError(JobError):
    """The job was deleted: by ``terminate()``, by its owner from elsewhere, or by an operator."""


@public
class WalltimeExceededError(JobError):
    """The job ran longer than ``resources.walltime``."""


@public
class TimeLimitExceededError(JobError):
    """The call took longer than its ``time_limit``, and was ended; the other calls of its job, or worker, go on.

    It is no TimeoutError, which a program that waits with a ``timeout`` would take for its own.

    Attributes:
        limit: the seconds that it had.
        stdout: the last part of what the call has printed; ``stderr``, too, is of this call alone.
    """

    limit: float | None = None
    stdout: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        if self.stdout.strip():
            text += "\n--- end of the call's standard output ---\n" + self.stdout.strip()
        return text


@public
class OutOfMemoryError(JobError):
    """The job used more memory than ``resources.memory``, or was killed near that limit."""


@public
class ImagePullError(JobError):
    """The container image could not be fetched or unpacked where the job ran."""


@public
class ArtifactError(JobError):
    """An input artifact could not be fetched where the job ran."""


@public
class StageOutError(JobError):
    """A declared output file or directory was not there when the job ended."""


@public
class QueueTimeExceededError(JobError):
    """The job waited in the queue for longer than ``policies.maximum_time_in_queue``."""


@public
class NoMatchingResourcesError(JobError):
    """No site can provide the resources that the job asks for."""


@public
class CallCrashedError(JobError):
    """The process that ran the call ended under it: ``os._exit``, a signal, a segmentation fault."""


@public
class OutcomeLostError(JobError):
    """The job ended, or disappeared from the service, without leaving an outcome behind."""


@public
class WorkerLostError(JobError):
    """Warm workers were lost again and again while they ran the call: killed, evicted, or silent."""


@public
class OutcomeError(ProminenceError):
    """An outcome arrived that may not, or cannot, be unpickled."""


@public
class SignatureError(OutcomeError):
    """The outcome is not signed with this run's key; it was not unpickled."""


@public
class RemotePicklingError(OutcomeError, pickle.PicklingError):
    """A result or exception could not be pickled on the remote side, or not unpickled on this one.

    The message holds the original's type, text and traceback as far as they are known.
    """


@public
class RemoteEnvironmentError(ProminenceError):
    """The calls of a job could not be loaded where it ran: a module is missing there, or a file was damaged."""


@public
class PythonMismatchError(RemoteEnvironmentError):
    """The image's Python is not of the client's minor version (cloudpickle's own rule)."""


@public
class BrokenRunError(BrokenExecutor, ProminenceError):
    """The executor can do nothing any more: every open future gets this, and so does the next ``submit``."""


@public
class InitializerError(BrokenExecutor, ProminenceError):
    """The initializer raised in a job, so its calls did not run; what it raised is the ``__cause__``."""


@public
class RunExistsError(ProminenceError, ValueError):
    """A run of this id exists already; `ProminenceExecutor.attach` continues it."""


@public
class RunNotFoundError(NotFoundError):
    """The service has no job of a run of this id, and no journal knows it."""


@public
class NotSubmittedError(ProminenceError):
    """The call never reached the service: the program that submitted it ended before."""


@public
class DependencyError(ProminenceError):
    """The call was not sent: a future among its arguments has failed, or was cancelled; why, is the ``__cause__``.

    Attributes:
        call: the number in its run of the call that has no result; None if the future is none of an executor here.
        reason: what became of that one.
    """

    def __init__(self, message: str, call: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.call = call
        self.reason = reason


@public
class RequirementsError(ProminenceError):
    """The packages of ``requirements=`` could not be chosen or fetched, or are too large; nothing was sent for them."""


@public
class ImageBuildError(ProminenceError):
    """An image could not be built on this machine: something is missing here, or a tool failed."""


@public
class StoreError(ProminenceError):
    """A sweep's store cannot be read or written, or is none; what it holds is as it was."""


@public
class StoreInUseError(StoreError):
    """Another program, or another sweep of this one, writes the store.

    Attributes:
        host, process: whose it is, as far as that is known.
    """

    def __init__(self, message: str, host: str = "", process: int | None = None) -> None:
        super().__init__(message)
        self.host = host
        self.process = process


@public
class CodeChangedError(ProminenceError):
    """A sweep's function is not the one that its stored points were computed with; says what has changed."""


@public
class PointFailedError(ProminenceError):
    """A point of a sweep raised an exception that cannot be unpickled here; this has its text.

    Attributes:
        traceback: as it was printed where the point ran.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


@public
class ShortCallsWarning(UserWarning):
    """A long run of short calls goes out as jobs of one call each, which cost much more than the calls; once a run."""
