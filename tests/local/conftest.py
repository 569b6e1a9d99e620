"""A user of the session's embedded service."""

from __future__ import annotations

import pytest
from people import Person

from prominence_executor.local import LocalService


@pytest.fixture
def person(service: LocalService) -> Person:
    return Person(service.url, service.token_for("person"))
