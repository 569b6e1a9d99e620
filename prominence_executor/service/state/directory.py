"""The directory of one service: what in it is trusted is its owner's alone, and appears whole.

Who can write here can sign tokens, read descriptions and have the service run programs. So what others may have
touched is refused with a sentence instead of used. Knows nothing of what the files hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # by somebody else; file systems differ
_TRIES, _PAUSE = 5, 0.02  # seconds


def lock_directory(directory: Path) -> int:
    """Make a service's directory, or take one that nobody else can write; return the descriptor that holds its lock.

    Raises:
        RuntimeError: others can write it, another service uses it, or its file system cannot lock files.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_if_shared(directory, directory.stat())
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # or somebody looks for a moment whether it is locked
            if error.errno not in _TAKEN:
                os.close(lock)
                raise RuntimeError(
                    f"the file system of {directory} cannot lock files ({error.strerror}), by which a service knows "
                    "that it is alone: choose a directory on another one"
                ) from error
            refused = error
            time.sleep(_PAUSE)
        else:
            return lock
    os.close(lock)
    raise RuntimeError(f"another service uses the directory {directory}") from refused


def is_locked(directory: Path) -> bool:
    """Return whether a service holds the directory: what was said by one that does not is not to be trusted."""
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_NOFOLLOW)  # which NFS wants for either kind of lock
    except OSError:  # mostly as it is not there; who locks the directory says what else it is
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(lock)
    return False


def own_directory(path: Path) -> Path:
    """Make or take a directory of the service's own below its directory, and close it to others.

    A link to a directory elsewhere (a larger disk) is followed, but never changed.

    Raises:
        RuntimeError: it is somebody else's, or a link to what others can write.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    state = path.stat()
    if state.st_mode & 0o022 and state.st_uid == os.geteuid() and not path.is_symlink():
        path.chmod(0o700)  # made under a lenient umask by an earlier release
        state = path.stat()
    _refuse_if_shared(path, state)
    return path


def own_file(path: Path, *, private: bool) -> bool:
    """Return whether there is a file of the service's own at this path. `private`: others may not even read it.

    Raises:
        RuntimeError: it is a link, no file, somebody else's, or open to others.
    """
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(state.st_mode):
        raise RuntimeError(f"{path} must be a file, not a link or anything else: remove it")
    if state.st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to another user: remove it, or start the service as that user")
    if private and state.st_mode & 0o077:
        raise RuntimeError(
            f"{path} can be read or written by others, who may know it: remove it (tokens made with it then end)"
        )
    _refuse_if_shared(path, state)
    return True


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is there whole or not at all, and replaces a link instead of following it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def file_system_of(directory: Path) -> str:
    """Return the type of the file system on which a directory lies, as ``nfs4``; "" where that cannot be known."""
    real, found = Path(os.path.realpath(directory)), (-1, "")
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if real.is_relative_to(point):
            found = max(found, (len(point), kind), key=lambda each: each[0])
    return found[1]


def _refuse_if_shared(path: Path, state: os.stat_result) -> None:
    if state.st_uid not in (os.geteuid(), 0):
        raise RuntimeError(f"{path} belongs to another user, who could change what the service trusts")
    if state.st_mode & 0o022:
        raise RuntimeError(f"{path} can be written by others: chmod go-w {path}")
