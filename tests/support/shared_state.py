"""What all code of a process shares, told by a call as well as by a program: standard library only."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings


def state_of_process() -> dict[str, str]:
    """What only the program itself may set."""
    umask = os.umask(0o22)
    os.umask(umask)
    numbers = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    state = {
        "signals": [signal.getsignal(number) for number in sorted(numbers)],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "umask": umask,
        "warnings": [str(entry) for entry in warnings.filters],
        "showwarning": warnings.showwarning.__qualname__,
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook],
        "tracing": [sys.gettrace(), sys.getprofile()],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), threading.stack_size()],
        "collector": [gc.isenabled(), gc.get_threshold()],
        "timeout": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": [logging.root.handlers, logging.root.level, logging.root.manager.disable],
    }
    return {name: str(value) for name, value in state.items()}


def drawing(_: int) -> tuple[dict[str, str], float]:
    """The state, and the next random number."""
    return state_of_process(), random.random()
