"""The package's version: in requests, on the command line, and as `prominence_executor.__version__`."""

__version__ = "0.2.0"
