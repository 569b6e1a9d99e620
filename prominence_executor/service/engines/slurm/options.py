"""What a user may say to Slurm, and how it is checked: names of sbatch options, and lines of a script. Pure.

Values end on a command line and in a script; what the service itself says there may not be said again.
"""

from __future__ import annotations

import re

NAMES = ("partition", "account", "qos", "constraint", "gres", "reservation", "licenses")
_VALUE = re.compile(r"[\w.,:;&|()*!@=+/\[\]-]{1,255}")
_LINE = re.compile(r"--([a-z][a-z-]*)(=[^\s\\'\"`$\x00-\x1f\x7f-\U0010ffff]{1,255})?")
_OURS = (
    "array", "job-name", "output", "error", "input", "export", "export-file", "wrap", "parsable", "chdir", "requeue",
    "no-requeue", "signal", "open-mode", "wait", "test-only", "get-user-env", "uid", "gid", "hold", "dependency",
    "nodes", "ntasks", "ntasks-per-node", "mem", "mem-per-cpu", "mem-per-gpu", "time", "cpus-per-task", "tmp", "nice",
    "clusters", "quiet", "verbose", "help", "usage", "version", "bbf",
)  # fmt: skip


def check_options(options: dict[str, str]) -> None:
    """Check what is said to Slurm. Raises ValueError with a sentence."""
    for name, value in options.items():
        if name == "extra":
            extra_lines(value)
        elif name not in NAMES:
            raise ValueError(f"{name!r} is no option for Slurm; there are {', '.join((*NAMES, 'extra'))}")
        elif not _VALUE.fullmatch(value) or value.startswith("-"):
            raise ValueError(f"{value!r} cannot be Slurm's {name}")


def extra_lines(text: str) -> list[str]:
    """Return further options, separated by blanks, as ``--exclusive --mail-type=END``. Raises ValueError."""
    words = text.split()
    for word in words:
        found = _LINE.fullmatch(word)
        if found is None:
            raise ValueError(f"{word!r} is no option of sbatch as --name or --name=value")
        # sbatch takes the beginning of a name for the name.
        ours = next((name for name in _OURS if name.startswith(found[1])), None)
        if ours is not None:
            raise ValueError(f"--{ours} is set by the service, and cannot be set by `extra`")
        if "partition".startswith(found[1]):  # whose limits the service looks at
            raise ValueError("--partition cannot be set by `extra`: say it as the option 'partition'")
    return words


def arguments(options: dict[str, str]) -> list[str]:
    """Return checked options as words for sbatch."""
    named = [f"--{name}={options[name]}" for name in NAMES if name in options]
    return named + extra_lines(options.get("extra", ""))
