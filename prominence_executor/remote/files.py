"""The remote side of ``files=`` and ``outputs=``: gives files the names that a call wants, and collects its outputs.

It travels where a job needs it. It runs nothing of the user's, and never fails a call: a file that cannot be collected
is said to be so.

The service lays inputs flat in the job's directory, under names that say nothing; here they are verified, and moved.
What matches the patterns after a call, and did not look so before it, goes into the file ``pxfiles``: a tar archive for
each call, one after the other. The call's signed record says where its archive lies, and its SHA-256.
"""

import glob
import os
import shutil
import stat
import tarfile
import time

from .exceptions import error_text
from .inputs import check_digest, open_part
from .records import HashingWriter
from .wire import FILES_FILE, JOB_FILE, MODULES_FOLDER, OUTCOME_FILE, PACKAGES_FOLDER, RANKS_FOLDER, SCRIPTS_FOLDER

TICK = 0.02  # seconds in which a file system may not tell two times apart
OWN = (JOB_FILE, OUTCOME_FILE, FILES_FILE)


def place(job):
    """Put the inputs where the call expects them; whoever comes second finds them there."""
    wanted = {}  # type: dict[str, list[str]]
    for name, entry in sorted(job["files"].items()):
        wanted.setdefault(entry["name"], []).append(name)
        if not is_member(entry):  # what has been placed already, the platform runs the task once more
            check_digest(entry["name"] if os.path.exists(entry["name"]) else name, entry["sha256"])
    for source, names in wanted.items():
        for name in names:
            folder = os.path.dirname(name)
            if folder:
                os.makedirs(folder, exist_ok=True)
            if is_member(job["files"][name]):
                with open_part(job, source) as member, open(name, "wb") as target:
                    shutil.copyfileobj(member, target, 1 << 20)
            elif not os.path.exists(source):
                pass
            elif name == names[-1]:
                os.replace(source, name)
            else:
                shutil.copyfile(source, name)


def is_member(entry):
    """Return whether the file is one of the bundle, which has been verified as a whole."""
    return entry["name"].startswith("files/")


class Collector:
    """Finds what each call has written, by its patterns."""

    def __init__(self, job, since=None):
        """Collect what has been written since a time, or without one, what is not as it is now."""
        self.home = os.path.realpath(os.getcwd())  # a call may change the working directory
        self.patterns = job["outputs"]
        self.path = os.path.join(self.home, FILES_FILE)
        self.call = None
        self.facts = {}  # type: dict[str, object]
        self.seen = self.matches()
        if since is not None:
            self.seen = {name: entry for name, entry in self.seen.items() if entry[3] / 1e9 < since - TICK}
        self.settle()

    def collect(self, call):
        """Append what is new of the call's files; return what its record is to say, the same when called twice."""
        if call != self.call:
            self.call = call
            try:
                self.facts = self.append()
            except (OSError, tarfile.TarError, ValueError) as error:
                self.facts = {"error": error_text(error)}
            self.seen = self.matches()
            self.settle()
        return self.facts

    def matches(self):
        """Return what matches, by its name in the job's directory: where it is, and how it looks."""
        found = {}  # type: dict[str, tuple[str, int, int, int]]
        for pattern in self.patterns:
            for path in glob.iglob(os.path.join(glob.escape(self.home), pattern), recursive=True):
                if os.path.isdir(path):
                    for folder, _, names in os.walk(path):
                        for name in names:
                            self.look(os.path.join(folder, name), found)
                else:
                    self.look(path, found)
        return found

    def look(self, path, found):
        """Add a regular file of the job's; leave out a link that leads elsewhere."""
        name = os.path.relpath(path, self.home)
        real = os.path.realpath(path)
        own = name in OWN or name.startswith((RANKS_FOLDER, MODULES_FOLDER, SCRIPTS_FOLDER, PACKAGES_FOLDER))
        if own or not real.startswith(self.home + os.sep):
            return
        try:
            facts = os.stat(real)
        except OSError:
            return  # it was there a moment ago
        if stat.S_ISREG(facts.st_mode):
            found[name] = (real, facts.st_ino, facts.st_size, facts.st_mtime_ns)

    def settle(self):
        """Wait until a file that is written again has another time."""
        newest = max((entry[3] for entry in self.seen.values()), default=0) / 1e9
        if newest > time.time() - TICK:
            time.sleep(TICK)

    def append(self):
        """Append a tar archive of what has changed; return what the call's record is to say of it."""
        changed = {name: entry for name, entry in self.matches().items() if self.seen.get(name) != entry}
        if not changed:
            return {"size": 0}
        with open(self.path, "r+b") as file:
            start = file.seek(0, os.SEEK_END)
            try:
                writer = HashingWriter(file)
                with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
                    for name in sorted(changed):
                        member = tarfile.TarInfo(name)
                        with open(changed[name][0], "rb") as source:
                            facts = os.fstat(source.fileno())
                            member.size, member.mtime = facts.st_size, facts.st_mtime
                            member.mode = 0o755 if facts.st_mode & stat.S_IXUSR else 0o644
                            archive.addfile(member, source)
                file.flush()
            except BaseException:
                file.truncate(start)
                raise
        return {"offset": start, "size": writer.size, "sha256": writer.hexdigest(), "count": len(changed)}
