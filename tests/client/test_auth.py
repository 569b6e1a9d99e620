"""Where URL, token and certificates come from, and that a token shows nowhere."""

from __future__ import annotations

import base64
import json
import pickle
import threading
import time
from pathlib import Path

import pytest

from prominence_executor import cli
from prominence_executor.client import checkup
from prominence_executor.client.auth import TokenSource, base_url, expiry, verification
from prominence_executor.errors import AuthenticationError, InvalidRequestError, ProminenceError


def jwt(seconds_from_now: float) -> str:
    """A token with an expiry; nobody here verifies its signature."""
    parts = [{"alg": "HS256"}, {"username": "u", "exp": time.time() + seconds_from_now}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + ".x"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it, and an environment that names no service and no token."""
    for name in ("PROMINENCE_TOKEN", "PROMINENCE_URL", "PROMINENCE_SSL_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / ".prominence").mkdir()
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / ".prominence" / "token").write_text(text)


def test_the_argument_comes_before_the_environment_before_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, "from-file")
    assert TokenSource().get() == "from-file"
    monkeypatch.setenv("PROMINENCE_TOKEN", "from-environment")
    assert TokenSource().get() == "from-environment"
    assert TokenSource("from-argument").get() == "from-argument"
    assert TokenSource(lambda: "from-callable").get() == "from-callable"


@pytest.mark.parametrize(
    "text", ['{"access_token": "abc.def", "expires_in": 3600}', "abc.def", "abc.def\n", "  abc.def  "]
)
def test_the_file_may_be_upstreams_json_or_plain_text(home: Path, text: str) -> None:
    write(home, text)
    assert TokenSource().get() == "abc.def"


def test_without_any_token_the_error_names_the_three_places(home: Path) -> None:
    with pytest.raises(AuthenticationError) as caught:
        TokenSource().get()
    for place in ("argument", "PROMINENCE_TOKEN", ".prominence"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"), [('{"token": "x"}', "access_token"), ("", "printable"), ("two words", "printable")]
)
def test_a_file_without_a_usable_token_is_named(home: Path, text: str, sentence: str) -> None:
    write(home, text)
    with pytest.raises(AuthenticationError, match=sentence) as caught:
        TokenSource().get()
    assert ".prominence" in str(caught.value)
    assert "two words" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    (home / ".prominence" / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(AuthenticationError, match="cannot be read"):
        TokenSource().get()


def test_a_token_that_would_break_the_header_is_refused_unseen() -> None:
    with pytest.raises(AuthenticationError) as caught:
        TokenSource("secret\r\nX-Other: 1").get()
    assert "secret" not in str(caught.value)


def test_the_token_is_kept_until_it_is_refused(home: Path) -> None:
    write(home, "first")
    source = TokenSource()
    assert source.get() == "first"
    write(home, "second")
    assert source.get() == "first"
    assert source.refresh("first") == "second"
    assert source.get() == "second"


def test_threads_that_were_all_refused_ask_the_callable_once() -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        return f"token-{len(asked)}"

    source = TokenSource(ask)
    refused = source.get()
    threads = [threading.Thread(target=source.refresh, args=(refused,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 2
    assert source.get() == "token-2"


def test_an_expired_token_is_an_error_that_says_where_it_came_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = jwt(-10)
    write(home, token)
    with pytest.raises(
        AuthenticationError, match=r"file .*token expired on \d{4}-\d\d-\d\d .* by this machine's clock"
    ) as caught:
        TokenSource().get()
    assert token not in str(caught.value)
    monkeypatch.setenv("PROMINENCE_TOKEN", token)
    with pytest.raises(AuthenticationError, match="environment variable PROMINENCE_TOKEN expired"):
        TokenSource().get()
    with pytest.raises(AuthenticationError, match="token argument expired"):
        TokenSource(token).get()


def test_a_token_that_expires_while_it_is_kept_is_looked_for_again(home: Path) -> None:
    write(home, short := jwt(0.3))
    source = TokenSource()
    assert source.get() == short
    write(home, good := jwt(1000))
    deadline = time.monotonic() + 10
    while source.get() != good:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_expiry_is_read_without_a_key_and_only_from_jwts() -> None:
    at = expiry(jwt(1000))
    assert at is not None
    assert abs(at - time.time() - 1000) < 5
    for token in ("opaque", "a.b.c", "..", "a.e30.c", "a.W10.c", "a." + "x" * 1001 + ".c", "a.\xe9.c"):
        assert expiry(token) is None


@pytest.mark.parametrize("at", ["9223372036854775807", "1e400", "-1e18", "NaN"])
def test_a_time_that_no_clock_comes_to_is_no_expiry(
    at: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = base64.urlsafe_b64encode(f'{{"exp": {at}}}'.encode()).decode().rstrip("=")
    monkeypatch.setenv("PROMINENCE_TOKEN", f"a.{payload}.c")
    monkeypatch.setenv("PROMINENCE_URL", "http://127.0.0.1:1/prominence/v1")
    monkeypatch.setattr(checkup, "_PATIENCE", 0.0)
    assert cli.main(["check"]) == 3
    assert "it does not say when it expires" in capsys.readouterr().out


def test_a_callable_that_fails_is_an_authentication_error_with_its_cause() -> None:
    def fail() -> str:
        raise RuntimeError("no ticket")

    with pytest.raises(AuthenticationError, match="RuntimeError") as caught:
        TokenSource(fail).get()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_token_source_neither_shows_nor_pickles_its_token() -> None:
    source = TokenSource("secret-token")
    assert source.get() == "secret-token"
    assert "secret-token" not in repr(source)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(source)


def test_the_url_comes_from_argument_or_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError, match=r"url argument .* PROMINENCE_URL"):
        base_url()
    monkeypatch.setenv("PROMINENCE_URL", "https://host/prominence/v1/")
    assert base_url() == "https://host/prominence/v1"
    assert base_url("http://other:8080/x//") == "http://other:8080/x"


@pytest.mark.parametrize(
    "url", ["host/prominence", "ftp://host", "https://", "https://user:pass@host/x", "https://h?x=1"]
)
def test_a_url_that_is_none_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(ProminenceError) as caught:
        base_url(url)
    assert "pass@" not in str(caught.value)


def test_certificates_are_verified_unless_told_otherwise(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verification() is True
    for word in ("False", "false", "0", "no", "off"):
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", word)
        assert verification() is False
    assert verification(True) is True
    for word in ("", "True", "1", "yes"):
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", word)
        assert verification() is True
    assert verification(False) is False
    bundle = home / "ca.pem"
    monkeypatch.setenv("PROMINENCE_SSL_VERIFY", str(bundle))
    with pytest.raises(InvalidRequestError, match="does not exist"):
        verification()
    bundle.touch()
    assert verification() == verification(bundle) == str(bundle)
