"""The upstream client, which is not ours, finds the embedded service to be the service that it knows."""

from __future__ import annotations

import time
import warnings

import pytest

from prominence_executor.service import LocalService

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    prominence = pytest.importorskip("prominence")


def test_a_job_of_the_upstream_client_runs(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMINENCE_URL", service.url)
    monkeypatch.setenv("PROMINENCE_TOKEN", service.token_for("upstream"))
    task = prominence.Task()
    task.image, task.runtime, task.command = "python", "singularity", "python3 -c \"open('out', 'w').write('text')\""
    job = prominence.Job()
    job.name, job.tasks, job.output_files, job.labels = "upstream", [task], ["out"], {"by": "upstream"}
    job.resources.walltime = 10
    job.create()
    deadline = time.monotonic() + 20
    while job.status not in ("completed", "failed", "deleted", "killed"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert job.status == "completed"
    assert job.get_output_file("out") == "text"
    client = prominence.ProminenceClient(authenticated=True)
    assert [item["id"] for item in client.list_jobs(status="all", constraint="by=upstream")] == [job.id]
    assert client.list_jobs() == []
