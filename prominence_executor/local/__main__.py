"""`python -m prominence_executor.local`: the service as a program (see `prominence_executor.service.__main__`)."""

import sys

from ..service.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
