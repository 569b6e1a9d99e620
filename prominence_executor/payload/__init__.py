"""What travels between this program and a job: bytes in, bytes out.

It knows no HTTP, no jobs and no threads.
"""

from ..moved import names_of

__getattr__ = names_of(__name__)
