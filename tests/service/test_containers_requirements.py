"""numpy and scipy travel into a container that has neither: in jobs, chunks and warm workers, uploaded once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from container_images import lacking, same_python

from prominence_executor import ProminenceExecutor, RequirementsError
from prominence_executor.environments.store import locked
from prominence_executor.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.once, same_python, pytest.mark.timeout(900)]

REQUIREMENTS = ["numpy==2.1.3", "scipy==1.14.1"]


def test_packages_travel_into_a_container_and_are_uploaded_once(
    containers: LocalService,
    runtime: str,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))

    def eigenvalue(size: int) -> tuple[float, str, str]:  # inside: the image has no pytest, which this module imports
        import numpy
        from scipy.linalg import eigh  # type: ignore[import-not-found,import-untyped,unused-ignore]

        largest = float(eigh(numpy.ones((size, size)), eigvals_only=True)[-1])
        return round(largest, 6), numpy.__version__, numpy.__file__

    plain = lacking(image, "plain")

    def make(**options: Any) -> ProminenceExecutor:
        return ProminenceExecutor(containers.url, containers.token, image=plain, runtime=runtime, **options)

    def stored(executor: ProminenceExecutor) -> list[tuple[str, str]]:
        items = executor.client.list_data()
        return [(item["name"], item["lastModified"]) for item in items if item["name"].startswith("pxpacks-")]

    try:
        locked(REQUIREMENTS)
    except RequirementsError as error:
        if "Failed to fetch" not in str(error):
            raise
        pytest.skip("no package index can be reached")
    with make(requirements=REQUIREMENTS) as executor:
        value, version, place = executor.submit(eigenvalue, 5).result()
        assert (value, version) == (5.0, "2.1.3")
        assert ".pxpackages-" in place
        first = stored(executor)
        assert len(first) == 1
        with pytest.raises(ModuleNotFoundError, match="numpy"):
            executor.with_options(requirements=[]).submit(eigenvalue, 5).result()
    with make(requirements=REQUIREMENTS) as executor:
        began = time.monotonic()
        assert list(executor.map(eigenvalue, [3, 4], chunksize=2))[1][:2] == (4.0, "2.1.3")
        travelled = time.monotonic() - began
        assert stored(executor) == first
        usual = executor.with_options(requirements=[], image=image)
        usual.submit(len, "abc").result()  # which has the image unpacked
        began = time.monotonic()
        usual.submit(lambda: __import__("numpy").__version__).result()
        within = time.monotonic() - began
        print(f"{runtime}: a second run's job {travelled:.1f} s, one with numpy in the image {within:.1f} s")
    with make(requirements=REQUIREMENTS, workers="warm", max_workers=1) as executor:
        assert [result[0] for result in executor.map(eigenvalue, [3, 4, 5])] == [3.0, 4.0, 5.0]
        assert stored(executor) == first
