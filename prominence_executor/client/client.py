"""The REST API: `ProminenceClient`, with every verb of jobs and workflows in a few lines, all through one session.

It knows how to ask and what the answers mean, not what to ask: it keeps no state about jobs, polls nothing, starts no
thread. The token goes to the API alone; presigned URLs of the object store are used without it. Any number of threads
may use one client. Its verbs of objects and of keys are in data.py and keys.py.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import InvalidRequestError, NotFoundError
from ..public import public
from .auth import TokenSource
from .data import DataVerbs
from .keys import KEY_VALUE_LIMIT, KeyVerbs
from .request_parts import body_of, filters, id_lists, natural
from .responses import (
    read_bytes,
    read_dict,
    read_id,
    read_job,
    read_jobs,
    read_nothing,
    read_url,
    read_workflow,
    read_workflows,
)
from .session import ApiSession
from .transfers import Source
from .watching import Watch

__all__ = ["KEY_VALUE_LIMIT", "ProminenceClient", "Source"]

_ENDING = 3.0  # seconds around a job's end during which the service may not know it
_BLINK = 0.3  # seconds: a job that ended between two of the server's queries is missing from one answer


@public
class ProminenceClient(DataVerbs, KeyVerbs):
    """The service's REST API for one user. Needs no token and no network until the first request.

    Args:
        url: the API's base, for example ``https://host/prominence/v1``; else the variable ``PROMINENCE_URL``,
            else the profile's.
        token: the token, or a callable that returns one; else see ``TokenSource``.
        timeout: seconds to connect, and seconds to wait for the next bytes of an answer.
        retry_for: seconds for which a request that may be repeated is tried again while the service is away.
        verify: False to accept any certificate, or the path of a CA bundle; else the variable
            ``PROMINENCE_SSL_VERIFY`` (False, 0, no, off, or a path); on by default.
        profile: the name of a profile (the command ``config``), which then goes before the variables.

    Every method blocks, and may raise:
        AuthenticationError: no token, or one that has expired or was refused, also after it was looked up again.
        PermissionDeniedError: somebody else's.
        InvalidRequestError: the service refused the request; NotFoundError for what does not exist.
        ServiceUnavailableError: no answer. A request that must not be repeated blindly (a POST that creates) raises it
            at once; its ``request_sent`` then says whether the service may have seen the request.
        ServiceError: an answer that makes no sense, or a 500. It, too, leaves open whether a POST was carried out.

    Attributes:
        api: the session that every request goes through; ``api.timeout`` and ``api.retry_for`` may be changed.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | TokenSource | None = None,
        *,
        timeout: tuple[float, float] = (10.0, 60.0),
        retry_for: float = 30.0,
        verify: bool | str | os.PathLike[str] | None = None,
        profile: str | None = None,
    ) -> None:
        self.api = ApiSession(url, token, timeout=timeout, retry_for=retry_for, verify=verify, profile=profile)

    @property
    def url(self) -> str:
        """The API's base, without a slash at its end."""
        return self.api.url

    @property
    def requests_sent(self) -> Counter[str]:
        """How many requests went out so far, by kind ("GET /jobs", "PUT upload", ...); repeats count."""
        return self.api.requests_sent

    def close(self) -> None:
        """Close the connections, and end the waits of all threads that would have tried again."""
        self.api.close()

    def __enter__(self) -> ProminenceClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled: its token stays in this process; make one there")

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def create_job(self, description: Mapping[str, Any]) -> int:
        """Create a job and return its number. Never repeated: a repeated POST would make a second job."""
        return self.api.call("POST", "/jobs", read_id, body=body_of(description), repeat=False)

    def describe_job(self, job_id: int) -> dict[str, Any]:
        """Return everything about one job. Costly at the service: it looks through all jobs that ever ended."""
        path = f"/jobs/{natural(job_id)}"
        return self.api.repeats.while_not_found(_BLINK, lambda: self.api.call("GET", path, read_job))

    def list_jobs(
        self,
        *,
        ids: Iterable[int] | None = None,
        constraint: tuple[str, str] | None = None,
        all: bool = False,  # the service's word
        completed: bool = False,
        num: int | None = None,
        name: str | None = None,
        status: str | None = None,
        detail: bool = False,
        workflow_id: int | None = None,
        wait: float | None = None,
        since: Watch | None = None,
    ) -> list[dict[str, Any]]:
        """List jobs in short form, or in detail; without arguments the active ones, which is cheap at any history.

        Args:
            ids: these jobs, active or ended; unknown ones are left out. As many requests as URLs hold them.
            constraint: label and value.
            all: ended ones, too; then costly at the service, as are ``completed`` and ``ids``.
            completed: ended ones only.
            num: at most so many ended ones (the service's default is 1; -1 for no limit).
            name: jobs of this name.
            status: ``idle`` or ``running``.
            detail: with resources, inputs in base64, execution, and fresh URLs of outputs.
            workflow_id: the jobs of this workflow; excludes ``ids``.
            wait: seconds for which the service may wait until a job with the label of ``constraint``, or else any, has
                come, gone, or got another status, after what ``since`` has seen. It may not be able to, and answer at
                once: ``since.waits`` tells. Not together with ``ids``.
            since: what has been seen of it; needed for a wait.
        """
        if since is not None and (ids is not None or workflow_id is not None):
            raise ValueError("a list of some jobs by their ids cannot be waited for")
        if workflow_id is not None:
            if ids is not None:
                raise ValueError("ids and workflow_id exclude each other: the service knows one parameter for both")
            ids = [workflow_id]
        given = {"all": all, "completed": completed, "num": num, "name": name, "status": status, "detail": detail}
        if since is not None:
            params = filters(constraint, given)
            return self.api.call("GET", "/jobs", read_jobs, params=params, wait=wait, since=since)
        return self._list("/jobs", ids, constraint, {**given, "workflow": workflow_id is not None})

    def delete_jobs(self, ids: Iterable[int]) -> None:
        """Delete jobs, by as few requests as URLs hold their ids.

        Raises:
            NotFoundError: none of them was active any more.
        """
        missing, found = None, False
        for some in id_lists(ids):
            try:
                self.api.call("DELETE", "/jobs", read_nothing, params={"id": some})
                found = True
            except NotFoundError as error:
                missing = error
        if missing and not found:
            raise missing

    def delete_job(self, job_id: int) -> None:
        """Delete a job.

        Raises:
            NotFoundError: it is not active any more, or never was.
        """
        self.api.call("DELETE", f"/jobs/{natural(job_id)}", read_nothing)

    def remove_job(self, job_id: int) -> None:
        """Take an ended job out of the queue that its policy ``leave_in_queue`` left it in."""
        self.api.call("PUT", f"/jobs/{natural(job_id)}/remove", read_nothing)

    def clone_job(self, job_id: int) -> int:
        """Create a job with the same description and return its number. Never repeated."""
        return self.api.call("PUT", f"/jobs/{natural(job_id)}/clone", read_id, repeat=False)

    def stdout(
        self, job_id: int, node: int = 0, offset: int = 0, *, retry_for: float = _ENDING, limit: int | None = None
    ) -> bytes:
        """Return the standard output so far, from byte ``offset`` on; about a second behind a running job.

        Args:
            retry_for: seconds for which it is asked again while the service does not know the job, as around its end.
            limit: bytes that there are at most: what is longer is not fetched, which is a ServiceError.
        """
        return self._output(job_id, "stdout", node, offset, retry_for, limit)

    def stderr(self, job_id: int, node: int = 0, offset: int = 0, *, retry_for: float = _ENDING) -> bytes:
        """Return the standard error so far, from byte ``offset`` on; about a second behind a running job.

        Args:
            retry_for: seconds for which it is asked again while the service does not know the job, as around its end.
        """
        return self._output(job_id, "stderr", node, offset, retry_for)

    def _output(
        self, job_id: int, stream: str, node: int, offset: int, retry_for: float, limit: int | None = None
    ) -> bytes:
        params = {"node": natural(node), "offset": natural(offset)}
        path = f"/jobs/{natural(job_id)}/{stream}"

        def ask() -> bytes:
            return self.api.call("GET", path, read_bytes, params=params, limit=limit)

        return self.api.repeats.while_not_found(retry_for, ask)

    def execute(self, job_id: int, command: Sequence[str]) -> bytes:
        """Run a command inside a running job and return its output. Never repeated."""
        if isinstance(command, str) or not command or any("," in word for word in command):
            raise ValueError(f"command must be words without commas, by which the service joins them, not {command!r}")
        path, params = f"/jobs/{natural(job_id)}/exec", {"command": ",".join(command)}
        with _explained("Unable to execute command"):
            return self.api.call("POST", path, read_bytes, params=params, repeat=False)

    def create_snapshot(self, job_id: int, path: str) -> None:
        """Make an archive of a file or directory of a running job; ``snapshot_url`` then says where it is."""
        with _explained("Unable to create snapshot"):
            self.api.call("PUT", f"/jobs/{natural(job_id)}/snapshot", read_nothing, params={"path": path})

    def snapshot_url(self, job_id: int) -> str:
        """Return a presigned URL of the last snapshot, a .tgz."""
        return self.api.call("GET", f"/jobs/{natural(job_id)}/snapshot", read_url)

    # -- workflows -----------------------------------------------------------------------------------------------------

    def create_workflow(self, description: Mapping[str, Any]) -> int:
        """Create a workflow and return its number. Never repeated."""
        return self.api.call("POST", "/workflows", read_id, body=body_of(description), repeat=False)

    def describe_workflow(self, workflow_id: int) -> dict[str, Any]:
        """Return everything about one workflow. Asks again for 3 s: around its end the service does not know it."""
        path = f"/workflows/{natural(workflow_id)}"
        return self.api.repeats.while_not_found(_ENDING, lambda: self.api.call("GET", path, read_workflow))

    def list_workflows(
        self,
        *,
        constraint: tuple[str, str] | None = None,
        all: bool = False,  # the service's word
        completed: bool = False,
        num: int | None = None,
        name: str | None = None,
        status: str | None = None,
        detail: bool = False,
    ) -> list[dict[str, Any]]:
        """List workflows, as ``list_jobs`` lists jobs."""
        given = {"all": all, "completed": completed, "num": num, "name": name, "status": status, "detail": detail}
        return self._list("/workflows", None, constraint, given)

    def _list(
        self, path: str, ids: Iterable[int] | None, constraint: tuple[str, str] | None, given: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        params = filters(constraint, given)
        read = read_jobs if path == "/jobs" else read_workflows
        if ids is None:
            return self.api.call("GET", path, read, params=params)
        answers = [self.api.call("GET", path, read, params={**params, "id": some}) for some in id_lists(ids)]
        return list(itertools.chain.from_iterable(answers))

    def delete_workflow(self, workflow_id: int) -> None:
        """Delete a workflow and its jobs.

        Raises:
            NotFoundError: it is not active any more, or never was.
        """
        self.api.call("DELETE", f"/workflows/{natural(workflow_id)}", read_nothing)

    def clone_workflow(self, workflow_id: int) -> int:
        """Create a workflow with the same description and return its number. Never repeated."""
        return self.api.call("PUT", f"/workflows/{natural(workflow_id)}/clone", read_id, repeat=False)

    def rerun_workflow(self, workflow_id: int) -> int:
        """Create a workflow of the jobs that failed in this one and return its number. Never repeated."""
        return self.api.call("PUT", f"/workflows/{natural(workflow_id)}", read_id, repeat=False)

    # -- the service ---------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return what the service says of itself; one that is not well answers 409 and names what is not."""
        return self.api.call("GET", "/health", read_dict, accept=409)

    def resources(self) -> dict[str, Any]:
        """Return the sites with their capacity, and what of it is free."""
        return self.api.call("GET", "/resources", read_dict)


@contextmanager
def _explained(refusal: str) -> Iterator[None]:
    """Add to a refusal of the service why that may be."""
    try:
        yield
    except InvalidRequestError as error:
        if refusal in str(error):
            text = f"{error}; so it is for every job where the platform's workers have no sshd"
            raise InvalidRequestError(text, error.status_code) from error
        raise
