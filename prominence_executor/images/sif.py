"""Archives of images as .sif files, which Apptainer runs as they are: of an archive it makes one anew for every job.

That takes it tens of seconds. It is made here, where Apptainer or Singularity is installed, once by content, and kept
with the user's caches. It does not talk to the service.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from .files import image_file, object_name

_LOG = logging.getLogger("prominence_executor")
_TAIL = 500  # characters of what a failed command has said

_making = threading.Lock()  # one at a time, which others wait for
_failed: set[str] = set()  # names of archives of which none can be made


def sif_of(path: str) -> str | None:
    """Return the .sif of an archive, made now if need be; None where it cannot be made here, a warning says why.

    Blocks, the first time for as long as Apptainer takes.

    Raises:
        FileNotFoundError: there is no such archive.
    """
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None or path.endswith(".sif"):
        return None
    name = object_name(image_file(path))
    folder = _folder()
    made = folder / f"{name.partition('.')[0]}.sif"
    with _making:
        if made.exists():
            return str(made)
        if name in _failed:
            return None
        _LOG.info("%s makes a .sif of the image %s, once", Path(program).name, path)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            new = os.path.join(scratch, "image.sif")
            command = [program, "build", new, f"docker-archive://{path}"]
            done = subprocess.run(  # noqa: S603
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode == 0 and os.path.exists(new):
                os.replace(new, made)
                return str(made)
        _failed.add(name)
    said = (done.stderr or done.stdout).strip()[-_TAIL:]
    _LOG.warning("no .sif could be made of the image %s, which each job will convert: %s", path, said)
    return None


def _folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(caches) / "prominence-executor" / "images"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
