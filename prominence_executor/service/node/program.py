"""Runs one job on the machine on which an engine has started it, by a ticket in the service's directory.

    python program.py run DIRECTORY BATCH NUMBER         what the engine's script does
    python program.py beside DIRECTORY TICKET COMMAND    a command next to the tasks, its words separated by commas
    python program.py snapshot DIRECTORY TICKET PATH     stores a path of the sandbox

It is started by its path: the package need not be installed where it runs. It imports no more than a job needs, and
leaves what became of it as a file; its exit status says nothing of the job.
"""

from __future__ import annotations

import os
import sys
import types

if __name__ == "__main__":
    # The packages around this file, but not what their __init__ imports: that is time before each job.
    _service = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = [entry for entry in sys.path if entry and entry != os.path.dirname(os.path.abspath(__file__))]
    for _name, _path in (
        ("prominence_executor", os.path.dirname(_service)),
        ("prominence_executor.service", _service),
    ):
        _package = types.ModuleType(_name)
        _package.__path__ = [_path]
        sys.modules[_name] = _package
    from prominence_executor.service.node.elsewhere import main

    sys.exit(main(sys.argv[1:]))
