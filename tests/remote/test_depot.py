"""The object store as a warm worker uses it: what does not come in time is given up, before it counts as silent."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from peer import Answer, Peer, a_peer
from proxy import FaultProxy, dripped, slow

from prominence_executor.remote import depot
from prominence_executor.remote.depot import LONGEST, STALLED, Depot
from prominence_executor.remote.key_value import CONNECT
from prominence_executor.service import LocalService
from prominence_executor.transports.warm.workers import _SILENT

CONTENT = os.urandom(3 << 20)


def described(url: str, content: bytes = CONTENT) -> dict[str, Any]:
    return {"url": url, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with a_peer() as peer:
        yield peer


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depot, "LONGEST", 0.5)


def test_a_worker_is_never_silent_for_long_because_of_the_object_store() -> None:
    assert CONNECT < STALLED < LONGEST
    assert LONGEST + STALLED < _SILENT


def test_what_comes_in_time_is_fetched_whole_over_a_connection_that_stays_or_not(peer: Peer) -> None:
    peer.answer(Answer(body=CONTENT), Answer(body=CONTENT, headers={"Connection": "close"}), Answer(body=CONTENT))
    store = Depot(bytes(32))
    assert [store.fetch(described(peer.url + "/object")) for _ in range(3)] == [CONTENT] * 3
    assert len(store.connections) == 1
    assert len(peer.asked) == 3
    store.close()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("fault", [dripped(60), slow(60)])
def test_what_comes_too_slowly_is_given_up(service: LocalService, fault: Any) -> None:
    with FaultProxy(service.url) as proxy:
        proxy.inject(fault)
        began, store = time.monotonic(), Depot(bytes(32))
        with pytest.raises(OSError):
            store.fetch(described(proxy.url + "/openapi.json"))
        assert time.monotonic() - began < 20
        store.close()


@pytest.mark.usefixtures("hurried")
def test_what_is_not_taken_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_reads:
        store = Depot(bytes(32))
        url = f"http://127.0.0.1:{nobody_reads.getsockname()[1]}/place"
        store.addresses["place"] = url, time.monotonic()
        with pytest.raises(OSError):
            store.put("place", os.urandom(32 << 20))
        store.close()
