"""A certificate for a service that is reached from other machines, signed by an authority of its own.

Both are made by the program `openssl`, once, and lie in a folder that only their owner reads. The authority stays: who
has its certificate knows the service also by another address, or when its own certificate has been renewed.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .directory import own_directory, own_file, write_whole

_SECONDS = 60.0  # for one command on a loaded machine
_AUTHORITY_DAYS, _DAYS, _RENEW_DAYS = 7300, 800, 400  # of validity, and after which the service's is made anew
_CONFIGURATION = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[service]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Certified:
    """Where the service's certificate lies, with its key, and that of the authority, which others may have."""

    certfile: Path
    cafile: Path


def certified(folder: Path, hosts: Iterable[str]) -> Certified:
    """Return a certificate for a service that is reached by these names and addresses; makes what is missing. Blocks.

    Raises:
        RuntimeError: there is no `openssl`, or it fails; or others could have changed what lies there.
    """
    own_directory(folder)
    _close(folder / "ca.pem")
    found = Certified(folder / "service.pem", folder / "ca.pem")
    key, names = folder / "ca.key", alternatives(hosts)
    if not (own_file(key, private=True) and own_file(found.cafile, private=False)):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _make_authority(Path(place))
            Path(place, found.cafile.name).chmod(0o644)  # whatever the umask
            for path in (key, found.cafile):  # the certificate last: with it the key is whole
                os.replace(Path(place, path.name), path)
    said = folder / "names"
    fresh = (
        own_file(found.certfile, private=True)
        and own_file(said, private=False)
        and said.read_text() == names
        and found.certfile.stat().st_mtime > max(time.time() - _RENEW_DAYS * 86400, found.cafile.stat().st_mtime)
    )
    if not fresh:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            write_whole(found.certfile, _signed(Path(place), folder, names))
        write_whole(said, names.encode())
    return found


def _close(path: Path) -> None:
    """Close to others a file of an earlier release's, made under a lenient umask, where nobody else can reach it."""
    if path.parent.stat().st_mode & 0o077 == 0 and path.is_file() and not path.is_symlink():
        state = path.stat()
        if state.st_mode & 0o022 and state.st_uid == os.geteuid():
            path.chmod(0o644)


def hosts_of(bind: str, public: str | None) -> list[str]:
    """Return by what a service is reached that listens at an address, and perhaps is told of by another name."""
    return [*([] if bind == "0.0.0.0" else [bind]), *([public] if public else []),  # noqa: S104 (it is compared)
            own_name(), socket.gethostname(), "localhost", "127.0.0.1"]  # fmt: skip


def own_name() -> str:
    """Return the name by which other machines know this one, as far as it knows."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def alternatives(hosts: Iterable[str]) -> str:
    """Return names and addresses as a certificate has them. Pure."""
    return ", ".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in dict.fromkeys(hosts))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _make_authority(place: Path) -> None:
    """Make ca.key and ca.pem in a folder."""
    _make_key(place / "ca.key")
    name = f"prominence-executor {secrets.token_hex(4)}"
    configuration = _configuration(place, name, "DNS:localhost")
    _openssl("req", "-new", "-x509", "-sha256", "-key", "ca.key", "-out", "ca.pem", "-days", str(_AUTHORITY_DAYS),
             "-config", configuration, "-extensions", "authority", place=place)  # fmt: skip


def _signed(place: Path, folder: Path, names: str) -> bytes:
    """Return a new key and its certificate."""
    _make_key(place / "key")
    configuration = _configuration(place, "prominence-executor service", names)
    _openssl("req", "-new", "-sha256", "-key", "key", "-out", "request", "-config", configuration, place=place)
    _openssl("x509", "-req", "-sha256", "-in", "request", "-CA", str(folder / "ca.pem"), "-CAkey",
             str(folder / "ca.key"), "-set_serial", f"0x{secrets.token_hex(15)}", "-days", str(_DAYS),
             "-extfile", configuration, "-extensions", "service", "-out", "certificate", place=place)  # fmt: skip
    return (place / "key").read_bytes() + (place / "certificate").read_bytes()


def _make_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path.name, place=path.parent)
    path.chmod(0o600)


def _configuration(place: Path, name: str, names: str) -> str:
    (place / "configuration").write_text(_CONFIGURATION.format(name=name, names=names))
    return "configuration"


def _openssl(*words: str, place: Path) -> None:
    """Run openssl in a folder. Raises RuntimeError."""
    try:
        done = subprocess.run(  # noqa: S603
            ["openssl", *words], cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True,  # noqa: S607
            errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise RuntimeError("a certificate cannot be made, as there is no openssl here: give one (certfile)") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"openssl {words[0]} did not end within {_SECONDS:g} s") from error
    if done.returncode:
        raise RuntimeError(f"openssl {words[0]} has failed: {done.stderr.strip().rpartition(chr(10))[2]}")
