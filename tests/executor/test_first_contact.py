"""What somebody is told who has set nothing; how a run is called."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from calls import square

from prominence_executor import AuthenticationError, InvalidRequestError, ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.runs import list_jobs

pytestmark = pytest.mark.once


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("PROMINENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_all_that_is_missing_is_said_at_once(nothing_set: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ProminenceExecutor()
    said = str(caught.value)
    for word in ("PROMINENCE_URL", "url='https://", "PROMINENCE_TOKEN", "token=", "~/.prominence/token", "url='local'"):
        assert word in said
    assert "\n" not in said
    assert said.count("url='local'") == 1


def test_only_what_is_missing_is_said(nothing_set: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ProminenceExecutor(token="some")
    assert "there is no URL of a service" in str(caught.value)
    assert "there is no token" not in str(caught.value)
    with pytest.raises(AuthenticationError) as refused:
        ProminenceExecutor("https://host/prominence/v1")
    assert "there is no URL" not in str(refused.value)
    assert "url='local'" in str(refused.value)
    nothing_set.setenv("PROMINENCE_TOKEN", "two words")
    with pytest.raises(AuthenticationError, match="holds no token: it must be one word") as refused:
        ProminenceExecutor("https://host/prominence/v1")
    assert "url='local'" not in str(refused.value)


@pytest.mark.parametrize("url", ["Local", "host.org/prominence/v1", "ftp://host/prominence/v1"])
def test_what_is_no_url_is_said_before_a_missing_token(nothing_set: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="URL must look like https://host/prominence/v1, not"):
        ProminenceExecutor(url)


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_of_workers_where_process_pools_have_it_is_no_url(
    nothing_set: pytest.MonkeyPatch, number: Any
) -> None:
    nothing_set.setenv("PROMINENCE_URL", "https://host/prominence/v1")
    with pytest.raises(TypeError, match=f"not {number}: a number of workers is max_workers={number}"):
        ProminenceExecutor(number)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resources": {"cpus": 2}},
        {"env": ["OMP_NUM_THREADS=1"]},
        {"max_workers": "4"},
        {"workers": "warm", "max_workers": "4"},
    ],
)
def test_a_value_of_another_type_is_named_with_its_field(wrong: dict[str, Any]) -> None:
    field, value = list(wrong.items())[-1]
    with pytest.raises(TypeError) as caught:
        ProminenceExecutor("http://127.0.0.1:9/v1", "token", **wrong)
    assert str(caught.value).startswith(f"{field} must be ")
    assert str(caught.value).endswith(f", not {value!r}")


def test_a_run_has_a_name_and_an_id(service: LocalService) -> None:
    name, run_id = f"scan{uuid.uuid4().hex[:8]}", f"run-{uuid.uuid4()}"
    with ProminenceExecutor(
        service.url, service.token, name=name, run_id=run_id, poll_interval=(0.05, 0.5)
    ) as executor:
        assert executor.run_id == run_id
        assert executor.submit(square, 2).result(60) == 4
        with_name = list_jobs(executor.client, all=True, label=("pxname", name))
        assert [(job.run_id, job.function) for job in with_name] == [(run_id, "calls.square")]
        labels = executor.client.describe_job(with_name[0].id)["labels"]
    assert labels == {"pxname": name, "pxrun": run_id, "pxfunction": "calls.square"}
    with ProminenceExecutor(service.url, service.token, name=name, poll_interval=(0.05, 0.5)) as executor:
        assert executor.run_id.startswith(f"{name}-")


@pytest.mark.parametrize("label", ["pxname", "pxfunction", "pxrun"])
def test_labels_of_the_executors_own_are_refused(service: LocalService, label: str) -> None:
    with pytest.raises(ValueError, match="the executor's own label"):
        ProminenceExecutor(service.url, service.token, labels={label: "x"})
