"""``python -m prominence_executor.cli``: the same as the command ``prominence-executor``."""

import sys

from . import main

sys.exit(main())
