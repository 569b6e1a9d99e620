"""What travels between this program and a job: bytes in, bytes out.

It knows no HTTP, no jobs and no threads.
"""

from .results import RemoteTraceback

__all__ = ["RemoteTraceback"]  # under this path it stands in pickles
