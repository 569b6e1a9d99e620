"""`image build` by podman, docker and apptainer: programs of these names stand in, with their documented options."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prominence_executor import ImageBuildError
from prominence_executor.images.build import build, choose
from prominence_executor.images.engines import read_configuration
from prominence_executor.images.recipe import recipe

pytestmark = pytest.mark.once

HERE = "{}.{}".format(*sys.version_info[:2])
PROGRAM = Path(__file__).parents[1] / "support" / "programs" / "builder.py"
Install = Callable[..., Path]
Until = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make programs of these names the only ones beside the system's; return the folder in which they tell."""
    folder = tmp_path / "told"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in [name for name in os.environ if name.startswith("PIP_") and name != "PIP_CONFIG_FILE"]:
        monkeypatch.delenv(name)

    def make(*names: str) -> Path:
        for name in names:
            program = folder / "bin" / name
            program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{PROGRAM}' '{folder}' {name} \"$@\"\n")
            program.chmod(0o755)
        return folder

    return make


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def layers_of(archive: tarfile.TarFile) -> list[list[str]]:
    """Return the names in each layer, of files where udocker looks for them, and check what says so."""
    (image,) = json.loads(content(archive, "manifest.json"))
    config = content(archive, image["Config"])
    assert image["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    (name, version) = image["RepoTags"][0].split(":")
    top = json.loads(content(archive, "repositories"))[name][version]
    assert image["Layers"][-1] == f"{top}/layer.tar"
    parent = None
    found = []
    for place, digest in zip(image["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
        assert archive.getmember(place).isreg()
        layer = content(archive, place)
        assert digest == f"sha256:{hashlib.sha256(layer).hexdigest()}"
        described = json.loads(content(archive, place.replace("layer.tar", "json")))
        assert (described["id"], described.get("parent")) == (place.partition("/")[0], parent)
        parent = described["id"]
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            found.append(tar.getnames())
    assert described["config"] == {"Cmd": ["python3"]}
    return found


def content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_an_archive_is_made_of_the_official_image(
    install: Install, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install(name)
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy:3128")
    (tmp_path / "more.txt").write_text("scipy\n")
    (tmp_path / "r.txt").write_text("numpy>=2  # arrays\n-r more.txt\n")
    said: list[str] = []
    built = build(tmp_path / "x.tgz", requirements=[tmp_path / "r.txt"], packages=["openmpi-bin"], report=said.append)
    assert built.python == HERE
    with tarfile.open(built.path, "r:gz") as archive:
        assert layers_of(archive) == [["one"], ["two"]]
    (made,) = told(folder)
    assert made["program"] == name
    assert made["lines"][0] == f"FROM docker.io/library/python:{HERE}-slim"
    assert made["arguments"] == ["https_proxy"]
    assert {"--no-cache", "--pull"} <= set(made["words"])  # what is built is as new as the packages are
    assert "secret" not in json.dumps(made)
    steps = (folder / "steps").read_text().splitlines()
    assert [step.split()[0] for step in steps] == ["python3", "apt-get", "apt-get", "python3", "python3"]
    assert steps[2].endswith("install --yes --no-install-recommends openmpi-bin")
    assert "-m pip install" in steps[3]
    assert (folder / "requirements").read_text() == "numpy>=2\nscipy\n"
    assert said == [f"{name}: docker.io/library/python:{HERE}-slim", "packing"]
    assert not list((folder / "images").iterdir())  # nothing is left with the program, nor here
    assert not list(tmp_path.glob("prominence-image-*"))


def test_apptainer_makes_a_sif_of_a_definition(install: Install, tmp_path: Path) -> None:
    folder = install("apptainer", "podman")
    built = build(tmp_path / "x.sif", suite="bookworm", packages=["libgomp1"])
    assert f"From: docker.io/library/python:{HERE}-slim-bookworm\n" in built.path.read_text()
    assert [made["program"] for made in told(folder)] == ["apptainer"]
    assert any(
        "install --yes --no-install-recommends libgomp1" in step for step in (folder / "steps").read_text().splitlines()
    )


def test_an_archive_of_another_program_becomes_a_sif(install: Install, tmp_path: Path) -> None:
    folder = install("apptainer", "docker")
    built = build(tmp_path / "x.sif", builder="docker")
    assert built.path.read_bytes().startswith(b"sif of ")
    assert [made["program"] for made in told(folder)] == ["docker", "apptainer"]


@pytest.mark.parametrize("name", ["x.tar", "x.sif"])
def test_an_index_with_a_password_reaches_pip_and_nobody_else(
    install: Install, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = install("podman", "apptainer")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://me:f1rst-s3cret@one.example/simple")
    (tmp_path / "r.txt").write_text("alpha\n--index-url=https://me:s3cond-s3cret@two.example/simple\n")
    said: list[str] = []
    built = build(tmp_path / name, requirements=[tmp_path / "r.txt"], report=said.append)
    reached = (folder / "configuration").read_text()
    assert "extra-index-url = https://me:f1rst-s3cret@one.example/simple\n" in reached
    assert "index-url = https://me:s3cond-s3cret@two.example/simple\n" in reached
    (folder / "configuration").unlink()
    (tmp_path / "r.txt").unlink()
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in [*everything, built.path.read_bytes(), repr(said).encode(), "".join(capfd.readouterr()).encode()]:
        assert b"s3cret" not in text


def test_variables_in_the_address_of_an_index_are_read_here_as_pip_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_USER", "me")
    monkeypatch.delenv("INDEX_NOT_THERE", raising=False)
    line = "--index-url https://${INDEX_USER}:${INDEX_NOT_THERE}@one.example/$INDEX_USER/${lower}"
    (tmp_path / "r.txt").write_text(f"{line}\n")
    made = recipe("python:3", "3.11", [tmp_path / "r.txt"], [], {})
    assert made.places == {"index-url": "https://me:${INDEX_NOT_THERE}@one.example/$INDEX_USER/${lower}"}


def test_a_base_with_another_python_is_one_clear_error(install: Install, tmp_path: Path) -> None:
    install("podman")
    with pytest.raises(ImageBuildError, match=rf"podman build failed.*\n.*base image is {HERE}, not 3\.4"):
        build(tmp_path / "x.tar", python="3.4", base="example.org/mine:1")
    assert not list(tmp_path.glob("x*"))
    assert not list(tmp_path.glob("prominence-image-*"))


def test_a_program_that_is_not_ready_is_passed_over_and_named(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("docker")
    monkeypatch.setenv("NOT_READY", "no daemon")
    with pytest.raises(ImageBuildError, match="docker is installed, but not ready: no daemon"):
        build(tmp_path / "x.tar", builder="docker")
    with pytest.raises(ImageBuildError, match="podman is not installed; docker is installed, but not ready"):
        build(tmp_path / "x.tar", base="example.org/mine:1")
    monkeypatch.delenv("NOT_READY")
    monkeypatch.setenv("NO_BUILDX", "the buildx component is missing")
    with pytest.raises(ImageBuildError, match="docker is installed, but not ready: the buildx component is missing"):
        build(tmp_path / "x.tar", builder="docker")


def test_an_interrupted_build_ends_what_runs_inside_first_so_that_the_program_tidies_up(
    tmp_path: Path, until: Until
) -> None:
    inside = "import os, time; open('begun', 'w').write(str(os.getpid())); time.sleep(300)"
    tool = f"setsid -w '{sys.executable}' -c \"{inside}\"; touch tidied"
    program = f"from prominence_executor.images.running import run; run(['sh', '-c', {tool!r}], 'x')"
    build = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
    build.send_signal(signal.SIGINT)
    assert build.wait(60)
    assert (tmp_path / "tidied").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


def test_what_builds_is_the_first_that_can(install: Install, tmp_path: Path) -> None:
    tar, sif = tmp_path / "x.tar", tmp_path / "x.sif"

    def ready(*names: str) -> Callable[[str], str | None]:
        return lambda name: None if name in names else f"no {name}"

    assert choose(tar, None, None, [], ready("podman", "docker")) == "podman"
    assert choose(tar, None, None, [], ready("docker")) == "docker"
    with pytest.raises(ImageBuildError, match="made by Apptainer, which is not installed"):
        choose(sif, None, None, [], ready("podman"))
    install("apptainer")
    assert choose(sif, None, None, [], ready("podman")) == "apptainer"
    assert choose(sif, "podman", None, [], ready("podman")) == "podman"
    cases: list[tuple[Path, str, str | None, list[str], str]] = [
        (tar, "apptainer", None, [], "Apptainer makes a .sif"),
        (tar, "podman", None, ["mirror"], "mirror is for debootstrap alone"),
        (tar, "debootstrap", "x", [], "starts from nothing"),
        (tar, "kaniko", None, [], "one of apptainer, podman"),
    ]
    for target, builder, base, special, said in cases:
        with pytest.raises(ValueError, match=said):
            choose(target, builder, base, special, ready("podman"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("./mine-1.0.whl", "is on this machine"),
        ("-e .", "travels with the calls as modules do"),
        ("--find-links ../wheels", "is on this machine"),
        ("--extra-index-url file:///srv/simple", "is on this machine"),
        ("mine @ https://me:secret@there/mine.whl", "has a password"),
    ],
)
def test_what_no_image_can_reach_is_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "r.txt").write_text(f"numpy\n{line}\n")
    with pytest.raises(ValueError, match=said) as raised:
        recipe("python:3", "3.11", [tmp_path / "r.txt"], [], {})
    assert "secret" not in str(raised.value)
    for packages, base in ((["a; rm"], "python:3"), ([], "python:3\nRUN x")):
        with pytest.raises(ValueError, match="is no Debian package|must be the name"):
            recipe(base, "3.11", [], packages, {})


def test_constraints_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("numpy<3\n")
    (tmp_path / "r.txt").write_text("numpy\n-cc.txt\n--trusted-host one\n--trusted-host two\n--pre\n")
    made = recipe("python:3", "3.11", [tmp_path / "r.txt"], [], {"index-url": "https://x/simple"})
    assert (made.lines, made.constraints) == (("numpy", "--pre"), ("numpy<3",))
    assert made.places == {"index-url": "https://x/simple", "trusted-host": "one two"}


def test_what_pip_is_configured_to_holds_in_an_image_as_far_as_it_can(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("whom we trust")
    extra = "file:///srv/simple\nhttps://one/simple"
    made = recipe("python:3", "3.11", [], [], {"extra-index-url": extra, "cert": str(tmp_path / "ca.pem")})
    made.write(tmp_path / "context")
    assert (tmp_path / "context" / "authorities.pem").read_text() == "whom we trust"
    assert made.configuration() == (
        "[global]\nextra-index-url = https://one/simple\ncert = /prominence-build/authorities.pem\n"
    )
    with pytest.raises(ValueError, match="index-url 'file:///srv/simple' is on this machine"):
        recipe("python:3", "3.11", [], [], {"index-url": "file:///srv/simple"})


def test_the_configuration_of_pip_is_read_as_pip_heeds_it() -> None:
    text = (
        "global.index-url='https://a/simple'\n:env:.index-url='https://c/simple'\ninstall.index-url='https://b/simple'\n"
        "global.extra-index-url='https://d\\nhttps://e'\nglobal.cache-dir='/x'\n"
    )
    assert read_configuration(text) == {"index-url": "https://c/simple", "extra-index-url": "https://d\nhttps://e"}
