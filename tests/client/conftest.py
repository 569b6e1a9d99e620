"""A scripted peer, and a client that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peer import TOKEN, Peer, a_peer

from prominence_executor.client import ProminenceClient


@pytest.fixture
def peer() -> Iterator[Peer]:
    with a_peer() as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[ProminenceClient]:
    with ProminenceClient(peer.url, TOKEN, timeout=(2, 5), retry_for=5) as client:
        yield client
