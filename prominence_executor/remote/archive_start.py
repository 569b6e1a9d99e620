"""The ``__main__`` of the archive ``pxrun.pyz``: starts the runner. Later the user's script takes its place."""

import os
import sys

sys.path[0] = os.path.abspath(sys.path[0])  # this archive: a call may go to another directory, and spawn processes
__import__("pxremote.runner").runner.main()
