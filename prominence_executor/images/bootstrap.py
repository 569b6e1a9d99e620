"""An image made on a Debian machine as root, without a registry: debootstrap, then pip into it.

    debootstrap      a minimal Debian, with the distribution's Python or the libraries that another one needs
    apt, dpkg        further Debian packages, downloaded as this machine is configured to
    a copied Python  with ``from_python``: the standard library of an installed one, in /usr/local
    pip              this machine's, with its configuration, into the image's place for packages
    compileall       byte code of all of that, without which each job would compile what it imports
    archive.py       what is left without documentation and caches, as a ``docker save`` archive

Everything happens in a scratch folder of the caller's. Nothing of this machine's configuration stays in the image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ImageBuildError
from . import debian
from .archive import pack
from .recipe import COMPILE
from .running import run

# The Python of each release, so that a wrong one is refused before anything is downloaded. What is not here, or has
# changed, is seen in the image itself.
_PYTHONS = {
    "bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13",
    "jammy": "3.10", "noble": "3.12",
}  # fmt: skip
_USUAL_LIBRARIES = ("libbz2-1.0", "libffi8", "liblzma5", "libsqlite3-0", "libssl3", "zlib1g")
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
# As `python -m pip`, but nothing in the working directory is taken for a module of it or of Python.
_PIP = (
    "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
_NEEDLESS = re.compile(
    r"(var/lib/apt/lists|var/cache|var/log|tmp|run|dev|proc|sys|root|usr/share/(doc|man|info|locale|lintian))/."
    r"|(etc/(resolv\.conf|hostname|machine-id|passwd-|group-|shadow-|gshadow-)|var/lib/dpkg/[a-z]+-old)$"
)
# Of an installed Python, what no batch job needs; tkinter would bring the libraries of X11 along.
_LEFT_OUT = (
    "__pycache__", "site-packages", "test", "tests", "config-*", "*.a",
    "tkinter", "_tkinter*", "idlelib", "turtledemo", "turtle.py",
)  # fmt: skip


def bootstrapped(
    target: Path,
    scratch: Path,
    *,
    tag: str,
    python: str | None,
    requirements: Sequence[str | os.PathLike[str]],
    packages: Sequence[str],
    suite: str | None,
    mirror: str | None,
    from_python: str | os.PathLike[str] | None,
    report: Callable[[str], object],
) -> str:
    """Build an image and write it as an archive; return its Python, ``X.Y``. See `prominence_executor.images.build`.

    Args:
        tag: under which runtimes know the image.
    """
    suite = suite or debian.running_suite()
    prefix = None if from_python is None else _checked_prefix(Path(from_python))
    wanted = _wanted_python(python, prefix, suite)
    debian.check_able()
    tree = scratch / "tree"
    source = Path(sys.executable) if prefix is None else _interpreter(prefix)
    libraries = ["python3"] if prefix is None else _libraries(prefix)
    report(f"debootstrap: {suite} with {', '.join(libraries)}")
    debian.bootstrap(tree, suite, mirror, libraries)
    if packages:
        report(f"packages: {', '.join(packages)}")
        debian.install(tree, scratch / "debs", suite, packages)
    if prefix is not None:
        report(f"Python {wanted} from {prefix}")
        _copy_python(prefix, tree, wanted)
    _check_python(tree, wanted, suite)
    if requirements:
        report(f"pip: {', '.join(os.fspath(file) for file in requirements)}")
        _pip(tree, scratch, source, wanted, requirements, site="dist" if prefix is None else "site")
    report("byte code")
    _compile(tree)
    debian.forget_this_machine(tree, suite)
    report("packing")
    pack(
        tree, target, tag=tag, env=_ENV, command=["python3"], scratch=scratch,
        leave_out=lambda name: _NEEDLESS.match(name) is not None,
    )  # fmt: skip
    return wanted


# -- which Python --------------------------------------------------------------------------------------------------


def _wanted_python(python: str | None, prefix: Path | None, suite: str) -> str:
    """Return the minor version that the image is to have; ImageBuildError when it cannot have it."""
    here = "{}.{}".format(*sys.version_info[:2])
    if python is not None and not re.fullmatch(r"3\.\d+", python):
        raise ValueError(f"python must be a minor version such as 3.11, not {python!r}")
    if prefix is not None:
        has = _version_of([os.fspath(_interpreter(prefix))])
        if python is not None and python != has:
            raise ImageBuildError(f"the Python in {prefix} is {has}, not {python}")
        return has
    wanted = python or here
    if wanted != _PYTHONS.get(suite, wanted):
        raise _other_python(suite, _PYTHONS[suite], wanted)
    return wanted


def _other_python(suite: str, has: str, wanted: str) -> ImageBuildError:
    return ImageBuildError(
        f"the Python of {suite} is {has}, not {wanted}: give the prefix of an installed Python {wanted} by "
        "--from-python PREFIX (from_python=), or another release by --suite"
    )


def _checked_prefix(prefix: Path) -> Path:
    if (prefix / "pyvenv.cfg").exists():
        raise ValueError(f"{prefix} is a virtual environment; give the prefix of the Python that it was made from")
    if not _interpreter(prefix).exists():
        raise ValueError(f"{prefix} is not the prefix of an installed Python: it has no bin/python3")
    return prefix


def _interpreter(prefix: Path) -> Path:
    return prefix / "bin" / "python3"


def _version_of(command: Sequence[str]) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([*command, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ImageBuildError(f"{' '.join(command)} does not run: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def _check_python(tree: Path, wanted: str, suite: str) -> None:
    """Make sure that the image's python3 is what it should be, and starts."""
    has = _version_of(_python_of(tree))
    if has != wanted:
        raise _other_python(suite, has, wanted)


