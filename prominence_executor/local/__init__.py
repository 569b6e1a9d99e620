"""The embedded service under the name by which programs know it; it lives in `prominence_executor.service`.

The modules here only forward.
"""

from ..service import LocalService

__all__ = ["LocalService"]
