"""Waits for the child that runs the calls, and writes what it could not write: that it crashed, or the time was up.

It runs nothing of the user's.
"""

import os
import time

from .lean import signals as signal
from .records import OutcomeWriter, ended_well, last_end
from .wire import NO_CALL

PLATFORM_WORKER = "promlet"  # the platform's own program, of which this one is a descendant


def supervise(job, child):
    """Wait for the child within the walltime, then say what it could not say itself."""
    started = time.monotonic()
    try:
        status = wait_for(child, seconds_left(job.get("seconds")))
    except TimeoutError:
        end_group(child)
        os.waitpid(child, 0)
        append(job, "walltime", seconds=time.monotonic() - started)
        return
    finish(job, child, status)


def close_child(job, child):
    """Wait for a child that has ended, and say what it could not say itself."""
    finish(job, child, os.waitpid(child, 0)[1])


def finish(job, child, status):
    """End what an ended child has left, and write that it crashed, if it did."""
    end_group(child)
    if os.WIFSIGNALED(status):
        append(job, "crashed", exit=-os.WTERMSIG(status))
    elif os.WEXITSTATUS(status) or not ended_well(job):
        append(job, "crashed", exit=os.WEXITSTATUS(status))


def append(job, kind, **facts):
    """Write how the job ended, with the files of the call that was running."""
    facts.update(files_left(job))
    OutcomeWriter(job, append=True).write(NO_CALL, kind, **facts)


def files_left(job):
    """Collect what the call has written that was running when its process ended, if its files are wanted."""
    if "outputs" not in job:
        return {}
    from .files import Collector

    with open(job["outcome"], "rb") as file:
        last = last_end(file)[1]
    if last.get("kind") != "started":
        return {}
    return {"files": Collector(job, since=last["time"]).collect(last["call"])}


def seconds_left(seconds):
    """Return what is left of a job's time, which begins with the platform's worker: before image and inputs."""
    if not seconds:
        return None
    try:
        with open("/proc/uptime") as file:
            uptime = float(file.read().split()[0])
        pid = os.getppid()
        while pid > 1:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rpartition(")")[2].split()
            with open("/proc/%d/cmdline" % pid) as file:
                if PLATFORM_WORKER in file.read():
                    return max(0.1, seconds - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK"))
            pid = int(fields[1])
    except (OSError, ValueError, IndexError):
        pass  # it cannot be seen from inside this container
    return seconds


def wait_for(child, seconds):
    """Return the child's wait status, or raise TimeoutError when its seconds are over."""

    def expire(number, frame):
        raise TimeoutError

    if seconds:
        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return status


def end_group(child):
    """End what the calls left running: the job is over when its calls are."""
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
