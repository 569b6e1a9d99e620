"""A real image from `image build`: what is in it, and what calls and `check_image` find when it is used or crippled."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import container_images as images
import pytest
from archives import layer_of, unpack
from container_images import same_python

from prominence_executor import JobFailedError, ProminenceExecutor, PythonMismatchError
from prominence_executor.service import LocalService

pytestmark = pytest.mark.slow


def test_an_image_has_python_and_the_requirements_and_nothing_of_the_machine_that_made_it(
    image: Path,
    tmp_path: Path,
) -> None:
    printed, *steps = (image.parent / "container-image.txt").read_text().splitlines()
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert printed == f"{image.parent / 'building.tar'}  {image.stat().st_size} bytes  sha256:{digest}"
    assert [line.partition(":")[0] for line in steps] == ["debootstrap", "packages", "pip", "byte code", "packing"]
    members = layer_of(image, "building:latest")
    site = f"usr/local/lib/python{images.PYTHON}/dist-packages/numpy"
    assert {"usr/bin/env", "usr/bin/python3", "usr/bin/sh", f"{site}/__init__.py"} <= members.keys()
    gone = ("usr/share/doc/", "usr/share/man/", "var/lib/apt/lists/", "var/cache/", "var/log/", "root/", "dev/", "tmp/")
    left = [name for name in members if name.startswith(gone) or name.endswith(("pip.conf", "resolv.conf"))]
    assert left == []
    assert members["tmp"].mode == 0o1777
    assert sum(member.size for name, member in members.items() if "/numpy" not in name) < 250_000_000
    tree = tmp_path / "tree"
    unpack(image, tree)
    for source in (f"usr/lib/python{images.PYTHON}/json", f"{site}"):
        code = tree / source / "__pycache__" / f"__init__.cpython-{images.PYTHON.replace('.', '')}.pyc"
        assert code.read_bytes()[4:8] == bytes([1, 0, 0, 0])  # PEP 552: it is taken without a look at its source
    sources = (tree / "etc/apt/sources.list").read_text()
    assert sources == f"deb http://deb.debian.org/debian {images.SUITE} main\n"
    program = "import ctypes, hmac, json, mmap, numpy, sqlite3, ssl, sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run(["chroot", str(tree), "python3", "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout == images.PYTHON + "\n", ran.stderr
    shutil.rmtree(tree)


@pytest.fixture(params=["job", "warm"])
def executor(
    containers: LocalService,
    runtime: str,
    image: Path,
    request: pytest.FixtureRequest,
) -> Iterator[ProminenceExecutor]:
    options: dict[str, Any] = {"workers": "warm", "max_workers": 1} if request.param == "warm" else {}
    with ProminenceExecutor(
        containers.url, containers.token, image=image, runtime=runtime, poll_interval=(0.05, 0.5), **options
    ) as executor:
        yield executor


def test_an_image_without_python_is_said_on_the_future_and_by_check_image(
    executor: ProminenceExecutor, image: Path
) -> None:
    lacking = images.lacking(image, "bare")
    view = executor.with_options(image=lacking)
    errors = [view.submit(len, "four").exception(60)]
    with pytest.raises(JobFailedError) as caught:
        view.check_image(timeout=60)
    errors.append(caught.value)
    for error in errors:
        assert type(error) is JobFailedError
        assert f"{lacking} (pximage-" in str(error)
        assert "has no working python3" in str(error)
        assert error.job_id


@same_python
def test_a_package_that_is_missing_is_said_with_image_and_job(executor: ProminenceExecutor, image: Path) -> None:
    lacking = images.lacking(image, "plain")

    def needs_numpy() -> str:
        import numpy

        return str(numpy.__version__)

    future = executor.with_options(image=lacking).submit(needs_numpy)
    error = future.exception(60)
    assert type(error) is ModuleNotFoundError
    assert error.name == "numpy"
    note = getattr(error, "__notes__", [str(error.__cause__)])[-1]
    assert f"{lacking} (pximage-" in note
    assert f"of job {future.job_id}" in note


@pytest.mark.skipif("{}.{}".format(*sys.version_info) == images.PYTHON, reason="the image has this Python")
def test_another_python_is_said_on_the_future_and_is_no_error_of_check_image(executor: ProminenceExecutor) -> None:
    error = executor.submit(len, "four").exception(60)
    assert isinstance(error, PythonMismatchError)
    assert f"has Python {images.PYTHON} " in str(error)
    assert not executor.check_image(timeout=60).usable


def test_check_image_finds_what_is_in_the_image(executor: ProminenceExecutor) -> None:
    report = executor.check_image(timeout=60)
    assert report.python.startswith(images.PYTHON + ".")
    assert report.executable == "/usr/bin/python3"
    assert "numpy" in report.packages
    assert "pytest" in report.missing
    assert os.fspath(report.executable) in str(report)
