"""Tells what a container image has: Python, platform, packages. It is shipped as data and runs inside the image.

Standard library only, in the syntax of Python 3.8. It prints one line of JSON behind a mark, whatever else is printed.
"""

import json
import platform
import sys

MARK = "PXPROBE1 "


def probe():
    """Return what there is to tell, as values of JSON."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": packages(),
    }


def packages():
    """Return the version of every installed package by its name, in one spelling."""
    try:
        from importlib.metadata import distributions
    except ImportError:  # before Python 3.8
        return {}
    found = {}  # type: dict[str, str]
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # else the rest of a package that was removed
            found.setdefault(spelled(name), distribution.version)  # the first one on the path is what is imported
    return found


def spelled(name):
    """Return the name as package indexes compare it: Foo_Bar is foo-bar."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


if __name__ == "__main__":
    sys.stdout.write(MARK + json.dumps(probe()) + "\n")
