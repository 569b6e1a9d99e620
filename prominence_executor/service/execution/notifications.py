"""Notifications: a mail to the owner of a job that has ended, if its description asks for one.

Mails go to an SMTP server, or, without one, become files ``mail/<job>.eml`` below the service's directory. A thread of
its own sends them: a mail server that hangs or refuses holds up nothing and fails no job; what it says is logged.
"""

from __future__ import annotations

import logging
import queue
import re
import smtplib
import sqlite3
import time
import uuid
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path

from ..state.directory import own_directory, write_whole
from ..state.store import Store
from ..state.vital import VitalThreads

log = logging.getLogger("prominence_executor.local")

_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)*")
_SECONDS = 20  # for which a mail server may be silent
_LAST = 5.0  # seconds that mails have when the service stops


def server_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, the port 25 by default. Raises ValueError."""
    host, colon, port = text.rpartition(":") if ":" in text else (text, "", "25")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"an SMTP server must be HOST:PORT, not {text!r}")
    return host.strip("[]"), int(port)


class Mail:
    """The outgoing mail of one service. `job_ended` may be called from any thread."""

    def __init__(self, store: Store, directory: Path, smtp: str | None, vital: VitalThreads) -> None:
        self._store, self._directory = store, directory
        self._server = None if smtp is None else server_address(smtp)
        self._ended: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = vital.make("mail", self._turn)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, within a few seconds."""
        self._ended.put(None)
        self._thread.join(_LAST)

    def job_ended(self, job: int) -> None:
        """Have the job's owner told, if the description says so; return at once."""
        row = self._store.job(job)
        if row is not None and self._store.body(row).get("notifications"):
            self._ended.put(job)

    def _turn(self) -> bool:
        """Send one mail; whether to go on."""
        job = self._ended.get()
        if job is None:
            return False
        try:
            row = self._store.job(job)
            if row is not None:
                self._send(job, message(row))
        except Exception as error:  # noqa: BLE001 (email raises anything for an odd address; the next mail must go)
            log.warning("the mail about job %d was not sent: %s", job, error)
        return True

    def _send(self, job: int, mail: EmailMessage) -> None:
        if self._server is None:
            write_whole(own_directory(self._directory) / f"{job}.eml", mail.as_bytes())
            return
        with smtplib.SMTP(*self._server, timeout=_SECONDS) as server:
            server.send_message(mail)


def message(row: sqlite3.Row) -> EmailMessage:
    """Write the mail about an ended job. Raises ValueError for an owner whose name cannot be one of an address."""
    name, at, domain = str(row["user"]).rpartition("@")
    if at and not (name and _DOMAIN.fullmatch(domain)):
        raise ValueError(f"{row['user']!r} is not an address")
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address("PROMINENCE", "prominence", "localhost")
    mail["To"] = Address(username=name, domain=domain) if at else Address(username=domain, domain="localhost")
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{uuid.uuid4()}@localhost>"  # the library's own draws from the program's generator
    called = f" ({row['name']})" if row["name"] else ""
    mail["Subject"] = f"PROMINENCE job {row['id']}{called}: {row['status']}"
    lines = [f"Job {row['id']}{called} has ended.", "", f"Status:  {row['status']}"]
    if row["reason"]:
        lines.append(f"Reason:  {row['reason']}")
    for word, column in (("Created", "created"), ("Started", "started"), ("Ended", "ended")):
        if row[column] is not None:
            lines.append(f"{word + ':':8} {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(row[column]))}")
    mail.set_content("\n".join(lines) + "\n")
    return mail
