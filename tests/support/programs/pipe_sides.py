"""What a warm worker and its process of calls do through their pipes, in a program of its own: both fork.

    python pipe_sides.py NAME DIRECTORY

Prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle

from prominence_executor.remote.worker_child import CLOSED, Child
from prominence_executor.remote.worker_pipes import END, Numbers

JOB = {"run": "r", "job": 0, "attempt": 0, "key": "00" * 32}


def held(path: str, name: str, content: bytes = b"") -> None:
    """Note a name, and return when one may go on."""
    with Path(path).open("a") as file:
        file.write(f"{name} ")
    while not Path(path + ".goes-on").exists():
        time.sleep(0.01)


def go_on(path: Path) -> None:
    path.with_name(path.name + ".goes-on").touch()


def started() -> Child:
    return Child(JOB, [], {"f": cloudpickle.dumps((held, None, ()))})


def given(child: Child, *calls: tuple[Any, ...]) -> int:
    """Give the process a chunk for each call."""
    contents = [cloudpickle.dumps((arguments, {})) for arguments in calls]
    chunks: list[dict[str, Any]] = [
        {"job": 0, "attempt": 0, "calls": [len(content)], "function": "f", "modules": None, "objects": []}
        for content in contents
    ]
    assert child.prepare(chunks[0], {})
    assert all(map(child.has, chunks))
    return int(child.run(chunks, contents))


def ends(child: Child, expected: int) -> int:
    """Count the chunks that have ended, which may be more than are expected."""
    found = 0
    while (reply := child.receive(20.0 if found < expected else 0.2)) is not None and reply is not CLOSED:
        found += reply[0] == END
    return found


def numbers(path: Path) -> object:
    """Both sides take numbers as fast as they can."""
    pipe, rounds, each = Numbers(), 2000, 20
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        taken = [number for number in range(rounds * each) if os.read(reading, 1) and pipe.take(number)]
        path.write_text(json.dumps(taken))
        os._exit(0)
    back: set[int] = set()
    for turn in range(rounds):
        pipe.put(each)
        os.write(writing, bytes(each))
        time.sleep(turn % 10 * 1e-5)
        back |= pipe.take_all()
    os.waitpid(pid, 0)
    return [json.loads(path.read_text()), sorted(back)]


def taken_back(path: Path) -> object:
    """What is taken back is not run, and what is given after it is."""
    child = started()
    first = given(child, (str(path), "a"), (str(path), "b"), (str(path), "c"))
    while not path.exists():
        time.sleep(0.01)
    back = child.take_back()
    second = given(child, (str(path), "d"))
    go_on(path)
    found = ends(child, 2)
    child.finish(5.0)
    return [first, sorted(back), second, found, path.read_text()]


def unread(path: Path) -> object:
    """What the pipe does not take at once is sent while replies are waited for."""
    child = started()
    for call in ((str(path), "a"), (str(path), "b", bytes(20 << 20)), (str(path), "c")):
        given(child, call)
    go_on(path)
    found = ends(child, 3)
    child.finish(5.0)
    return [found, path.read_text()]


def dead(path: Path) -> object:
    """A dead process is noticed, whatever was on its way to it, and though another one holds its pipes."""
    child = started()
    given(child, (str(path), "a"))
    given(child, (str(path), "b", bytes(20 << 20)))
    while not path.exists():
        time.sleep(0.01)
    os.kill(child.pid, 9)
    closed = child.receive(5.0) is CLOSED
    return [closed, sorted(child.take_back()), child.exit_code()]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2], "noted"))))
