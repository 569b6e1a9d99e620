"""The line for ``requirements=`` names the package that a module is of, which often has another name."""

from __future__ import annotations

import sys
import types
from importlib.metadata import version
from pathlib import Path

import pytest

from prominence_executor.payload.installed import requirement_of, requirements_of_script


def install(folder: Path, package: str, *files: str) -> None:
    """Do as pip: say what a package has."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    install(folder, "opencv-python", "cv2/__init__.py", "cv2/cv2.abi3.so")
    install(folder, "shared-core", "shared/core/__init__.py", "shared/other.py")
    install(folder, "a-shared-thing", "shared/thing.abi3.so", "shared/proto/message.py")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cv2", "opencv-python==1.0"),
        ("shared.core.deep", "shared-core==1.0"),
        ("shared.thing", "a-shared-thing==1.0"),
        ("shared.proto.message.Message", "a-shared-thing==1.0"),
        ("yaml", f"PyYAML=={version('PyYAML')}"),
        ("sklearn.svm", f"scikit-learn=={version('scikit-learn')}"),
        ("PIL.Image", f"pillow=={version('pillow')}"),
        ("dateutil", f"python-dateutil=={version('python-dateutil')}"),
        ("nowhere", None),
        ("json", None),
    ],
)
def test_a_module_is_of_a_package_of_another_name(module: str, line: str | None) -> None:
    assert requirement_of(module) == line


def test_what_a_script_imports_is_of_these_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("import cv2, json, yaml.nodes\nfrom shared import core\ndef f():\n    from PIL import Image\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert requirements_of_script() == {
        "opencv-python": "opencv-python==1.0", "pillow": f"pillow=={version('pillow')}",
        "pyyaml": f"PyYAML=={version('PyYAML')}", "shared-core": "shared-core==1.0",
    }  # fmt: skip
