"""Runs the calls of a job, and writes an outcome for each. This is what the child does; nothing here outlives it.

All that it needs of the archive is imported before the first call: a call may go to another directory, from which the
archive is not found any more.
"""

import os
import sys
import time

from .inheritance import Inheritance
from .inputs import check_input, open_part
from .loading import load_function, loader, read_calls
from .reporting import buffer_lines, flush_streams, stream_positions, write_exception, write_result
from .script import present
from .wire import NO_CALL


def run_calls(job, outcomes):
    """Load the function, run the initializer and every call of this job, and write an outcome for each."""
    sys.argv = [""]
    buffer_lines()
    for entry in reversed(job.get("modules", [])):
        from .modules import add_modules

        check_input(job, entry)
        with open_part(job, entry["name"]) as part:
            add_modules(part, os.path.basename(entry["name"]).rpartition("-")[2], os.getcwd())
    check_input(job, job["calls"])
    if "files" in job or "outputs" in job:
        from . import files

        if "files" in job and outcomes.places:
            files.place(job)
        if "outputs" in job and outcomes.rank == 0:
            outcomes.collector = files.Collector(job)
    outcomes.ready()
    from .dumping import Dumper  # with our cloudpickle, from this program's archive: the client's own version

    load = loader(job)
    with open_part(job, job["calls"]["name"]) as file:
        content, offsets = read_calls(job, file)
        function, initializer, initargs = load_function(job, content, load)
        cloudpickle = Dumper(present())
        if initializer is not None:
            inheritance = Inheritance(present())
            if not run_initializer(outcomes, cloudpickle, initializer, initargs):
                return
            inheritance.take()
        for call, offset in enumerate(offsets):
            if offset is not None:  # else it was cancelled before the job was sent
                run_call(outcomes, cloudpickle, call, function, lambda at=offset: load(file, at))
                outcomes.ended(call)
    outcomes.write(NO_CALL, "end")
    outcomes.close()


def run_call(outcomes, cloudpickle, call, function, arguments, announced=True):
    """Run one call and write its outcome, and before that a record that it has started.

    ``arguments()`` gives its args and kwargs.
    """
    position = stream_positions()
    if announced:
        outcomes.write(call, "started", streams=position, time=time.time())
    began = time.time()
    try:
        args, kwargs = arguments()
        result = function(*args, **kwargs)
        del args, kwargs
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the call's outcome, too
        flush_streams()
        write_exception(outcomes, cloudpickle, call, error, began, position)
        del error
    else:
        flush_streams()
        write_result(outcomes, cloudpickle, call, result, began, position)
        del result


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
