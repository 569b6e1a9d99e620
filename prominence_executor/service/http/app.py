"""From a request to its answer: who may ask, what is refused before it is read, and which view answers.

Every error is JSON with a sentence, also one that never reaches a view (404, 405, 413, 415), where the real service
answers a page.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..execution.context import ServiceContext
from ..execution.facts import has_good_token
from ..execution.scheduler import Scheduler
from ..execution.workflows import Workflows
from ..schema.items import Refused
from ..state.objects import BadKey
from ..state.pairs import Pairs
from ..state.proof import CHALLENGE, PROOF
from ..state.shortage import is_full, shortage
from ..state.tokens import BUCKET, Identity
from . import data, jobs, keys
from . import workflows as workflow_views
from .context import BASE, Aborted, Answer, Api, Ask, failure, jsonify, refuse
from .costs import RequestCosts
from .routes import Route, Routes, Table
from .transfer import LARGEST_BODY, read_body, send
from .waiting import Changes, Topic

_THREADS = 8  # for views: they look at the disk and into the database
_LONG_THREADS = 32  # for those that wait for a process

# The name of the logger that programs know, as in the other rooms.
log = logging.getLogger("prominence_executor.local")
routes = Routes()


class Application:
    """Answers the requests of one service; `wake` before the server stops, `close` when it has."""

    def __init__(self, context: ServiceContext, scheduler: Scheduler, workflows: Workflows) -> None:
        costs = RequestCosts(context.platform)
        self._api = Api(context, context.store, scheduler, workflows, Pairs(context.store), Changes(), costs)
        context.store.on_jobs = self._jobs_changed
        self.asked_at = context.clock.monotonic()  # when a request came last
        self._table = Table(routes, jobs.routes, data.routes, keys.routes, workflow_views.routes)
        self._pool = ThreadPoolExecutor(_THREADS, "http-view")
        self._long = ThreadPoolExecutor(_LONG_THREADS, "http-long")

    def wake(self) -> None:
        """Have requests that wait answered."""
        self._api.changes.close()

    def _jobs_changed(self, users: Mapping[str, Iterable[str]]) -> None:
        """Tell who waits for a list of jobs that it is another one now; called in whichever thread has changed it."""
        topics = {Topic(jobs.room_of(user), label) for user, labels in users.items() for label in labels}
        self._api.changes.announce(*topics, *(Topic(jobs.room_of(user), jobs.ALL) for user in users))

    def close(self) -> None:
        """Join the threads; what has not begun in the long ones is dropped."""
        self._long.shutdown(cancel_futures=True)
        self._pool.shutdown()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; runs in the server's event loop."""
        self.asked_at = self._api.service.clock.monotonic()
        path, query = _target(request)
        ask = Ask(self._api, request, query, self._pool)
        try:
            answer = await self._answer(ask, path)
        except ConnectionError:  # the client is gone
            raise
        except Exception as error:  # noqa: BLE001 (it is answered, and what nobody foresaw is logged)
            answer = answer_to(error)
        if seconds := self._api.service.platform.answer_seconds:
            await asyncio.sleep(seconds)
        return await send(ask, answer)

    async def _answer(self, ask: Ask, path: str) -> Answer:
        found = self._table.find(path)
        method = ask.request.method
        self._admit(ask, path, known=method in found)
        if method not in found:
            return _without_route(method, list(found))
        route, parts = found[method]
        if not route.in_loop and ask.request.can_read_body:
            ask.body = await read_body(ask.request, LARGEST_BODY)
        return await self._called(route, ask, parts)

    async def _called(self, route: Route, ask: Ask, parts: dict[str, Any]) -> Answer:
        call = partial(route.view, ask, **parts)
        if route.in_loop:
            answer: Answer = await call()
            return answer
        pool = self._long if route.long else self._pool
        work: asyncio.Future[Answer] = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # the client is gone; the view goes on, and may open a file
            work.add_done_callback(_discard)
            raise

    @staticmethod
    def _admit(ask: Ask, path: str, *, known: bool) -> None:
        """Refuse what is too large or comes from nobody, before anything of a body is read. Raises Aborted."""
        if path.startswith(f"/{BUCKET}"):  # signed URLs speak for themselves, and may be of any size
            return
        if (ask.request.content_length or 0) > LARGEST_BODY:
            raise Aborted(failure(413))
        if path == f"{BASE}/health" or not known:
            return
        ask.identity = _identify(ask.api, ask.headers.get("Authorization"), path)
        if ask.identity is None:
            raise Aborted(refuse("Authentication failure", 401))


