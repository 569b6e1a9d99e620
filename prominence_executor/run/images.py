"""Which image files of this machine the calls of a run need, and as what they are at the service.

No threads of its own; hashing and uploading block.
"""

from __future__ import annotations

import threading

from ..client.client import ProminenceClient
from ..images.files import image_file, is_local, missing_object, object_name, upload
from ..images.sif import sif_of
from .uploads import UploadCache


class LocalImages:
    """The image files of one run. Its methods may be called from any thread; a lock guards what it knows."""

    def __init__(self, uploads: UploadCache) -> None:
        self._uploads = uploads
        self._lock = threading.Lock()
        self._placed: dict[tuple[str, str | None], str] = {}  # name by path and runtime
        self._told: set[str] = set()  # images of which it was said what they cost

    def place(self, client: ProminenceClient, image: str, runtime: str | None = None) -> str:
        """See that an image is at the service, if it is a file; blocks for that. Return the name to give to a task.

        For Singularity an archive goes as a .sif, where one can be made.

        Raises:
            FileNotFoundError: the file is not there any more.
            ProminenceError: it could not be uploaded.
        """
        if not is_local(image):
            return image
        try:
            made = sif_of(image) if runtime == "singularity" else None
            file = image_file(made or image)
        except FileNotFoundError:
            with self._lock:
                if (image, runtime) in self._placed:
                    return self._placed[image, runtime]
            raise
        name = object_name(file)

        def upload_it() -> None:
            upload(client, file, name)

        self._uploads.ensure(client, name, file.size, upload_it)
        with self._lock:
            self._placed[image, runtime] = name
        return name

    def is_slow(self, image: str, runtime: str | None) -> bool:
        """Tell whether each job makes an image anew of an archive, which takes it long; True once for each image."""
        if runtime != "singularity" or not image.endswith((".tar", ".tar.gz", ".tgz")):
            return False
        with self._lock:
            first = image not in self._told
            self._told.add(image)
            return first

    def name_of(self, image: str, runtime: str | None = None) -> str:
        """Return the name that a task was given for an image."""
        with self._lock:
            return self._placed.get((image, runtime), image)

    def missing(self, refusal: str) -> bool:
        """Tell whether a job was refused because the service has an image no longer, which is to be uploaded again."""
        name = missing_object(refusal)
        return name is not None and self._uploads.forget(name)

    def names(self) -> set[str]:
        """Return the names of the objects that calls of this run may still use."""
        with self._lock:
            return set(self._placed.values())
