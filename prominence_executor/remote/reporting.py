"""Results and exceptions to records: whatever a call did, something of it can be written down.

Here somebody else's code runs again (``__reduce__``, ``__str__``): nothing that it raises may cost more than its own
record.
"""

import os
import pickle
import stat
import sys
import time

from .wire import ALIGNMENT, LARGE_BUFFER, NO_CALL

TEXT_LIMIT = 100000  # characters of a traceback or message that travel


def write_result(outcomes, cloudpickle, call, result, began, position):
    """Write a call's result, or that it could not be pickled or stored."""
    facts = call_facts(began, position)
    try:
        outcomes.write(call, "result", lambda file: dump_out_of_band(cloudpickle, result, file), **facts)
    except OSError as error:
        write_no_room(outcomes, call, error, facts)
    except BaseException as error:  # __reduce__ is somebody else's code
        facts.update(type=type_name(result), error=error_text(error), traceback=traceback_text(error, 0))
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

    cloudpickle.dump(value, file, protocol=5, buffer_callback=stays_inside)
    facts = {"pickle": file.size, "buffers": []}
    for view in views:
        file.write(bytes(-file.size % ALIGNMENT))
        facts["buffers"].append([file.size, view.nbytes, view.readonly])
        file.write(view)
    return facts if views else {}


def write_exception(outcomes, cloudpickle, call, error, began, position, kind="exception"):
    """Write what a call, or the initializer, has raised, with its chain of causes."""
    facts = call_facts(began, position)
    facts.update(type=type_name(error), error=error_text(error), traceback=traceback_text(error, 1))
    chain = exception_chain(cloudpickle, error)
    try:
        outcomes.write(call, kind, lambda file: pickle.dump(chain, file, protocol=5), **facts)
    except OSError as failure:
        write_no_room(outcomes, call, failure, facts)


def write_no_room(outcomes, call, error, facts):
    """Say in a few bytes, which the cut-off record has just given back, that the disk is full."""
    facts.update(error=error_text(error))
    outcomes.write(call, "noroom", **facts)


def write_failure(outcomes, error):
    """Write that something failed around the calls: the function does not load, a file is damaged.

    Returns the exit code.
    """
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


def exception_chain(cloudpickle, error):
    """List the exception and what it was raised from, each pickled by itself: one that cannot be costs no other.

    Each link: its default pickle, a pickle of (class, args, attributes) for classes whose constructor does not take
    its own ``args``, its type and text, and the positions of its cause and context in the list.
    """
    links = []  # type: list[dict[str, object]]
    positions, queue = {id(error): 0}, [error]
    while queue and len(links) < 50:
        current = queue.pop(0)
        link = {"type": type_name(current), "text": error_text(current), "suppress": current.__suppress_context__}
        link["pickle"] = try_dumps(cloudpickle, current)
        link["parts"] = try_dumps(cloudpickle, (type(current), current.args, dict(current.__dict__)))
        for name in ("cause", "context"):
            other = getattr(current, "__%s__" % name)
            if other is not None and id(other) not in positions:
                positions[id(other)] = len(positions)
                queue.append(other)
            link[name] = None if other is None else positions[id(other)]
        links.append(link)
    return links


def try_dumps(cloudpickle, value):
    """Pickle a value; None when it cannot be pickled."""
    try:
        return cloudpickle.dumps(value, protocol=5)
    except BaseException:  # __reduce__ is somebody else's code; the text travels anyway
        return None


def type_name(value):
    """Return the name of a value's class, with its module unless that is builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def error_text(error):
    """Return an exception's text, cut to `TEXT_LIMIT`."""
    try:
        return str(error)[:TEXT_LIMIT]
    except BaseException:  # __str__ is somebody else's code
        return "<no text: its __str__ raised>"


def traceback_text(error, skip):
    """Return the formatted traceback without this program's own first frames."""
    try:
        import traceback

        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
        return "".join(traceback.format_exception(type(error), error, frames))[-TEXT_LIMIT:]
    except BaseException:  # formatting calls __str__ and __repr__ of somebody else's classes
        return "%s: %s\n" % (type_name(error), error_text(error))


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
