"""Uploads and downloads: bytes are bytes, broken ones begin again, and no token goes to the object store."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from peer import TOKEN, Answer, Peer

from prominence_executor.client import ProminenceClient
from prominence_executor.client.transfers import Stream
from prominence_executor.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, TransferError

CONTENT = bytes(range(256)) * 5000


# -- downloads ---------------------------------------------------------------------------------------------------------


def test_a_download_is_the_bytes_as_they_are_and_needs_no_token(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=CONTENT))
    assert client.download(peer.url + "/o?Signature=s%2Fx") == CONTENT
    assert "Authorization" not in peer.asked[0].headers
    assert peer.asked[0].query == {"Signature": ["s/x"]}


def test_a_download_streams_to_a_path_or_a_file(peer: Peer, client: ProminenceClient, tmp_path: Path) -> None:
    peer.answer(Answer(body=CONTENT))
    client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["o"]
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    client.download(peer.url, buffer)
    assert buffer.getvalue() == b"before" + CONTENT
    with tempfile.SpooledTemporaryFile(max_size=100) as spooled:
        client.download(peer.url, spooled)  # type: ignore[call-overload]
        spooled.seek(0)
        assert spooled.read() == CONTENT


@pytest.mark.parametrize("failure", [Answer(503), Answer(reset=True), Answer(body=CONTENT[:-1], length=len(CONTENT))])
def test_a_broken_download_begins_again(peer: Peer, client: ProminenceClient, tmp_path: Path, failure: Answer) -> None:
    peer.answer(failure, Answer(body=CONTENT))
    assert client.download(peer.url) == CONTENT
    peer.answer(failure, Answer(body=CONTENT))
    client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == CONTENT
    assert len(peer.asked) == 2


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
def test_a_part_begins_again_where_the_store_does_not_tell_whether_the_object_is_the_same(
    peer: Peer, client: ProminenceClient, tag: str
) -> None:
    headers = {"Content-Range": f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": tag}
    cut = Answer(206, CONTENT[100:-1000], headers, length=len(CONTENT) - 100)
    peer.answer(cut, Answer(206, CONTENT[100:], headers))
    assert client.download(peer.url, part=(100, len(CONTENT) - 100)) == CONTENT[100:]
    assert [asked.headers["Range"] for asked in peer.asked] == [f"bytes=100-{len(CONTENT) - 1}"] * 2


def test_the_store_is_tried_again_when_it_asked_to_be(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(503, headers={"Retry-After": "1"}), Answer(body=CONTENT))
    began = time.monotonic()
    assert client.download(peer.url) == CONTENT
    assert time.monotonic() - began >= 1


def test_a_download_that_stays_short_leaves_nothing_behind(peer: Peer, tmp_path: Path) -> None:
    peer.answer(Answer(body=CONTENT[:1000], length=len(CONTENT)))
    with ProminenceClient(peer.url, TOKEN, retry_for=0.5) as client:
        with pytest.raises(TransferError):
            client.download(peer.url + "?Signature=hidden", tmp_path / "o")
        assert os.listdir(tmp_path) == []
        with pytest.raises(TransferError) as caught:
            client.download(peer.url + "?Signature=hidden")
    assert "hidden" not in str(caught.value)


def test_a_failed_download_keeps_the_file_that_was_there(peer: Peer, client: ProminenceClient, tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"old")
    peer.answer(Answer(404, b"<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>"))
    with pytest.raises(NotFoundError, match="The key does not exist"):
        client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["o"]


def test_a_url_that_has_expired_is_said_to_be_denied(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(403, b"<Error><Message>Request has expired</Message></Error>"))
    with pytest.raises(PermissionDeniedError, match="Request has expired"):
        client.download(peer.url)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_os_error_at_once_and_leaves_nothing_behind(
    peer: Peer, client: ProminenceClient, tmp_path: Path
) -> None:
    peer.answer(Answer(body=CONTENT))
    (tmp_path / "o.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        client.download(peer.url, tmp_path / "o")
    assert os.listdir(tmp_path) == []
    assert len(peer.asked) == 1


# -- uploads -----------------------------------------------------------------------------------------------------------


def sources(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "source"
    path.write_bytes(b"skipped" + CONTENT)
    file = path.open("rb")
    file.seek(7)
    whole = tmp_path / "whole"
    whole.write_bytes(CONTENT)
    return {
        "bytes": CONTENT,
        "bytearray": bytearray(CONTENT),
        "memoryview": memoryview(CONTENT),
        "path": whole,
        "file": file,
        "list": [CONTENT[:10], b"", CONTENT[10:]],
        "iterator": iter([CONTENT[:10], memoryview(CONTENT)[10:]]),
    }


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "path", "file", "list", "iterator"])
def test_an_upload_streams_any_source_without_the_token(
    peer: Peer, client: ProminenceClient, tmp_path: Path, kind: str
) -> None:
    source = sources(tmp_path)
    peer.answer(Answer(201, {"url": peer.url + "/store?Signature=s"}), Answer())
    client.upload("big.bin", source[kind], size=len(CONTENT))
    ask, put = peer.asked
    assert (ask.method, ask.path) == ("POST", "/prominence/v1/data/upload")
    assert json.loads(ask.body) == {"filename": "big.bin", "checksum": None}
    assert (put.method, put.body == CONTENT) == ("PUT", True)
    assert "Authorization" not in put.headers
    assert put.headers["x-ms-blob-type"] == "BlockBlob"
    assert put.headers["Content-Length"] == str(len(CONTENT))
    source["file"].close()


def test_an_empty_upload(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer())
    client.upload("empty", b"")
    assert peer.asked[1].headers["Content-Length"] == "0"
    assert "Transfer-Encoding" not in peer.asked[1].headers


def test_an_upload_with_checksum_is_a_form_whose_last_part_is_the_file(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url, "fields": {"key": "uploads/x", "policy": "p=="}}), Answer(204, b""))
    client.upload("x", CONTENT, checksum=True)
    ask, post = peer.asked
    assert json.loads(ask.body)["checksum"] == hashlib.sha256(CONTENT).hexdigest()
    assert post.method == "POST"
    assert "Authorization" not in post.headers
    boundary = post.headers["Content-Type"].partition("boundary=")[2].encode()
    first, second, third, end = post.body.split(b"--" + boundary)[1:]
    assert first == b'\r\nContent-Disposition: form-data; name="key"\r\n\r\nuploads/x\r\n'
    assert second == b'\r\nContent-Disposition: form-data; name="policy"\r\n\r\np==\r\n'
    assert third == b'\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + CONTENT + b"\r\n"
    assert end == b"--\r\n"


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "list"])
def test_a_broken_upload_begins_again(peer: Peer, client: ProminenceClient, tmp_path: Path, kind: str) -> None:
    source = sources(tmp_path)
    url = Answer(201, {"url": peer.url})
    peer.answer(url, Answer(503), url, Answer(reset=True), url, Answer())
    client.upload("x", source[kind])
    assert len(peer.asked) == 6
    assert peer.asked[-1].body == CONTENT
    source["file"].close()


def test_a_broken_upload_from_an_iterator_cannot_begin_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer(503))
    with pytest.raises(TransferError):
        client.upload("x", iter([b"abc"]), size=3)
    assert len(peer.asked) == 2


@pytest.mark.parametrize("buffers", [[b"ab"], [b"abcd"], [b"abc", b"d"]])
def test_a_source_that_does_not_have_its_size_is_an_error(peer: Peer, buffers: list[bytes]) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer())
    with ProminenceClient(peer.url, TOKEN, retry_for=0) as client:
        with pytest.raises(TransferError, match="3 bytes"):
            client.upload("x", iter(buffers), size=3)


def test_an_upload_that_the_store_refuses_is_not_repeated(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(
        Answer(201, {"url": peer.url}), Answer(400, b"<Error><Message>The digest does not match.</Message></Error>")
    )
    with pytest.raises(InvalidRequestError, match="The digest does not match"):
        client.upload("x", b"abc")
    assert len(peer.asked) == 2


def test_what_is_in_memory_is_sent_in_pieces_each_of_which_may_take_its_time() -> None:
    """What is given to a socket at once has to be gone within the timeout of a connection."""
    pieces = list(Stream([CONTENT, b"", memoryview(CONTENT)], None))
    assert b"".join(pieces) == CONTENT * 2
    assert max(map(len, pieces)) <= 1 << 18
