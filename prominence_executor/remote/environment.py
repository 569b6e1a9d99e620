"""Packages that travel with calls (``requirements=``): verified, unpacked once, put on the path.

They lie in a folder of the node's where the platform has one, else in the job's directory, and stand behind the user's
own modules and the standard library, and before all that the image has. Nothing of the archive is imported here, and
nothing of it is written outside of its directory. It travels where a job needs it.
"""

import os
import shutil
import site
import sys
import tarfile

from .inputs import check_digest
from .modules import make_way
from .node import kept_at_node
from .wire import MODULES_FOLDER, PACKAGES_FOLDER

BLOCK = 1 << 20


def add_packages(entry, home):
    """Have the packages of an archive found before the image's own; unpack it, unless that has been done here.

    ``entry`` says: name of the file, its SHA-256, and the machines it is for.
    """
    check_machine(entry["machine"], entry["glibc"])

    path = os.path.join(home, entry["name"])
    own = os.path.join(home, PACKAGES_FOLDER + entry["sha256"][:16])
    folder = own
    if not os.path.isdir(own):
        check_digest(path, entry["sha256"])
        folder = kept_at_node(entry["sha256"], lambda new: unpack_whole(path, new)) or kept_in_job(path, own)
    put_on_path(folder)
    standard = getattr(sys, "stdlib_module_names", ())
    names = {name.partition(".")[0] for name in os.listdir(folder)}
    make_way({name for name in names if name not in standard})


def kept_in_job(path, folder):
    """Unpack an archive into a folder of this job, unless that has been done; return the folder."""
    with open(folder + ".lock", "ab") as lock:
        wait_for_turn(lock)  # MPI ranks may share the directory: one of them unpacks
        if not os.path.isdir(folder):
            unpack_whole(path, folder)
    return folder


def check_machine(machine, glibc):
    """Raise ImportError where the packages are for other machines than this one."""
    advice = "requirements_platform= of the executor says for which machines packages are chosen"
    if os.uname().machine != machine:
        raise ImportError(
            "the packages of requirements= are for %s, and the job runs on %s: %s"
            % (machine, os.uname().machine, advice)
        )
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        library = ""
    has = [int(part) for part in library.rpartition(" ")[2].split(".")[:2] if part.isdigit()]
    if glibc is not None and (len(has) < 2 or has < [2, glibc]):
        raise ImportError(
            "the packages of requirements= need glibc 2.%d, and the image has %s: %s"
            % (glibc, library or "another C library", advice)
        )


def wait_for_turn(lock):
    """Wait until no other process has this file; where files cannot be locked, there is no turn to wait for."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass


def unpack_whole(path, folder):
    """Unpack an archive into a folder that is there as a whole or not at all."""
    partial = "%s.%s" % (folder, os.urandom(8).hex())
    os.mkdir(partial, 0o755)
    try:
        with tarfile.open(path, "r|gz") as archive:
            unpack(archive, partial)
        os.rename(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)  # the disk may be full of it
        if not (isinstance(error, OSError) and os.path.isdir(folder)):
            raise


def unpack(archive, folder):
    """Write the regular files of an archive into a new folder; raise ValueError for anything else that is in it."""
    known = {folder}
    for member in archive:
        parts = member.name.split("/")
        if not member.isreg() or not {"", ".", ".."}.isdisjoint(parts) or "\\" in member.name or "\0" in member.name:
            raise ValueError("%r is no file of a package" % (member.name,))
        above = os.path.join(folder, *parts[:-1])
        if above not in known:
            os.makedirs(above, exist_ok=True)
            known.add(above)
        source = archive.extractfile(member)
        mode = 0o755 if member.mode & 0o100 else 0o644
        target = os.open(os.path.join(above, parts[-1]), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(target, "wb") as file:
            left = member.size
            while left:
                block = source.read(min(BLOCK, left))
                if not block:
                    raise ValueError("the archive of packages ends within %r" % (member.name,))
                left -= file.write(block)


def put_on_path(folder):
    """Put a folder, and what its .pth files name, on the path before the image's packages."""
    before = list(sys.path)
    site.addsitedir(folder)
    added = [entry for entry in sys.path if entry not in before]
    sys.path[:] = before
    at = first_of_image()
    sys.path[at:at] = added


def first_of_image():
    """Return the position on the path behind this program, the user's modules and the standard library."""
    standard = os.path.dirname(os.__file__)
    archive = "python%d%d.zip" % sys.version_info[:2]
    for at, entry in enumerate(sys.path):
        own = at == 0 or MODULES_FOLDER in entry or os.path.basename(entry) == archive
        library = entry == standard or (entry.startswith(standard + os.sep) and "-packages" not in entry)
        if not own and not library:
            return at
    return len(sys.path)
