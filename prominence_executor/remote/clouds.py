"""What is used of cloudpickle though it promises none of it: all of that is here, and pinned by a test.

In a job it is the client's own version.
"""

import types
import typing

import cloudpickle
import cloudpickle.cloudpickle as inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401  in comments

make_class = inside._make_skeleton_class
make_enum = inside._make_skeleton_enum
set_class = inside._class_setstate
function_state = inside._function_getstate
global_names = inside._extract_code_globals
by_reference = inside._should_pickle_by_reference

REDUCERS = dict(cloudpickle.Pickler.dispatch_table.maps[0])  # by type, but what a subclass does for itself
reduce_module = REDUCERS.pop(types.ModuleType)
reduce_type_variable = REDUCERS.pop(typing.TypeVar)
reduce_code = REDUCERS[types.CodeType]


def class_of(tracker):
    # type: (str) -> Any
    """Return the class with that mark, which every class gets that travels by value; None if it is not here."""
    return inside._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)


def is_tracked(kind):
    # type: (type) -> bool
    """Return whether a class has come, or gone, by value."""
    return kind in inside._DYNAMIC_CLASS_TRACKER_BY_CLASS


def track(tracker, kind):
    # type: (str, type) -> None
    """Give a class the mark with which it came: it is to travel with the same one."""
    with inside._DYNAMIC_CLASS_TRACKER_LOCK:
        inside._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = tracker
        inside._DYNAMIC_CLASS_TRACKER_BY_ID.setdefault(tracker, kind)


def variables_of(pickler, func):
    """Return what becomes the global variables of a function: a dictionary for each module in a pickle."""
    return pickler._function_getnewargs(func)[1]
