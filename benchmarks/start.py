"""What does the start of a job cost? CPU time of its whole command, what it imports, and the bytes that travel.

Each call is one job in a directory as the platform makes it, run in an environment in which nothing is installed that
starts with each program: with byte code of the standard library, and without any, as in many images.
"""

from __future__ import annotations

import base64
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:1] = [str(Path(__file__).parent / "support"), str(Path(__file__).parents[1] / "tests" / "support")]

from job_directory import JobDirectory
from measuring import Table, argument_parser, machine

OURS = ("pxremote", "cloudpickle")


def nothing() -> None:
    """A trivial call."""


def a_lambda() -> Callable[[], int]:
    """A call whose result only cloudpickle can pickle."""
    return lambda: 1


def error() -> None:
    """A call that raises."""
    raise ValueError("wrong")


def an_array() -> Any:
    """A call that uses numpy, and returns an array."""
    import numpy

    return numpy.arange(3)


class Thing:
    """Something that the script defines."""


def an_instance() -> Thing:
    """A call that returns an instance of the script's own class."""
    return Thing()


def environment(bytecode: bool, empty: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PYTHONPATH"] = sysconfig.get_paths()["purelib"]
    env["PYTHONDONTWRITEBYTECODE"] = env["PYTHONNOUSERSITE"] = "1"
    if not bytecode:
        env["PYTHONPYCACHEPREFIX"] = empty
    return env


def cpu_ms(words: list[str], folder: str, env: dict[str, str]) -> float:
    """The CPU time of a command and all that it has waited for."""
    with open(os.devnull, "r+b") as null:
        process = subprocess.Popen(words, cwd=folder, env=env, stdin=null, stdout=null, stderr=null)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}")
    return 1000 * (used.ru_utime + used.ru_stime)


def imported(words: list[str], folder: str, env: dict[str, str]) -> list[str]:
    """The modules that a command imports, itself or a process that it forks, beside those of an empty program."""
    found = []
    for command in (words, [words[0], "-c", "pass"]):
        done = subprocess.run(
            command, cwd=folder, env={**env, "PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True, check=True
        )
        lines = [
            line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        ]
        found.append(dict.fromkeys(lines[1:]))
    return [name for name in found[0] if name not in found[1] and name.partition(".")[0] not in OURS]


def sent(directory: JobDirectory) -> int:
    """Characters of the program among a job's inputs, in base64."""
    files = [path for path in directory.folder.iterdir() if path.name.startswith("pxrun.")]
    return sum(len(base64.b64encode(path.read_bytes())) for path in files)


def prepared(folder: Path, function: Callable[[], Any]) -> JobDirectory:
    """A job of one call of this function, which is one of a script's, as in a user's program."""
    directory = JobDirectory(folder)
    directory.prepare(function, ())
    return directory


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--times", type=int, default=15, help="that each command is run")
    parser.add_argument("--imports", action="store_true", help="list what is imported")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as home:
        venv.create(Path(home, "python"), symlinks=True)
        python = str(Path(home, "python", "bin", "python3"))
        commands: dict[str, tuple[list[str], str]] = {
            "python3 -S -c pass": ([python, "-S", "-c", "pass"], home),
            "python3 -c pass": ([python, "-c", "pass"], home),
            "import cloudpickle": ([python, "-c", "import cloudpickle"], home),
        }
        size = 0
        for function in (nothing, error, a_lambda, an_instance, an_array):
            directory = prepared(Path(home, function.__name__), function)
            commands[f"job: {function.__name__}()"] = ([python, *directory.command], str(directory.folder))
            size = sent(directory)
        empty = str(Path(home, "no-byte-code"))
        with_it, without = environment(True, empty), environment(False, empty)
        costs: dict[tuple[str, bool], list[float]] = {}
        for _ in range(options.times):  # in turns, so that what else the machine does meets all alike
            for name, (words, folder) in commands.items():
                for bytecode in (True, False):
                    costs.setdefault((name, bytecode), []).append(
                        cpu_ms(words, folder, with_it if bytecode else without)
                    )
        table = Table(
            ("ms of CPU, median (least)", "<28"), ("byte code", ">10.0f"), ("", ">8"), ("none", ">8.0f"), ("", ">8"),
            ("modules", ">9d"),
        )  # fmt: skip
        for name, (words, folder) in commands.items():
            there, none = costs[name, True], costs[name, False]
            modules = imported(words, folder, without)
            table.row(
                name, statistics.median(there), f"({min(there):.0f})", statistics.median(none), f"({min(none):.0f})",
                len(modules),
            )  # fmt: skip
            if options.imports:
                print("   ", *modules)
        print(f"the program in each job: {size} characters of base64")


if __name__ == "__main__":
    main()
