"""A folder of the node in which the jobs of one user keep unpacked packages, where the platform names one.

It is a saving, and nothing depends on it: where there is no such folder, where others could write to it, where files
cannot be locked, or where something fails, a job unpacks for itself. What is in it appears whole, of an archive whose
digest has been verified; it is used only while all of its files are as they were unpacked, since somebody may have
cleaned up. What no job has used for a week, and none uses now, makes room when something new comes.
"""

import fcntl
import os
import shutil
import stat
import time

from .wire import PACKAGES_FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

VARIABLE = "PROMINENCE_NODE_CACHE"
UNUSED = 7 * 86400.0  # seconds

used = []  # type: list[Any]  # open locks of what this process uses, and its children


def kept_at_node(digest, unpack):
    """Return the folder of the node with what an archive holds, unpacked now if need be; None where there can be none.

    ``unpack`` makes the folder with the name that it is given; the archive has been verified.
    """
    place = os.environ.get(VARIABLE, "")
    try:
        if not is_own(place):
            return None
        folder = os.path.join(place, PACKAGES_FOLDER + digest[:32])
        if not take(folder):
            with open(folder + ".making", "ab") as making:
                fcntl.flock(making, fcntl.LOCK_EX)  # several jobs may begin at once: one of them unpacks
                if not take(folder):
                    remove_unused(place)  # first: there may be no room without
                    if not make(folder, unpack) or not take(folder):
                        return None
        return folder
    except OSError:
        return None


def is_own(place):
    """Return whether nobody but this user can change what is at a path; nor who can, by changing one above it."""
    if not os.path.isabs(place) or os.path.realpath(place) != os.path.normpath(place):
        return False
    facts = os.stat(place)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        return False
    above = os.path.dirname(os.path.normpath(place))
    while True:
        facts = os.stat(above)
        if facts.st_uid not in (0, os.geteuid()) or (facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX):
            return False
        if above == os.path.dirname(above):
            return True
        above = os.path.dirname(above)


def take(folder):
    """Have nobody remove what is there, as long as this process and its children live; whether it is whole."""
    lock = open(folder + ".lock", "ab")
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not is_whole(folder):
        lock.close()
        return False
    os.utime(lock.fileno())
    used.append(lock)
    return True


def is_whole(folder):
    """Return whether all files are there as they were unpacked."""
    try:
        with open(folder + ".list") as file:
            for line in file:
                size, changed, name = line.rstrip("\n").split(" ", 2)
                facts = os.stat(os.path.join(folder, name))
                if (facts.st_size, facts.st_mtime_ns) != (int(size), int(changed)):
                    return False
            return True
    except (OSError, ValueError):
        return False


def make(folder, unpack):
    """Unpack; False where another job still uses what is there, and is not whole."""
    with open(folder + ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        remove(folder)
        fresh = "%s.%s" % (folder, os.urandom(8).hex())
        try:
            unpack(fresh)
            listed = fresh + ".list"
            with open(listed, "w") as file:
                file.writelines(described(fresh))
            os.rename(listed, folder + ".list")
            os.rename(fresh, folder)
        except BaseException:
            remove(fresh)
            raise
        return True


def described(folder):
    """Yield a line for each file of a folder."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            facts = os.stat(path)
            yield "%d %d %s\n" % (facts.st_size, facts.st_mtime_ns, os.path.relpath(path, folder))


def remove_unused(place):
    """Remove what has not been used for long, and what killed jobs have left half unpacked."""
    now = time.time()
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if not name.startswith(PACKAGES_FOLDER) or not os.path.exists(path):  # it has gone with another one
            continue
        if now - os.lstat(path).st_mtime < UNUSED:
            continue
        if name.endswith(".lock"):
            with open(path, "ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                remove(path[: -len(".lock")])
        elif "." in name[1:] and os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)


def remove(folder):
    """Remove a folder, and first what says that it is whole."""
    if os.path.lexists(folder + ".list"):
        os.unlink(folder + ".list")
    shutil.rmtree(folder, ignore_errors=True)
