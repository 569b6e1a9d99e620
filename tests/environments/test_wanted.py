"""Requirements as users give them are read, and what cannot be one is refused by a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from prominence_executor.credentials import without_credentials
from prominence_executor.environments.platforms import target
from prominence_executor.environments.wanted import wanted


def test_a_list(tmp_path: Path) -> None:
    assert wanted(["numpy >= 2", "scipy", "numpy >= 2"]).lines == ("numpy >= 2", "scipy")


def test_a_requirements_file_with_others_and_options(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("scipy ; python_version > '3'\n")
    (tmp_path / "pins.txt").write_text("six==1.16\n")
    (tmp_path / "r.txt").write_text(
        "numpy==2.1 \\\n    --hash=sha256:abc --hash=sha256:def  # chosen\n-r more.txt\n-c pins.txt\n-e .\n--pre\n"
        "--index-url=https://me:pass@host/simple\n-f wheels\n--prefer-binary\n"
    )
    found = wanted(tmp_path / "r.txt")
    assert found.lines == ("numpy==2.1", "scipy ; python_version > '3'")
    assert found.hashes == (("numpy", "sha256:abc"), ("numpy", "sha256:def"))
    assert found.constraints == ("six==1.16",)
    assert found.pre
    assert found.indexes == ("--index-url https://me:pass@host/simple", f"--find-links {tmp_path / 'wheels'}")
    assert "pass" not in repr(found)


def test_a_project_file_gives_its_dependencies(tmp_path: Path) -> None:
    pytest.importorskip("tomllib")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\ndependencies = ["numpy>=2"]\n')
    assert wanted(str(tmp_path / "pyproject.toml")).lines == ("numpy>=2",)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\ndynamic = ["dependencies"]\n')
    with pytest.raises(ValueError, match="its dependencies are dynamic"):
        wanted(tmp_path / "pyproject.toml")


def test_a_wheel_beside_a_requirements_file_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("./some_thing-1.0-py3-none-any.whl\n")
    assert wanted(tmp_path / "r.txt").lines == (f"some_thing @ {tmp_path.as_uri()}/some_thing-1.0-py3-none-any.whl",)


@pytest.mark.parametrize(
    ("requirements", "kind", "sentence"),
    [
        (["numpy=1"], ValueError, "is no requirement such as"),
        (["."], ValueError, "it travels as modules do"),
        (["pk @ git+https://host/pk"], ValueError, "nothing is built"),
        (["pk @ https://me:pass@host/pk-1-py3-none-any.whl"], ValueError, r"\*\*\*\*@host.* has a password"),
        ([7], TypeError, "not 7"),
        ("numpy", FileNotFoundError, r"requirements=\['numpy'\]"),
        ("nowhere.txt", FileNotFoundError, "there is no file nowhere.txt"),
    ],
)
def test_what_is_none(requirements: object, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as raised:
        wanted(requirements)  # type: ignore[arg-type]
    assert "me:pass" not in str(raised.value)


def test_options_that_cannot_be_heeded_are_named_without_passwords(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("--no-binary https://me:pass@host\n")
    with pytest.raises(ValueError, match=r"no-binary https://\*\*\*\*@host' cannot be heeded"):
        wanted(tmp_path / "r.txt")


def test_the_key_knows_indexes_but_no_passwords(tmp_path: Path) -> None:
    keys = []
    for address in ("https://me:one@host/simple", "https://me:two@host/simple", "https://me:one@other/simple"):
        (tmp_path / "r.txt").write_text(f"numpy\n-i {address}\n")
        keys.append(wanted(tmp_path / "r.txt").key)
    assert keys[0] == keys[1] != keys[2]
    assert wanted(["numpy"], "x86_64").key != wanted(["numpy"], "aarch64").key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:p@ss@host/x and http://tok@h:1/y", "see https://****@host/x and http://****@h:1/y"),
        ("mail me@host", "mail me@host"),
        ("the password p%40ss or p@ss", "the password **** or ****"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert without_credentials(text, ["--index-url https://me:p%40ss@host/simple"]) == shown


def test_platforms() -> None:
    assert target("x86_64").name == "x86_64-manylinux_2_28"
    assert target("aarch64-manylinux_2_34").of_pip()[0] == "manylinux_2_34_aarch64"
    assert target("x86_64-musl").of_uv == "x86_64-unknown-linux-musl"
    assert {"manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"} <= set(target("x86_64").of_pip())
    for name in ("sparc", "x86_64-manylinux_2_99", "windows"):
        with pytest.raises(ValueError, match="requirements_platform must be one of"):
            target(name)
