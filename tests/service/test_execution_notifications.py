"""Notifications of the embedded service, with a real mail server."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message

from prominence_executor import Job, Notification, ProminenceClient, Resources, Task
from prominence_executor.service import LocalService

Until = Callable[..., None]


class Inbox(Message):
    """Keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    inbox = Inbox()
    server = Controller(inbox, "127.0.0.1", free_port())
    server.start()
    yield inbox, f"127.0.0.1:{server.port}"
    server.stop()


def run(service: LocalService, user: str, command: str, **description: Any) -> Job:
    with ProminenceClient(service.url, service.token_for(user)) as client:
        job = Job(client=client, resources=Resources(walltime=1), **description)
        job.tasks.append(Task(image="any", command=command))
        job.create()
        job.wait(30)
    return job


def test_the_owner_of_a_job_is_told_of_its_end_by_mail(inbox: tuple[Inbox, str], until: Until) -> None:
    received, server = inbox
    with LocalService(cpus=2, memory=4, smtp=server) as service:
        run(service, "ada", "true", name="quiet")
        told = run(service, "ada", "true", name="told", notifications=[Notification()])
        until(lambda: received.mails)
        failed = run(service, "bob@lab.example", "true", output_files=["none"], notifications=[Notification()])
        until(lambda: len(received.mails) == 2)
    first, second = received.mails
    assert first["To"] == "ada@localhost"
    assert first["Subject"] == f"PROMINENCE job {told.id} (told): completed"
    assert second["To"] == "bob@lab.example"
    assert second["Subject"] == f"PROMINENCE job {failed.id}: failed"
    assert "Stageout failed" in second.get_payload()


def test_without_a_mail_server_notifications_are_files(tmp_path: Path, until: Until) -> None:
    with LocalService(tmp_path, cpus=2, memory=4) as service:
        job = run(service, "ada", "true", notifications=[Notification(event="jobFinished", type="email")])
        until(lambda: list((tmp_path / "mail").glob("*.eml")))
    content = (tmp_path / "mail" / f"{job.id}.eml").read_bytes()
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert mail["To"] == "ada@localhost"
    assert "completed" in mail.get_content()


def test_a_mail_server_that_is_not_there_fails_no_job(caplog: pytest.LogCaptureFixture, until: Until) -> None:
    with LocalService(cpus=2, memory=4, smtp=f"127.0.0.1:{free_port()}") as service:
        job = run(service, "ada", "true", notifications=[Notification()])
        until(lambda: "was not sent" in caplog.text)
    assert job.status == "completed"


@pytest.mark.parametrize("owner", ["ada\r\nBcc: eve@lab.example", "ada@[", "ada@", "@lab.example", "ada@lab\x00"])
def test_an_owner_whose_name_is_no_address_gets_no_mail_and_others_do(
    inbox: tuple[Inbox, str], caplog: pytest.LogCaptureFixture, until: Until, owner: str
) -> None:
    received, server = inbox
    with LocalService(cpus=2, memory=4, smtp=server) as service:
        run(service, owner, "true", notifications=[Notification()])
        until(lambda: "was not sent" in caplog.text)
        run(service, "ada", "true", notifications=[Notification()])
        until(lambda: received.mails)
    assert [mail["To"] for mail in received.mails] == ["ada@localhost"]
    assert [mail["Bcc"] for mail in received.mails] == [None]


@pytest.mark.parametrize("address", ["", "host:", ":25", "host:port", "host:70000"])
def test_a_wrong_address_of_a_mail_server_is_said_at_the_start(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        LocalService(smtp=address).start()
