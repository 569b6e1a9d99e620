"""A service that other machines reach has a certificate of its own authority, which clients and tasks are given."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from one_node_slurm import OneNodeSlurm
from paths import ROOT

from prominence_executor import ProminenceExecutor
from prominence_executor.service import LocalService
from prominence_executor.service.state.authority import alternatives, certified, hosts_of

pytestmark = pytest.mark.once

ANY = "0.0.0.0"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def square(number: int) -> int:
    return number * number


def test_names_and_addresses_stand_in_the_certificate_as_what_they_are() -> None:
    assert alternatives(["10.0.0.1", "login.example", "10.0.0.1"]) == "IP:10.0.0.1, DNS:login.example"
    assert "0.0.0.0" not in hosts_of(ANY, "login.example")


def test_the_authority_stays_and_the_certificate_is_made_anew_for_other_names(tmp_path: Path) -> None:
    first = certified(tmp_path / "tls", ["a.example"])
    authority, certificate = first.cafile.read_bytes(), first.certfile.read_bytes()
    assert certified(tmp_path / "tls", ["a.example"]) == first
    assert first.certfile.read_bytes() == certificate
    certified(tmp_path / "tls", ["b.example"])
    assert first.cafile.read_bytes() == authority
    assert first.certfile.read_bytes() != certificate
    for name in ("ca.key", "service.pem"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o077 == 0


def test_under_a_umask_for_groups_it_is_made_and_found_again(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        made = certified(tmp_path / "tls", ["a.example"])
    finally:
        os.umask(before)
    assert made.cafile.stat().st_mode & 0o777 == 0o644
    made.cafile.chmod(0o664)  # as an earlier release left it
    assert certified(tmp_path / "tls", ["a.example"]) == made
    assert made.cafile.stat().st_mode & 0o777 == 0o644
    made.cafile.chmod(0o664)
    made.cafile.parent.chmod(0o755)  # others may have written there
    with pytest.raises(RuntimeError, match="can be written by others"):
        certified(tmp_path / "tls", ["a.example"])


def test_clients_with_the_authority_reach_it_and_others_refuse(tmp_path: Path) -> None:
    with LocalService(tmp_path, bind=ANY) as service:
        assert service.cafile is not None
        port = int(service.url.rpartition(":")[2].partition("/")[0])
        url = f"https://127.0.0.1:{port}/prominence/v1"
        assert requests.get(f"{url}/health", verify=str(service.cafile), timeout=30).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{url}/health", timeout=30)
        context = ssl.create_default_context(cafile=str(service.cafile))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                assert secured.version() in ("TLSv1.2", "TLSv1.3")


def test_without_openssl_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="there is no openssl here: give one"):
        LocalService(tmp_path / "state", bind=ANY).start()


def test_one_command_serves_and_prints_the_authority(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
               "--engine", "slurm", "--bind", ANY]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().rstrip() for _ in range(3)]
        finally:
            process.terminate()
    assert lines[0].startswith("export PROMINENCE_URL=https://")
    assert lines[2] == f"export PROMINENCE_SSL_VERIFY={tmp_path / 'state' / 'tls' / 'ca.pem'}"


def test_warm_workers_and_jobs_on_slurm_know_the_authority(
    slurm: OneNodeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    public = f"https://127.0.0.1:{port}/prominence/v1"
    with LocalService(tmp_path / "state", port, engine="slurm", bind=ANY, public_url=public) as service:
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", str(service.cafile))
        with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
            assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
        with ProminenceExecutor(service.url, service.token) as executor:
            said = executor.submit(os.getenv, "PROMINENCE_SSL_VERIFY").result(60)
        assert said == str(service.cafile)


def test_a_service_found_by_its_directory_tells_its_authority(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    port = free_port()
    public = f"https://127.0.0.1:{port}/prominence/v1"
    command = [sys.executable, "-m", "prominence_executor.service", "--quiet", "--dir", str(tmp_path / "state"),
               "--engine", "slurm", "--bind", ANY, "--port", str(port), "--public-url", public]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with ProminenceExecutor(url="slurm", engine={"dir": str(tmp_path / "state")}) as executor:
                assert executor.submit(square, 5).result(60) == 25
            assert process.poll() is None  # and no other was started
        finally:
            process.terminate()
