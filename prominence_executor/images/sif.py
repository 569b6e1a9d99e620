"""Images as .sif files, which Apptainer runs as they are: of an archive it makes one anew for every job.

That takes it tens of seconds. It is made here, where Apptainer or Singularity is installed, once by content, and kept
with the user's caches. It does not talk to the service.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

from ..caches import appearing_in, cache_folder
from ..errors import ImageBuildError
from .files import image_file, object_name
from .running import run

_LOG = logging.getLogger("prominence_executor")

_making = threading.Lock()  # one at a time, which others wait for
_failed: set[str] = set()  # names of archives of which none can be made


def apptainer() -> str | None:
    """Return the path of Apptainer, or of Singularity; None where neither is installed."""
    return shutil.which("apptainer") or shutil.which("singularity")


def convert(program: str, archive: str | os.PathLike[str], made: Path) -> None:
    """Make a .sif of an archive; blocks. ImageBuildError: it cannot be made."""
    run([program, "build", os.fspath(made), f"docker-archive://{os.fspath(archive)}"], Path(program).name)


def sif_of(path: str) -> str | None:
    """Return the .sif of an archive, made now if need be; None where it cannot be made here, a warning says why.

    Blocks, the first time for as long as Apptainer takes.

    Raises:
        FileNotFoundError: there is no such archive.
    """
    program = apptainer()
    if program is None or path.endswith(".sif"):
        return None
    name = object_name(image_file(path))
    made = cache_folder("images", f"{name.partition('.')[0]}.sif")
    with _making:
        if made.exists():
            return str(made)
        if name in _failed:
            return None
        _LOG.info("%s makes a .sif of the image %s, once", Path(program).name, path)
        try:
            with appearing_in(made) as scratch:
                convert(program, path, scratch / "new")
        except (ImageBuildError, FileNotFoundError) as error:
            _failed.add(name)
            _LOG.warning("no .sif could be made of the image %s, which each job will convert: %s", path, error)
            return None
        return str(made)
