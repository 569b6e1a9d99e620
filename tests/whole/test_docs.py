"""The pages of the documentation: what they show runs, on one embedded service, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from paths import ROOT
from snippets import environment_of, packages_of, run, snippets

from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

PAGES = sorted((ROOT / "docs").rglob("*.md"))
SHOWN = {page: snippets(page) for page in PAGES}
# What needs a machine, a registry or a second terminal that a test has not.
MOST_NOT_RUN = 12

_FENCED = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*([^)\s]+)\s*\)")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return packages_of(tmp_path_factory.mktemp("packages"))


@pytest.mark.timeout(900)  # a page has up to nine
@pytest.mark.parametrize(
    "page",
    [page for page, shown in SHOWN.items() if any(not snippet.not_run for snippet in shown)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_what_a_page_shows_runs(page: Path, service: LocalService, tmp_path: Path, packages: dict[str, str]) -> None:
    environment = environment_of(service, packages)
    needy = []
    for snippet in SHOWN[page]:
        if snippet.needs:
            needy.append(snippet)
        elif not snippet.not_run:
            run(snippet, environment, tmp_path)
    for snippet in needy:  # at the end, since the first that cannot run skips the rest
        run(snippet, environment, tmp_path)


def test_what_is_not_run_says_why_and_is_little() -> None:
    left_out = [snippet for shown in SHOWN.values() for snippet in shown if snippet.not_run]
    assert len(left_out) <= MOST_NOT_RUN, [snippet.where for snippet in left_out]
    assert sum(map(len, SHOWN.values())) > 2 * len(left_out)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(page: Path) -> None:
    dead = []
    for target in _LINK.findall(_FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        if not led.exists() or (heading and led.suffix == ".md" and heading not in headings(led)):
            dead.append(target)
    assert dead == []


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as both GitHub and mkdocs make them of plain words.

    Those of the reference are names of Python, which only the built site has: the build is strict about them.
    """
    found = set()
    for line in _FENCED.sub("", page.read_text()).split("\n"):
        if re.match(r"#+ ", line):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("# ").strip().lower())
            found.add(words.replace(" ", "-"))
        elif line.startswith("::: "):
            found.add(line[4:].strip())
    return found
