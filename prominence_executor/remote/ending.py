"""What calls leave to be waited for: threads, handlers of `atexit`, and processes that they have forked.

As in a process of `concurrent.futures`: a thread that is no daemon is let end, a handler runs when the process ends.
"""

import os
import sys
import time


def threads_running():
    """List the threads that a process waits for at its end, but those of pools: these end when they are told to."""
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        return []
    pools = set()  # type: set[object]
    for module, name in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        pools.update(getattr(sys.modules.get("concurrent.futures." + module), name, None) or ())
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in pools and thread != main]


def wait_for(threads, seconds=None):
    """Wait until these threads have ended, or the seconds are over."""
    until = None if seconds is None else time.monotonic() + seconds
    for thread in threads:
        thread.join(None if until is None else max(0.0, until - time.monotonic()))


def end_process():
    """Do what Python does at the end of a process of calls: threads end, and handlers of `atexit` run."""
    try:
        import atexit

        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()  # as multiprocessing does: pools are told to end, too
        atexit._run_exitfuncs()  # likewise
    except BaseException as error:  # a handler is somebody else's code; the outcomes are written
        say(error)


def leave_fork(error):
    """End a process that a call has forked, and that has come back from the call as if it were the one that runs it.

    ``error``: what has brought it here, or None.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            sys.stderr.write("%s\n" % (error.code,))
    elif error is not None:
        code = 1
        say(error)
    end_process()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the call closed it, or replaced it
            pass
    os._exit(code & 0xFF)


def say(error):
    """Write an exception's traceback to the standard error, if that can be written to."""
    try:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    except BaseException:  # it is closed, or the exception's own text raises
        pass
