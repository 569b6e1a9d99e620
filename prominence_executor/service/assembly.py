"""The parts of one service, put together. Imported when a service starts, since all of it costs time."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, closing

from .execution.context import ServiceContext
from .execution.notifications import Mail
from .execution.scheduler import Scheduler
from .execution.workflows import Workflows
from .http import server
from .http.app import Application


def run(
    stack: ExitStack,
    context: ServiceContext,
    listener: socket.socket,
    secured: ssl.SSLContext | None,
    smtp: str | None,
) -> None:
    """Start every thread of a service and listen; the stack stops them.

    Raises:
        RuntimeError: the engine cannot be used.
        ValueError: `smtp` is not "HOST:PORT".
    """
    store, vital = context.store, context.vital
    scheduler = Scheduler(context)
    workflows = Workflows(store, scheduler, context.engine)
    mail = Mail(store, context.directory / "mail", smtp, vital)
    scheduler.on_ended = (workflows.job_ended, mail.job_ended)
    application = stack.enter_context(closing(Application(context, scheduler, workflows)))
    http = server.Server(application, application.wake, listener, secured)
    stack.callback(http.stop)
    mail.start()
    stack.callback(mail.stop)
    scheduler.start()
    stack.callback(scheduler.stop)
    workflows.recover()
    http.start()
    stack.callback(vital.close)
