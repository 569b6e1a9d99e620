"""The service as a child process (see `prominence_executor.service.launch`)."""

from ..service.launch import Child, launch

__all__ = ["Child", "launch"]
