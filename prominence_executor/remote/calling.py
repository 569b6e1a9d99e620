"""Runs the calls of a job, and writes an outcome for each. This is what the child does; nothing here outlives it."""

import os
import sys
import time

from .ending import leave_fork, threads_running, wait_for
from .inputs import check_input, open_part
from .loading import load_function, loader, read_calls
from .plain import Dumper
from .reporting import buffer_lines, flush_streams, stream_positions, write_exception, write_result
from .script import present
from .wire import NO_CALL

LINGER = 10.0  # seconds for which threads of a call keep those behind it waiting; the end of a job waits for all


def run_calls(job, outcomes):
    """Load the function, run the initializer and every call of this job, and write an outcome for each."""
    sys.argv = [""]
    buffer_lines()
    if "packages" in job:
        from .environment import add_packages

        add_packages(job["packages"], os.getcwd())
    for entry in reversed(job.get("modules", [])):
        from .modules import add_modules

        check_input(job, entry)
        with open_part(job, entry["name"]) as part:
            add_modules(part, os.path.basename(entry["name"]).rpartition("-")[2], os.getcwd())
    check_input(job, job["calls"])
    if "results" in job and outcomes.places:
        from .results import fetch_results

        fetch_results(job)
    if "files" in job or "outputs" in job:
        from . import files

        if "files" in job and outcomes.places and "first" not in job:
            files.place(job)
        if "outputs" in job and outcomes.rank == 0:
            outcomes.collector = files.Collector(job)
    outcomes.wants_files = "outputs" in job
    outcomes.ready()
    load = loader(job)
    with open_part(job, job["calls"]["name"]) as file:
        content, offsets = read_calls(job, file)
        function, initializer, initargs = load_function(job, content, load)
        cloudpickle = Dumper(present())
        if initializer is not None:
            from .inheritance import Inheritance

            inheritance = Inheritance(present())
            if not run_initializer(outcomes, cloudpickle, initializer, initargs):
                return
            inheritance.take()
        first = job.get("first", 0)  # those before it have had their process
        left = sum(offset is not None for offset in offsets[first:])
        between = Between(left > 1)
        for call, offset in enumerate(offsets):
            if offset is not None and call >= first:  # else it was cancelled before the job was sent
                left -= 1
                between.is_last = not left
                run_call(outcomes, cloudpickle, call, function, lambda at=offset: load(file, at), between)
                outcomes.ended(call)
                between.calls()
    outcomes.write(NO_CALL, "end")
    outcomes.close()


class Between:
    """What is done at the end of a call, and before the next one of the same process.

    ``several``: there may be a next one.
    """

    def __init__(self, several=True):
        self._surroundings = None
        if several:
            from .surroundings import Surroundings

            self._surroundings = Surroundings()
        self._known = set(threads_running())
        self.is_last = False  # no other call is kept waiting

    def take(self):
        """Take for the surroundings of calls what is now: a function has been loaded, or the initializer has run."""
        if self._surroundings is not None:
            self._surroundings.take()
        self._known.update(threads_running())

    def threads(self):
        """Return the threads that were started since this was last asked, and have not ended."""
        started = [thread for thread in threads_running() if thread not in self._known]
        self._known.update(started)
        return started

    def call_ended(self):
        """Do what cannot wait until the outcome has been written."""
        flush_streams()
        if self._surroundings is not None:
            self._surroundings.put_back_streams()

    def calls(self):
        """Let the threads of the last call end, and put its surroundings back, unless it was the last one of all."""
        if self._surroundings is not None and not self.is_last:
            wait_for(self.threads(), LINGER)
            self._surroundings.put_back()


def run_call(outcomes, cloudpickle, call, function, arguments, between, announced=True):
    """Run one call and write its outcome, and before that a record that it has started.

    ``arguments()`` gives its args and kwargs.
    """
    position = stream_positions()
    process = os.getpid()
    if announced:
        outcomes.write(call, "started", streams=position, time=time.time())
    began = time.time()
    try:
        args, kwargs = arguments()
        outcomes.begins(call, function, position, between.is_last)
        result = function(*args, **kwargs)
        del args, kwargs
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the call's outcome, too
        if os.getpid() != process:
            leave_fork(error)
        outcomes.returned()
        between.call_ended()
        raised = error
        write_all(outcomes, between, lambda: write_exception(outcomes, cloudpickle, call, raised, began, position))
        del raised
    else:
        if os.getpid() != process:
            leave_fork(None)
        outcomes.returned()
        between.call_ended()
        write_all(outcomes, between, lambda: write_result(outcomes, cloudpickle, call, result, began, position))
        del result


def write_all(outcomes, between, write):
    """Write an outcome; where files are wanted that a thread of the call may still write, again with these."""
    threads = between.threads() if outcomes.wants_files else []
    if threads:
        collector, outcomes.collector = outcomes.collector, None
        write()  # this one stands if the job's time is up before the threads have ended
        outcomes.collector = collector
        wait_for(threads, None if between.is_last else LINGER)
    write()


def run_initializer(outcomes, cloudpickle, initializer, initargs):
    """Run the initializer, once before all calls; when it raises, none of them runs. Return whether it did not."""
    began, position = time.time(), stream_positions()
    try:
        initializer(*initargs)
        return True
    except BaseException as error:  # as for the calls
        flush_streams()
        write_exception(outcomes, cloudpickle, NO_CALL, error, began, position, kind="initializer")
        return False
