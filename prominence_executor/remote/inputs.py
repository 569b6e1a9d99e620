"""The inputs of a job: opened where they lie, and refused unless they are what was sent.

It travels as source, too: of an array, even who the job is lies in the bundle. It unpickles and imports nothing.
"""

import os

from .lean import Digest


def open_part(job, name):
    """Open an input: a file of the job, or a member of its bundle."""
    if not is_member(job, name):
        return open(name, "rb")
    import zipfile

    return zipfile.ZipFile(job["bundle"]["name"]).open(name)


def is_member(job, name):
    """Return whether an input lies in the job's bundle, whose members are in folders; files of a job are not."""
    return "bundle" in job and "/" in name


def check_input(job, entry):
    """Refuse a file that did not arrive as it was sent: nothing unverified is unpickled or imported."""
    if is_member(job, entry["name"]):
        return  # bundle_start.py has made sure of it as a whole
    check_digest(entry["name"], entry["sha256"])


def check_digest(path, sha256):
    """Raise ValueError unless the file has this SHA-256."""
    digest = Digest()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError("%s did not arrive as it was sent (its SHA-256 differs)" % os.path.basename(path))
