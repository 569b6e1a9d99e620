"""The user's script in a job: a ``__main__`` of its own, beside the program that runs the calls.

A process that runs one function has one `Script`; a warm worker has one for each pickled function, and makes that the
present one whose calls it runs: a call sees functions, classes and global variables as they were when it was submitted.

It unpickles nothing itself; loading.py does, into the present script.
"""

import builtins
import itertools
import os
import sys
import types

from . import definitions
from .wire import SCRIPTS_FOLDER

# Where processes that a call spawns find the script, which is only then put there; calls may go to other directories.
FOLDER = os.path.abspath("%s%s-%d" % (SCRIPTS_FOLDER, os.uname().nodename, os.getpid()))
_PROGRAM = """\
import sys
if "pxremote" not in sys.modules:
    with open({!r}, "rb") as file:
        exec(compile(file.read(), {!r}, "exec"), {{"__name__": "pxstart", "__file__": {!r}}})
from pxremote.loading import load_spawned
load_spawned(sys.modules[__name__], {!r}, {!r})
"""
_numbers = itertools.count()


class Script(definitions.Space):
    """The namespace of a script, and what came into it.

    Args:
        pickle: of the function, if it may be needed again.
        objects: the paths of objects to which that may refer, by their digests.
    """

    def __init__(self, pickle=None, objects=None, module=None):
        self.module = module or types.ModuleType("__main__")
        self.names = vars(self.module)
        self.names["__builtins__"] = builtins
        if module is None:  # else the module has one
            self.names["__spec__"] = Spec(self)
        self.origin = ""
        self.pickle = pickle
        self.objects = objects
        self._spawned = None  # type: tuple[str, list[int]] | None
        self._later = None  # type: set[str] | None  # names of what came with arguments
        self.used = False  # whether what was unpickled last defines something here, or names it
        self.classes = {}  # type: dict[str, type]  # by their marks
        self.shared = {}  # type: dict[str, object]  # objects of all calls that have to do with what is defined here
        self.places = {}  # type: dict[int, tuple[object, str]]  # by id: what the script has by a dotted name
        self._dotted = {}  # type: dict[str, int]  # the ids of those, by their names
        self._kept = frozenset()  # type: frozenset[str]  # variables that the initializer has set
        self._kept_attributes = {}  # type: dict[str, frozenset[str]]  # likewise, by class
        self._settled = set()  # type: set[int]  # ids of classes that stay as they are
        self._functions = {}  # type: dict[str, types.FunctionType]  # that came, by name

    def activate(self):
        """Be ``__main__``."""
        global _present
        _present = self
        sys.modules["__main__"] = self.module
        if FOLDER not in sys.path:
            sys.path.append(FOLDER)

    def keep(self, values, attributes):
        """Let no pickle undo what the initializer has set: variables, and attributes of classes by their names."""
        self._kept = frozenset(values)
        self._kept_attributes = {name: frozenset(found) for name, found in attributes.items()}

    def inherit(self, values, attributes, classes):
        """Begin with what the initializer has left in another script.

        Args:
            values, attributes: see `keep`.
            classes: by their marks: those that objects among all that are of.
        """
        self.classes.update(classes)
        self._settled.update(map(id, classes.values()))
        self.names.update(values)
        self.keep(values, attributes)

    # -- what definitions.py asks ------------------------------------------------------------------------------------

    def namespace(self, origin, facts):
        """Return the global variables."""
        self.origin = origin
        self.used = True
        for name, value in facts.items():
            if value is not None:
                self.names[name] = value
        return self.names

    def known_function(self, names, qualname, code):
        """Return a function that came before and is the same one."""
        known = self._functions.get(qualname)
        return known if known is not None and known.__code__ == code else None

    def known_value(self, names, qualname, kind):
        """Return an object that came before."""
        known = definitions.resolve(self.names, qualname)
        return known if type(known) is kind else None

    def known_class(self, tracker):
        """Return a class that came before."""
        self.used = True
        return self.classes.get(tracker)

    def created(self, tracker, kind):
        """Keep a class by its mark: another script has one of its own."""
        self.classes[tracker] = kind

    def is_settled(self, obj):
        """Return whether it is a class that the initializer's objects are of."""
        return id(obj) in self._settled

    def define(self, names, values):
        """Set global variables, but those that the initializer has set."""
        if names is self.names and self._kept:
            values = {name: value for name, value in values.items() if name not in self._kept}
        names.update(values)

    def attributes(self, kind, attributes):
        """Return attributes without those that the initializer has set."""
        kept = self._kept_attributes.get(kind.__qualname__)
        return {name: value for name, value in attributes.items() if name not in kept} if kept else attributes

    def bind(self, qualname, obj):
        """Set the variable that has the object's name."""
        if "." in qualname:
            self.places.pop(self._dotted.get(qualname, 0), None)
            self.places[id(obj)] = obj, qualname
            self._dotted[qualname] = id(obj)
        elif qualname[:2] != "__":
            self.define(self.names, {qualname: obj})
            if self._later is not None:
                self._later.add(qualname)
            if type(obj) is types.FunctionType:
                self._functions[qualname] = obj

    # -- processes that a call spawns --------------------------------------------------------------------------------

    def loaded(self):
        """Note that what comes from now on comes with arguments."""
        self._later = set()

    def spawned(self):
        """Write the script as a module that such a process can import, with what came later; return its name."""
        if self.pickle is None:
            return "__main__"  # there is nothing that it could need
        later = {name: self.names[name] for name in sorted(self._later or ())}
        state = [id(value) for value in later.values()]
        if self._spawned is None or self._spawned[1] != state:
            name = "pxscript_%d" % next(_numbers)
            os.makedirs(FOLDER, exist_ok=True)
            path = os.path.join(FOLDER, name)
            with open(path + ".pickle", "wb") as file:
                file.write(self.pickle)
                file.write(self._pickled(later))
            with open(path + ".py", "w") as program:
                program.write(_PROGRAM.format(*[_start()] * 3, path + ".pickle", self.objects))
            self._spawned = name, state
        return self._spawned[0]

    def _pickled(self, values):
        from .plain import Dumper

        try:
            return Dumper(self).dumps(values)
        except Exception:  # __reduce__ is somebody else's code, and the process may not need it
            return Dumper(self).dumps({})


class Spec:
    """What multiprocessing asks for a name by which a process that is no fork can import the script."""

    def __init__(self, script):
        self._script = script
        self.loader = None
        self.origin = self.parent = self.submodule_search_locations = None
        self.has_location = False

    def __bool__(self):
        return False  # repr() of a module looks at nothing else

    @property
    def name(self):
        """The name of a module that is written when it is asked for."""
        return self._script.spawned()


def _start():
    """Return the path of the program that imports this one, too."""
    return getattr(__spec__.loader, "program", "")


_present = None  # type: Script | None


def present():
    """Return the script whose calls run."""
    global _present
    if _present is None:
        _present = Script()
    return _present