def _python_of(tree: Path) -> list[str]:
    """Return the command that starts the image's Python as a job would."""
    variables = {**_ENV, "PYTHONHASHSEED": "0"}  # what it compiles is the same each time
    return [
        "chroot",
        os.fspath(tree),
        "/usr/bin/env",
        *(f"{name}={value}" for name, value in variables.items()),
        "python3",
    ]


def _compile(tree: Path) -> None:
    """Put byte code beside the standard library and the packages; what cannot be compiled stays as it is."""
    for folder in list(tree.rglob("__pycache__")):
        shutil.rmtree(folder, ignore_errors=True)  # of a machine, an installation, a date
    run([*_python_of(tree), "-s", "-c", COMPILE], "compiling the image's Python")


# -- a Python that is installed here -------------------------------------------------------------------------------


def _libraries(prefix: Path) -> list[str]:
    """Name the Debian packages with the libraries that a Python needs."""
    extensions = [file for file in prefix.glob("lib/python3*/lib-dynload/*.so") if not file.match("_tkinter*")]
    binaries = [_interpreter(prefix), *prefix.glob("lib/libpython*.so*"), *extensions]
    return sorted(debian.packages_of(debian.libraries_of(binaries, prefix)) or _USUAL_LIBRARIES)


def _copy_python(prefix: Path, tree: Path, version: str) -> None:
    """Copy interpreter and standard library to /usr/local, without the packages that are installed there."""
    local = tree / "usr" / "local"
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(prefix / "lib" / f"python{version}", local / "lib" / f"python{version}", ignore=ignored)
    (local / "lib" / f"python{version}" / "site-packages").mkdir(exist_ok=True)
    for library in prefix.glob("lib/libpython*.so*"):
        shutil.copy2(library, local / "lib" / library.name, follow_symlinks=False)
    program = local / "bin" / f"python{version}"
    shutil.copy2(_interpreter(prefix).resolve(), program)
    for name in ("python3", "python"):
        with suppress(FileNotFoundError):
            (local / "bin" / name).unlink()
        (local / "bin" / name).symlink_to(program.name)
    run(["chroot", os.fspath(tree), "/sbin/ldconfig"], "ldconfig in the image")


# -- packages of Python --------------------------------------------------------------------------------------------


def _pip(
    tree: Path, scratch: Path, source: Path, version: str, requirements: Sequence[str | os.PathLike[str]], site: str
) -> None:
    """Install into the image what the files require; wheels for its Python, or built here by the same Python."""
    target = tree / "usr" / "local" / "lib" / f"python{version}" / f"{site}-packages"
    command = [sys.executable, "-c", _PIP]
    run([*command, "--version"], "pip is needed for --requirement: python -m ensurepip")
    here = source if _version_of([os.fspath(source)]) == version else Path(f"/usr/bin/python{version}")
    choice = [f"--python-version={version}", "--implementation=cp", "--only-binary=:all:"]
    if here.exists():
        command, choice = [*command, *([] if here.samefile(sys.executable) else ["--python", os.fspath(here)])], []
    files = [word for file in requirements for word in ("--requirement", os.fspath(file))]
    # What a user may have set for installing elsewhere would be in the way of --target.
    usual = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **usual, "TMPDIR": os.fspath(scratch)}
    run(
        [
            *command, "install", "--quiet", "--no-compile", "--no-warn-script-location", "--no-input",
            "--root-user-action=ignore", "--disable-pip-version-check", "--target", os.fspath(target), *choice, *files,
        ],
        "pip", environment,
    )  # fmt: skip
    _install_scripts(target / "bin", tree / "usr" / "local" / "bin")


def _install_scripts(found: Path, directory: Path) -> None:
    """Install the commands of packages, so that they start with the image's Python and not with this machine's."""
    if not found.is_dir():
        return
    for script in sorted(found.iterdir()):
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.partition(b"\n")[0]:
            content = b"#!/usr/bin/env python3\n" + content.partition(b"\n")[2]
        (directory / script.name).write_bytes(content)
        (directory / script.name).chmod(0o755)
    shutil.rmtree(found)