def _discard(work: asyncio.Future[Answer]) -> None:
    if not work.cancelled() and work.exception() is None and (file := work.result().file):
        file.close()


def answer_to(error: Exception) -> Answer:
    """Return the answer to what ended a view, or the reading of its request."""
    if isinstance(error, Aborted):
        return error.answer
    if isinstance(error, (Refused, BadKey)):
        return refuse(str(error))
    if isinstance(error, (UnicodeEncodeError, OverflowError, RecursionError)):
        # What JSON can say and no file name, environment or database holds: half characters, endless numbers.
        return refuse(f"the request cannot be used: {error}")
    if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        return refuse("the body of the request is not as its header says")
    if isinstance(error, asyncio.TimeoutError):
        return refuse("the body of the request did not come", 408)
    if (sentence := shortage(error)) is not None:
        log.error("a request could not be answered: %s", error)
        return refuse(sentence, 507 if is_full(sentence) else 503)
    log.error("a request could not be answered", exc_info=error)
    return failure(500)


def _identify(api: Api, authorization: str | None, path: str) -> Identity | None:
    """Return whom a token speaks for. The database is asked where no run goes on.

    A job's token ends with its job, but for the job's own outputs: as on the real service, it can overwrite those. It
    was made when the job was submitted; until it expires is counted from the job's start.
    """
    identity = api.service.signer.identify(authorization)
    if identity is not None and api.service.only_user not in (None, identity.username):
        return None
    if identity is None or identity.job is None:
        return identity
    if path == f"{BASE}/data/output":
        return identity if not identity.expired or has_good_token(api.service, identity.job) else None
    run = api.scheduler.run_of(identity.job)
    goes_on = run is not None and not run.is_over()
    return identity if goes_on or api.service.is_open(identity.job) else None


def _without_route(method: str, methods: list[str]) -> Answer:
    if not methods:
        return failure(404)
    allowed = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}
    return Answer(headers=allowed) if method == "OPTIONS" else failure(405, allowed)


def _target(request: web.BaseRequest) -> tuple[str, str]:
    """Return path and query string as they were sent, the path without its quoting: a quoted slash is a slash."""
    target = request.raw_path
    if not target.startswith("/"):  # with scheme and host, as to a proxy
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    return unquote(path), query


@routes.get(f"{BASE}/health")
async def health(ask: Ask) -> Answer:
    """Answer that the service is there, or what is wrong with it; and that it is this one to who asks for a proof."""
    service = ask.api.service
    problem = service.vital.problem()
    answer = jsonify({}) if problem is None else refuse(problem, 503)
    transport = ask.request.transport
    host, port, *_ = (transport.get_extra_info("peername") if transport else None) or ("", 0)
    proof = service.signer.proof(ask.headers.get(CHALLENGE, ""), service.url, (host, port))
    return answer if proof is None else replace(answer, headers={PROOF: proof})


@routes.get(f"{BASE}/resources")
def resources(ask: Ask) -> Answer:
    """Return what jobs can have, and how much of it is free."""
    room, site = ask.api.service.engine.room(), ask.api.service.engine.limits().site
    capacity, free = {"cpus": room.cpus, "memory": room.memory}, {"cpus": room.free_cpus, "memory": room.free_memory}
    return jsonify({"existing": [{"capacity": capacity, "free": free, "site": site}]})
