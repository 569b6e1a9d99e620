"""Which certificates a client trusts that another machine may not know, to be told to it. It makes no requests."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def trust_elsewhere(verify: bool | str) -> dict[str, Any]:
    """Return what a program elsewhere is told of ``verify``: nothing, to accept any certificate, or private ones.

    The public authorities, which every system knows, are left out.

    Raises:
        OSError: the bundle cannot be read.
    """
    if verify is False:
        return {"verify": False}
    if verify is True:
        return {}
    public = set(_certificates(Path(DEFAULT_CA_BUNDLE_PATH)))
    found = _certificates(Path(verify))
    return {"certificates": "\n".join(text for der, text in found.items() if der not in public)}


def _certificates(bundle: Path) -> dict[bytes, str]:
    """Read the certificates of a file, or of the files of a directory: their text by their content."""
    files = sorted(bundle.iterdir()) if bundle.is_dir() else [bundle]
    texts = [text for file in files if file.is_file() for text in _CERTIFICATE.findall(file.read_text("latin-1"))]
    return {ssl.PEM_cert_to_DER_cert(text): text for text in texts}
