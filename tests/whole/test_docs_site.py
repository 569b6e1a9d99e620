"""The site of the documentation: built without a warning, it needs no network, and has every public name.

Needs the extra ``docs``; without it these tests are skipped (.ci/run installs it for them).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import DATA, ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")

pytestmark = pytest.mark.once

# What a browser fetches by itself: scripts, styles, fonts, pictures. Links that a reader follows are none.
ELSEWHERE = r"""["']?(?:https?:)?//"""
FETCHED = re.compile(
    rf"<(?:script|img|iframe|source)\b[^>]*\bsrc={ELSEWHERE}|url\({ELSEWHERE}"
    rf"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref={ELSEWHERE}"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, with every warning an error, and no way to the network."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "http_proxy": nowhere, "https_proxy": nowhere,
        "NO_MKDOCS_2_WARNING": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def test_the_pages_need_no_network(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        assert not FETCHED.findall(text), page.relative_to(site)


def test_the_gallery_has_a_page_for_each_program_with_its_picture(site: Path) -> None:
    sources = [path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")]
    listed = (site / "gallery" / "index.html").read_text()
    for path in sources:
        assert f'href="{path.stem}/"' in listed
        page = (site / "gallery" / path.stem / "index.html").read_text()
        assert "as it should be" in page or path.stem == "tree", path  # the program itself is on it
        assert (f'src="../{path.stem}.png"' in page) == (site / "gallery" / f"{path.stem}.png").exists()
    assert 'href="../gallery/"' in (site / "guides" / "index.html").read_text()


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    there = {
        name for page in (site / "reference").rglob("*.html") for name in re.findall(r'id="([\w.]+)"', page.read_text())
    }
    # An object has an id by the name under which the page asks for it, and one by where it is defined.
    ends = {tuple(name.split(".")[-2:]) for name in there if name.startswith("prominence_executor.")}
    names = public_names((DATA / "public_api.txt").read_text())
    assert len(names) > 200
    missing = [name for name in names if tuple(name.split(".")) not in {end[-name.count(".") - 1 :] for end in ends}]
    assert missing == []


def public_names(recorded: str) -> list[str]:
    """Read classes, functions, and the methods and properties of classes from the recorded interface."""
    names, owner = [], ""
    for line in recorded.partition("=== command line ===")[0].split("\n"):
        if begun := re.match(r"(?:class|def) (\w+)", line):
            owner = begun[1]
            names.append(owner)
        elif member := re.match(r"    (?:def (\w+)\(|(\w+): .*# property)", line):
            name = member[1] or member[2]
            names += [] if name.startswith("__") else [f"{owner}.{name}"]
    return names
