"""Results and exceptions to records: whatever a call did, something of it can be written down.

Here somebody else's code runs again (``__reduce__``, ``__str__``): nothing that it raises may cost more than its own
record. What only failures need is imported when there is one.
"""

import os
import stat
import sys
import time

from .lean import dump_plain
from .wire import ALIGNMENT, LARGE_BUFFER, LARGE_RESULT, NO_CALL

OWN = (__name__.partition(".")[0], "cloudpickle")  # the packages of this program


def write_result(outcomes, cloudpickle, call, result, began, position):
    """Write a call's result, or that it could not be pickled or stored."""
    facts = call_facts(began, position)
    try:
        outcomes.write(call, "result", lambda file: dump_out_of_band(cloudpickle, result, file), **facts)
    except OSError as error:
        write_no_room(outcomes, call, error, facts)
    except BaseException as error:  # __reduce__ is somebody else's code
        from .blame import culprit, explained
        from .exceptions import error_text, type_name

        text = explained(error_text(error), culprit(cloudpickle.dumps, result))
        facts.update(type=type_name(result), error=text, traceback=users_traceback(error))
        outcomes.write(call, "unpicklable", **facts)


def dump_out_of_band(cloudpickle, value, file):
    """Pickle a value, its large buffers uncopied behind the pickle; return where they lie, for the header."""
    views = []

    def stays_inside(buffer):
        view = buffer.raw()
        if view.nbytes >= LARGE_BUFFER:
            views.append(view)
            return False
        return True

    modules = cloudpickle.dump(value, file, 5, stays_inside, views.clear)
    facts = {"pickle": file.size, "buffers": []} if views else {}
    for view in views:
        file.write(bytes(-file.size % ALIGNMENT))
        facts["buffers"].append([file.size, view.nbytes, view.readonly])
        file.write(view)
    if file.size > LARGE_RESULT:
        facts["modules"] = sorted(modules or ())  # another job may fetch it, and need them
    return facts


def write_exception(outcomes, cloudpickle, call, error, began, position, kind="exception"):
    """Write what a call, or the initializer, has raised, with its chain of causes."""
    from .exceptions import error_text, exception_chain, type_name

    facts = call_facts(began, position)
    facts.update(type=type_name(error), error=error_text(error), traceback=traceback_text(error, 1))
    chain = exception_chain(cloudpickle, error)
    try:
        outcomes.write(call, kind, lambda file: dump_plain(chain, file, protocol=5), **facts)
    except OSError as failure:
        write_no_room(outcomes, call, failure, facts)


def write_no_room(outcomes, call, error, facts):
    """Say in a few bytes, which the cut-off record has just given back, that the disk is full."""
    from .exceptions import error_text

    facts.update(error=error_text(error))
    outcomes.write(call, "noroom", **facts)


def write_failure(outcomes, error):
    """Write that something failed around the calls: the function does not load, a file is damaged.

    Returns the exit code.
    """
    from .exceptions import error_text, type_name

    try:
        facts = {"type": type_name(error), "error": error_text(error), "traceback": traceback_text(error, 0)}
        if isinstance(error, ImportError):
            facts["module"] = error.name
        outcomes.write(NO_CALL, "failure", **facts)
        return 0
    except BaseException:  # nothing is left but the standard error, whose tail the client shows
        sys.stderr.write("prominence-executor runner: %s\n" % error_text(error))
        return 1


def call_facts(began, position):
    """Return what every record of an ended call says: seconds, host, its part of the standard streams."""
    end = stream_positions()
    facts = {"seconds": round(time.time() - began, 6), "host": os.uname().nodename}
    if position and end:
        facts["streams"] = [position, end]
    return facts


def traceback_text(error, skip):
    """Return the formatted traceback without this program's own first frames."""
    from .exceptions import TEXT_LIMIT, error_text, type_name

    try:
        import traceback

        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
        return "".join(traceback.format_exception(type(error), error, frames))[-TEXT_LIMIT:]
    except BaseException:  # formatting calls __str__ and __repr__ of somebody else's classes
        return "%s: %s\n" % (type_name(error), error_text(error))


def users_traceback(error):
    """Return the formatted traceback from the first frame on that is not this program's; "" where all are."""
    own, frames = 0, error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).partition(".")[0] in OWN:
        own, frames = own + 1, frames.tb_next
    return traceback_text(error, own) if frames is not None else ""


# -- the standard streams of the calls -------------------------------------------------------------------------------


def buffer_lines():
    """Let what a call prints be seen at the service while it runs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        except (AttributeError, ValueError):
            pass


def flush_streams():
    """Flush standard output and error as far as the call has left them usable."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the call closed it, replaced it, or its disk is full
            pass


def stream_positions():
    """Return how long stdout and stderr are, if they are files: the client cuts a call's own part out of the job's."""
    try:
        states = [os.fstat(1), os.fstat(2)]
    except OSError:
        return None  # the call closed one
    return [state.st_size for state in states] if all(stat.S_ISREG(state.st_mode) for state in states) else None
