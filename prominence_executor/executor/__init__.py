"""`ProminenceExecutor`: where the parts are put together, and the contract of ``concurrent.futures`` is kept."""

from .executor import ProminenceExecutor

__all__ = ["ProminenceExecutor"]
