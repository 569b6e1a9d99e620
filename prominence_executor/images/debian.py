"""Debian's tools, for building images: debootstrap, apt, dpkg, ldd; and how this machine uses them.

It knows trees and packages, nothing of Python or of archives. Most of it needs root.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ImageBuildError
from .running import run

_PUBLIC = {"debian": "http://deb.debian.org/debian", "ubuntu": "http://archive.ubuntu.com/ubuntu"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APT = Path("/etc/apt")


def check_able() -> None:
    """Raise ImageBuildError where no image can be built."""
    if os.geteuid() != 0:
        raise ImageBuildError("only root can build an image (debootstrap and chroot need it): use sudo")
    if _debootstrap() is None:
        raise ImageBuildError("debootstrap is not installed: apt-get install debootstrap")


def _debootstrap() -> str | None:
    return shutil.which("debootstrap", path=os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATH)))


def running_suite() -> str:
    """Return the name of this machine's release."""
    suite = _os_release().get("VERSION_CODENAME")
    if not suite:
        raise ImageBuildError("the Debian release of this machine is unknown: give one by --suite")
    return suite


def _os_release() -> dict[str, str]:
    with suppress(OSError):
        lines = Path("/etc/os-release").read_text().splitlines()
        return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}
    return {}


def bootstrap(tree: Path, suite: str, mirror: str | None, packages: Sequence[str]) -> None:
    """Install a minimal system in a new directory."""
    command = [_debootstrap() or "debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    configured, keyring = _configured(suite)
    if keyring:
        command.append(f"--keyring={keyring}")
    source = mirror or configured
    # The tree is packed and removed: nothing of it needs to be flushed to the disk.
    environment = {**os.environ, **_proxies(), "DPKG_FORCE": "unsafe-io"}
    run([*command, suite, os.fspath(tree), *([source] if source else [])], "debootstrap", environment)


def install(tree: Path, downloads: Path, suite: str, packages: Sequence[str]) -> None:
    """Install more packages: apt runs outside with this machine's configuration, dpkg inside."""
    if suite != (running := running_suite()):
        raise ImageBuildError(f"--package needs the package lists of {suite}, this machine has those of {running}")
    (downloads / "partial").mkdir(parents=True)
    status = tree / "var" / "lib" / "dpkg" / "status"
    run(
        [
            "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--download-only",
            "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={downloads}",
            "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "APT::Sandbox::User=root",
            "-o", "APT::Keep-Downloaded-Packages=true", "-o", "Debug::NoLocking=true", *packages,
        ],
        f"apt-get install {' '.join(packages)} (are the lists up to date? apt-get update)",
    )  # fmt: skip
    inside = tree / "tmp" / "debs"
    inside.mkdir()
    names = []
    for file in sorted(downloads.glob("*.deb")):
        shutil.move(file, inside / file.name)
        names.append(f"/tmp/debs/{file.name}")  # noqa: S108  inside the tree
    environment = {
        "PATH": SYSTEM_PATH,
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "DPKG_FORCE": "unsafe-io",
    }
    if names:
        run(["chroot", os.fspath(tree), "dpkg", "--unpack", "--force-depends", *names], "dpkg", environment)
        run(["chroot", os.fspath(tree), "dpkg", "--configure", "--pending"], "dpkg", environment)
    shutil.rmtree(inside)


def forget_this_machine(tree: Path, suite: str) -> None:
    """Replace what debootstrap wrote of this machine's configuration by what a fresh installation has."""
    release = dict(line.partition("=")[::2] for line in (tree / "etc" / "os-release").read_text().splitlines())
    public = _PUBLIC.get(release.get("ID", ""))
    (tree / "etc" / "apt" / "sources.list").write_text(f"deb {public} {suite} main\n" if public else "")


def libraries_of(binaries: Iterable[Path], outside: Path) -> set[Path]:
    """Find the shared libraries that these need, but for those below ``outside``."""
    found: set[Path] = set()
    for binary in binaries:
        done = subprocess.run(["ldd", os.fspath(binary)], capture_output=True, text=True, check=False)  # noqa: S603, S607
        found |= {Path(path) for path in re.findall(r"=> (/\S+)", done.stdout)}
    return {path for path in found if not path.is_relative_to(outside.absolute())}


def packages_of(libraries: Iterable[Path]) -> set[str]:
    """Find the installed packages that these files are of.

    Raises:
        ImageBuildError: a file is of none.
    """
    packages = set()
    for library in libraries:
        names = {library, library.resolve(), Path("/usr") / library.relative_to("/")}
        names |= {Path("/") / name.relative_to("/usr") for name in set(names) if name.is_relative_to("/usr")}
        done = subprocess.run(  # noqa: S603
            ["dpkg-query", "--search", *map(os.fspath, sorted(names))],  # noqa: S607
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        owners = {line.partition(":")[0] for line in done.stdout.splitlines() if not line.startswith("diversion")}
        if not owners:
            raise ImageBuildError(f"the Python needs {library}, which is in no Debian package of this machine")
        packages |= owners
    return packages


def unmount_below(path: Path) -> bool:
    """Unmount what an interrupted debootstrap has left mounted in a directory; False if something still is."""
    for place in reversed(_mounted_below(path)):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)  # noqa: S603, S607
    return not _mounted_below(path)


def _mounted_below(path: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines() if os.path.exists("/proc/self/mountinfo") else []
    places = [line.split()[4].replace("\\040", " ") for line in lines]
    return [place for place in places if Path(place).is_relative_to(path.resolve())]


def _configured(suite: str) -> tuple[str | None, str | None]:
    """Find the mirror and the keyring that apt uses for a release, as far as debootstrap can use them."""
    for mirror, suites, components, keyring in _sources():
        if suite in suites and "main" in components and re.match(r"(https?|file):/", mirror):
            return mirror, keyring if keyring and os.path.isfile(keyring) else None
    return None, None


def _sources() -> Iterable[tuple[str, list[str], list[str], str | None]]:
    """Read apt's lists of sources: URL, releases, components, keyring."""
    for file in [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else ():
            match = re.match(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if match:
                keyring = re.search(r"signed-by=(\S+)", match[1] or "")
                yield match[2], [match[3]], match[4].split(), keyring[1] if keyring else None
    for file in sorted((_APT / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
                for url in fields.get("URIs", "").split():
                    yield (
                        url,
                        fields.get("Suites", "").split(),
                        fields.get("Components", "").split(),
                        fields.get("Signed-By"),
                    )


def _proxies() -> dict[str, str]:
    """Return the proxies that apt uses, as debootstrap's downloader takes them."""
    found = {}
    for scheme in ("http", "https"):
        with suppress(OSError):
            done = subprocess.run(  # noqa: S603
                ["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"],  # noqa: S607
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            proxy = "".join(shlex.split(done.stdout)).removeprefix("PROXY=")
            if proxy and proxy != "DIRECT":
                found[f"{scheme}_proxy"] = proxy
    return found
