"""What surrounds the calls of one process, put back between them: a call finds it as the first one did.

Working directory, environment, standard streams, signal handlers and timers, and the mask of new files. Nothing is
put back behind the last call. What the initializer has changed stays, and so do modules and their variables.
"""

import fcntl
import os
import sys
import time
from operator import is_

# Its functions make no enumerations of what they return, which would cost ten times as much.
from .lean import signals as signal

HIGH = 64  # a call that closes a stream is likely to be given its number for the next file that it opens; not these
STREAMS = (("stdin", 0), ("stdout", 1), ("stderr", 2))
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Surroundings:
    """As they are now."""

    def __init__(self):
        self._descriptors = {}  # type: dict[int, tuple[int, object]]
        for _, number in STREAMS:
            try:
                saved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, HIGH)
                self._descriptors[number] = (saved, identity(number))
            except OSError:  # there is none
                pass
        self.take()

    def take(self):
        """Take for the surroundings what is now; the files behind the standard streams stay those of the beginning."""
        self._directory = os.getcwd()
        self._environment = dict(environment())
        self._handlers = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._timers = [timer for timer in TIMERS if signal.getitimer(timer) == (0.0, 0.0)]  # those that do not run
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._streams = {name: (getattr(sys, name), *encoding(getattr(sys, name))) for name, _ in STREAMS}

    def put_back(self):
        """Put back what a call has changed, and costs no other one's time: for most, a few comparisons."""
        self.put_back_streams()
        if directory() != self._directory:
            os.chdir(self._directory)
        if environment() != self._environment:
            self._put_back_environment()
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        if not all(map(is_, map(signal.getsignal, self._handlers), self._handlers.values())):
            for number, handler in self._handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
        os.umask(self._umask)

    def put_back_streams(self):
        """Put back the standard streams, and stop timers: before anything else is opened, and a signal comes."""
        for timer in self._timers:
            if signal.getitimer(timer) != (0.0, 0.0):
                signal.setitimer(timer, 0)
        for number, (saved, before) in self._descriptors.items():
            if identity(number) != before:
                try:
                    os.dup2(saved, number)
                except OSError:  # the call closed that, too
                    pass
        for name, number in STREAMS:
            stream, coding, errors = self._streams[name]
            if stream is not None and is_closed(stream) and number in self._descriptors:
                mode = "r" if name == "stdin" else "w"
                stream = open(number, mode, 1, encoding=coding, errors=errors, closefd=False)
                self._streams[name] = (stream, coding, errors)
                setattr(sys, "__%s__" % name, stream)
            if getattr(sys, name, None) is not stream:
                setattr(sys, name, stream)

    def _put_back_environment(self):
        for name in set(environment()) - set(self._environment):
            del os.environb[name]
        for name, value in self._environment.items():
            if os.environb.get(name) != value:
                os.environb[name] = value
        time.tzset()


def environment():
    """Return the variables as Python keeps them: to decode all of them for each call would cost more than all else."""
    return os.environ._data  # type: ignore[attr-defined]


def identity(number):
    """Return which file a descriptor is of; None when it is closed."""
    try:
        facts = os.fstat(number)
        return facts.st_dev, facts.st_ino
    except OSError:
        return None


def directory():
    """Return the working directory; None when it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def is_closed(stream):
    """Return whether nothing can be written to, or read from, a stream any more."""
    try:
        return stream.closed
    except ValueError:  # it was detached
        return True


def encoding(stream):
    """Return the encoding of a stream, and what it does about errors."""
    return getattr(stream, "encoding", "utf-8"), getattr(stream, "errors", "strict")
