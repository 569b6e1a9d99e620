"""Profiles: what is in the file, who goes before whom, and that a token in it is nobody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prominence_executor import AuthenticationError, InvalidRequestError, ProminenceClient, ProminenceExecutor
from prominence_executor.client.auth import TokenSource
from prominence_executor.client.profiles import (
    Profile,
    change_profile,
    find_profile,
    profiles,
    profiles_file,
    service_url,
    shown_url,
)
from prominence_executor.local import LocalService

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it, and an environment that names no service and no token."""
    for name in [name for name in os.environ if name.startswith("PROMINENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_file_there_are_none() -> None:
    assert profiles() == {}
    assert find_profile() == Profile("")
    assert service_url() is None
    with pytest.raises(InvalidRequestError, match=r"there is no profile 'big' in .*config.ini, nor any other one"):
        find_profile("big")


def test_what_is_set_is_there_again_and_for_the_user_alone(home: Path) -> None:
    change_profile("big", {"url": "http://one/prominence/v1", "cpus": "8", "token": "secret"})
    change_profile("default", {"url": "http://two/prominence/v1"})
    change_profile("big", {"url": "http://three/prominence/v1", "image": "x.sif"})
    assert stat.S_IMODE(profiles_file().stat().st_mode) == 0o600
    big = find_profile("big")
    assert (big.get("url"), big.get("image"), big.resources()) == ("http://three/prominence/v1", "x.sif", {"cpus": 8})
    assert "secret" not in repr(big)
    assert service_url() == "http://two/prominence/v1"
    assert sorted(path.name for path in (home / ".prominence").iterdir()) == ["config.ini"]
    assert change_profile("default", {"url": None}) is None
    assert list(profiles()) == ["big"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("big", {"colour": "red"}),
        ("big", {"cpus": "two"}),
        ("big", {"url": ""}),
        ("big", {"url": "http://x\ntoken = y"}),
        ("big", {"url": "https://user:secret@host/v1"}),
        ("big", {"url": "host/v1"}),
        ("small", {"cpus": None}),
        ("a]\n[b", {"url": "http://x"}),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_file_alone(name: str, changes: dict[str, str]) -> None:
    change_profile("big", {"image": "x"})
    before = profiles_file().read_bytes()
    with pytest.raises(InvalidRequestError):
        change_profile(name, changes)
    assert profiles_file().read_bytes() == before


def test_a_change_leaves_the_other_lines_as_they_are(home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / ".prominence").mkdir()
    real = home / "dotfiles" / "config.ini"
    real.write_text("# mine\n[a]\n; why\nURL: http://one\nimage = x\n  y\n\n[big]\ncpus = 2\n# end\n")
    profiles_file().symlink_to(real)
    change_profile("big", {"cpus": "4", "memory": "8"})
    change_profile("a", {"url": "http://two"})
    change_profile("new", {"url": "local"})
    assert profiles_file().is_symlink()
    assert real.read_text() == (
        "# mine\n[a]\n; why\nurl = http://two\nimage = x\n  y\n\n"
        "[big]\ncpus = 4\nmemory = 8\n# end\n\n[new]\nurl = local\n"
    )
    with pytest.raises(InvalidRequestError, match="edit the file"):
        change_profile("a", {"image": "z"})
    assert change_profile("new", {"url": None}) is None
    assert change_profile("big", {"cpus": None, "memory": None}) is None
    assert real.read_text() == "# mine\n[a]\n; why\nurl = http://two\nimage = x\n  y\n\n# end\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/v1", "https://(hidden)@host/v1"),
        ("https://user:sec@r/et@host/v1", "https://(hidden)@host/v1"),
        ("user:secret@host", "(hidden)@host"),
        ("https://host/v1", "https://host/v1"),
        ("local", "local"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("text", ["token = secret\n", "[a]\ncolour = secret\n", "[a]\nx\n", "[a]\n[a]\n"])
def test_a_file_that_is_none_is_a_sentence_without_what_is_in_it(home: Path, text: str) -> None:
    (home / ".prominence").mkdir()
    profiles_file().write_text(text)
    with pytest.raises(InvalidRequestError, match=r"config\.ini") as caught:
        profiles()
    assert "secret" not in str(caught.value)


def test_a_profile_that_is_asked_for_goes_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    change_profile("big", {"url": "http://profile/v1", "token": "of-profile"})
    assert TokenSource(None, "big").get() == "of-profile"
    monkeypatch.setenv("PROMINENCE_URL", "http://variable/v1")
    monkeypatch.setenv("PROMINENCE_TOKEN", "of-variable")
    assert (service_url("big"), TokenSource(None, "big").get()) == ("http://profile/v1", "of-profile")
    monkeypatch.setenv("PROMINENCE_PROFILE", "big")
    assert (service_url(), TokenSource().get()) == ("http://variable/v1", "of-variable")
    monkeypatch.delenv("PROMINENCE_URL")
    monkeypatch.delenv("PROMINENCE_TOKEN")
    assert (service_url(), TokenSource().get()) == ("http://profile/v1", "of-profile")
    assert ProminenceClient().url == "http://profile/v1"
    assert TokenSource("given").get() == "given"


def test_a_token_has_a_file_of_its_own_or_one_that_nobody_else_can_read(home: Path) -> None:
    change_profile("big", {"token_file": "~/mine"})
    with pytest.raises(AuthenticationError, match=r"token_file of profile 'big', ~/mine, cannot be read"):
        TokenSource(None, "big").get()
    (home / "mine").write_text('{"access_token": "in-json"}\n')
    source = TokenSource(None, "big")
    assert (source.get(), source.origin) == ("in-json", "the profile 'big'")
    change_profile("big", {"token": "itself", "token_file": None})
    profiles_file().chmod(0o644)
    with pytest.raises(AuthenticationError, match="others can read it: chmod 600") as caught:
        TokenSource(None, "big").get()
    assert "itself" not in str(caught.value)


def test_its_token_goes_to_no_other_service() -> None:
    change_profile("default", {"url": "http://mine/v1", "token": "mine"})
    assert TokenSource(None, None, "http://mine/v1/").get() == "mine"
    with pytest.raises(AuthenticationError, match="there is no token"):
        TokenSource(None, None, "http://other/v1").get()
    with pytest.raises(AuthenticationError, match="there is no token"):
        ProminenceExecutor("http://other/v1")
    change_profile("default", {"url": None})
    assert TokenSource(None, None, "http://other/v1").get() == "mine"


def test_no_other_service_s_token_goes_to_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".prominence").mkdir()
    (home / ".prominence" / "token").write_text("of-the-file")
    change_profile("big", {"url": "http://mine/v1"})
    monkeypatch.setenv("PROMINENCE_URL", "http://other/v1")
    for variable in ("of-variable", ""):
        monkeypatch.setenv("PROMINENCE_TOKEN", variable)
        with pytest.raises(AuthenticationError, match="the profile 'big' has no token"):
            TokenSource(None, "big", "http://mine/v1").get()
    monkeypatch.setenv("PROMINENCE_TOKEN", "of-variable")
    assert TokenSource(None, "big", "http://other/v1").get() == "of-variable"
    monkeypatch.setenv("PROMINENCE_URL", "http://mine/v1/")
    assert TokenSource(None, "big", "http://mine/v1").get() == "of-variable"
    monkeypatch.delenv("PROMINENCE_URL")
    assert TokenSource(None, "big", "http://mine/v1").get() == "of-variable"


def test_an_executor_takes_from_it_what_is_not_given(service: LocalService) -> None:
    change_profile("big", {"url": service.url, "token": service.token, "image": "any:1", "cpus": "2"})
    with ProminenceExecutor(profile="big", poll_interval=(0.05, 0.5)) as executor:
        job = executor.client.describe_job(_job_of(executor))
    assert (job["tasks"][0]["image"], job["resources"]["cpus"], job["resources"]["memory"]) == ("any:1", 2, 1)
    with ProminenceExecutor(profile="big", image="any:2", poll_interval=(0.05, 0.5)) as executor:
        assert executor.client.describe_job(_job_of(executor))["tasks"][0]["image"] == "any:2"


def _job_of(executor: ProminenceExecutor) -> int:
    future = executor.submit(int)
    assert future.result(60) == 0
    assert future.job_id is not None
    return future.job_id
