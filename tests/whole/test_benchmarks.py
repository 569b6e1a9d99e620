"""The benchmarks run, and what they print is what they promise; their figures are not checked here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import one_node_slurm
import pytest
from paths import ROOT
from wheels import only_these, wheel_of_installed

BENCHMARKS = ROOT / "benchmarks"


def printed(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", BENCHMARKS / name, *arguments], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_faults_loses_nothing() -> None:
    text = printed("faults.py", "--calls", "40", "--seed", "5")
    counts = re.search(r"^10% faults +40 +[\d.]+ +(\d+) +0 +0 +0 +0$", text, re.MULTILINE)
    assert counts, text
    assert int(counts[1]) > 0
    assert re.search(r"^slow-down: [\d.]+$", text, re.MULTILINE)


@pytest.mark.slow
def test_service_lets_nobody_wait_for_others() -> None:
    text = printed("service.py", "--seconds", "0.3")
    assert re.search(r"^100 requests that wait are woken after [\d.]+ ms, p99 [\d.]+ ms$", text, re.MULTILINE), text
    rows = re.findall(r"^(?:alone|beside|and) .* ([\d.]+) +[\d.]+ +\d+ +[-+][\d.]+$", text, re.MULTILINE)
    assert len(rows) == 4
    assert max(map(float, rows)) < 1000


@pytest.mark.slow
def test_overhead_compares_in_one_run() -> None:
    text = printed("overhead.py", "--calls", "3", "--chunked", "60")
    for who in ("floor", "ProminenceExecutor, one job a call", "chunksize=50", "upstream", "ProcessPoolExecutor"):
        assert who in text


@pytest.mark.slow
def test_requests_counts_what_passes() -> None:
    text = printed("requests.py", "--calls", "20", "--upstream", "3")
    assert re.search(r"^submit in a loop +20 +[\d.]+ +\d +\d+ +20 ", text, re.MULTILINE), text
    assert re.search(r"^upstream client's loop +3 +[\d.]+ +3 +\d+ +3 ", text, re.MULTILINE), text


@pytest.mark.slow
def test_throughput_compares_with_what_is_installed() -> None:
    text = printed("throughput.py", "--calls", "40", "--rounds", "1", "--slow-calls", "4")
    for who in ("ProcessPoolExecutor", "ProminenceExecutor, auto"):
        assert re.search(rf"^{who} +([\d.]+ +[\d.]+ *){{3}}$", text, re.MULTILINE), text


@pytest.mark.slow
def test_warm_loses_nothing() -> None:
    text = printed("warm.py", "--calls", "60", "--idle", "0.5", "--lost", "40")
    assert re.search(r"^warm, one call at a time: median \d+ ms, p99 \d+ ms", text, re.MULTILINE), text
    assert re.search(r"^40 calls, \d+ workers killed: lost 0, wrong 0,", text, re.MULTILINE), text


@pytest.mark.slow
def test_scale_measures_submission_memory_and_latency(tmp_path: Path) -> None:
    picture = tmp_path / "scale.svg"
    numbers = ("--calls", "50", "100", "--running", "10", "--waiting", "20", "--looks", "1")
    text = printed("scale.py", *numbers, "--plot", str(picture))
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert re.search(r"^ +50( +[\d.]+){8}$", text, re.MULTILINE), text
    assert re.search(r"^ +10 +20( +[\d.]+){3}$", text, re.MULTILINE), text


@pytest.mark.slow
def test_data_compares_with_bare_transfers() -> None:
    text = printed("data.py", "--calls", "4", "--shared", "3", "--result", "3", "--rounds", "1")
    for who in (r"map\(chunksize=10\) +4 +1\.\d\dx", r"submit in a loop +4 +1\.\d\dx", "large result, lazy +3"):
        assert re.search(rf"^{who} +[\d.]+", text, re.MULTILINE), text


@pytest.mark.slow
def test_data_measures_large_calls_of_warm_workers() -> None:
    text = printed("data.py", "--warm", "--sizes", "1000", "300000", "--rounds", "1")
    assert re.search(r"^ +1 +[\d.]+ +[\d.]+\n +300 +[\d.]+ +[\d.]+$", text, re.MULTILINE), text


@pytest.mark.slow
def test_platform_is_never_behind_the_loop() -> None:
    text = printed("platform.py", "--calls", "20", "--ways", "loop", "chunks")
    for who in ("upstream client's loop", "submit in a loop", r"map\(chunksize=7\)"):
        found = re.search(rf"^{who} +20 +[\d.]+ +\d+ +\d+ +\d+ +([\d.]+)$", text, re.MULTILINE)
        assert found, text
        assert float(found[1]) <= 1.3, text  # of so few calls, on a machine that is busy with other tests


@pytest.mark.slow
@pytest.mark.skipif(one_node_slurm.missing() is not None, reason="there is no Slurm here")
def test_engines_submits_many_jobs_at_once() -> None:
    text = printed("engines.py", "--calls", "20", "--rounds", "1", "--only", "floor", "ours, Slurm", "--ways", "chunks")
    assert re.search(r"^ours, Slurm +chunks +20 +[\d.]+ +[1-5] +\d+$", text, re.MULTILINE), text


def test_pickling_compares_in_one_run() -> None:
    text = printed("pickling.py", "--calls", "5")
    for who in (
        "ProminenceExecutor",
        "cloudpickle, the function once",
        "cloudpickle, function and arguments",
        "pickle",
    ):
        assert re.search(rf"^{who}[a-z, ]* +([\d.]+ +[\d.]+ *){{3}}$", text, re.MULTILINE), text


@pytest.mark.slow
def test_latency_tells_where_the_milliseconds_go() -> None:
    text = printed("latency.py", "--calls", "5", "--many", "20", "--idle", "0.1", "--ours")
    for who in ("ours, waiting", "ours, not waiting, 12 ms late", "ours, a job a call"):
        assert re.search(rf"^{who} +([\d.]+ +){{5}}[\d.]+$", text, re.MULTILINE), text
    assert re.search(r"^floor of a job a call: [\d.]+/s", text, re.MULTILINE), text


@pytest.mark.slow
def test_start_counts_what_a_plain_call_imports() -> None:
    text = printed("start.py", "--times", "1")
    rows = dict(re.findall(r"^(.+?)  .* (\d+)$", text, re.MULTILINE))
    assert int(rows["job: nothing()"]) < int(rows["import cloudpickle"])


@pytest.mark.slow
def test_gridsearch_finds_the_same_with_every_backend() -> None:
    text = printed("gridsearch.py", "--fits", "2", "--folds", "2", "--samples", "100", "--trees", "2")
    for who in ("one after the other +[\\d.]+ +-", "loky +[\\d.]+ +1.00", r"ProminenceExecutor, jobs( +[\d.]+){4}"):
        assert re.search(rf"^{who}$", text, re.MULTILINE), text


@pytest.mark.slow
def test_environments_compares_with_packages_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_of_installed(tmp_path, "packaging")
    for name, value in {**only_these(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "caches")}.items():
        monkeypatch.setenv(name, value)
    text = printed("environments.py", "--requirement", "packaging", "--calls", "1")
    for who in ("in the image", "requirements="):
        assert re.search(rf"^{who}, one job a call +[\d.]+ +[\d.]+$", text, re.MULTILINE), text
        assert re.search(rf"^{who}, warm worker +[\d.]+ +[\d.]+$", text, re.MULTILINE), text
