"""The platform's REST API and object model, for people and programs that describe jobs by hand.

It knows no calls and no pickles, and starts no threads.
"""

from .client import KEY_VALUE_LIMIT, ProminenceClient

__all__ = ["KEY_VALUE_LIMIT", "ProminenceClient"]
