"""The Flask application: who may ask, how errors look, and which rooms answer.

Errors with a sentence are JSON; those that never reach a view (404, 405, 413, 415, broken JSON) are Werkzeug's HTML
pages, which is what the real service answers too.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from flask import Blueprint, Flask, Response, abort, g, jsonify, request

from ..execution.context import ServiceContext
from ..execution.scheduler import Scheduler
from ..execution.workflows import Workflows
from ..schema.items import Refused
from ..state.objects import BadKey
from ..state.pairs import Pairs
from ..state.representations import SITE
from ..state.shortage import is_full, shortage
from ..state.tokens import BUCKET
from . import data, jobs, keys
from . import workflows as workflow_views
from .context import BASE, Api, api, refuse

LARGEST_BODY = 1 << 20

routes = Blueprint("service", __name__)


def create_app(context: ServiceContext, scheduler: Scheduler, workflows: Workflows) -> Flask:
    """Make the application of one service."""
    # The name of the logger that programs know, as in the other rooms.
    app = Flask("prominence_executor.local", static_folder=None)
    app.url_map.merge_slashes = False
    app.request_class = type("Request", (data.UploadRequest,), {"objects": context.objects})
    app.extensions["prominence"] = Api(context, context.store, scheduler, workflows, Pairs(context.store))
    app.before_request(limit_and_identify)
    for room in (routes, jobs.routes, data.routes, keys.routes, workflow_views.routes):
        app.register_blueprint(room)
    return app


def limit_and_identify() -> Any:
    """Refuse what is too large or comes from nobody, before any view."""
    if request.path.startswith(f"/{BUCKET}"):  # signed URLs speak for themselves, and may be of any size
        return None
    if (request.content_length or 0) > LARGEST_BODY:
        abort(413)
    if request.path == f"{BASE}/health" or request.url_rule is None:
        return None
    identity = api.service.identify(request.headers.get("Authorization"))
    if identity is None:
        return refuse("Authentication failure", 401)
    g.identity = identity
    return None


@routes.app_errorhandler(Refused)
@routes.app_errorhandler(BadKey)
def refused(error: ValueError) -> tuple[Response, int]:
    """Return the sentence that refuses a request."""
    return refuse(str(error))


@routes.app_errorhandler(UnicodeEncodeError)
@routes.app_errorhandler(OverflowError)
@routes.app_errorhandler(RecursionError)
def unusable(error: Exception) -> tuple[Response, int]:
    """Refuse what JSON can say and no file name, environment or database holds: half characters, endless numbers."""
    return refuse(f"the request cannot be used: {error}")


@routes.app_errorhandler(OSError)
@routes.app_errorhandler(sqlite3.Error)
def short_of(error: Exception) -> tuple[Response, int]:
    """Say what there is not enough of at the moment; any other error is what nobody foresaw."""
    sentence = shortage(error)
    if sentence is None:
        raise error
    return refuse(sentence, 507 if is_full(sentence) else 503)


@routes.get(f"{BASE}/health")
def health() -> Response | tuple[Response, int]:
    """Answer that the service is there, or what is wrong with it."""
    problem = api.service.vital.problem()
    return jsonify({}) if problem is None else refuse(problem, 503)


@routes.get(f"{BASE}/resources")
def resources() -> Response:
    """Return the slots of this machine and how many are free."""
    engine = api.service.engine
    cpus, memory = engine.free()
    capacity = {"cpus": engine.cpus, "memory": engine.memory}
    return jsonify({"existing": [{"capacity": capacity, "free": {"cpus": cpus, "memory": memory}, "site": SITE}]})
