"""The whole program on the remote side: reads a job's calls, runs them, writes their outcomes.

It is shipped as data, the ``__main__`` of a zip application that holds cloudpickle beside it, and where they are needed
worker.py (of a warm worker), staging.py (for files) and ranks.py (for MPI). It runs on whatever Python the container
image has. So it may use the standard library only, in the syntax of Python 3.8, and may import nothing of this package.

The way of a job, in its working directory:

    pxjob.json      who this is (run, job, attempt), the key to sign with, the Python wanted, names and digests
    <calls>         the function and the arguments of each call (see payload.py, which writes it)
    <modules>       a zip of the user's own modules, put on sys.path
    <objects>       large arguments, each in a file of its own (see pickling.py)
    <bundle>        of an array: this program, and the calls and modules of all its jobs (see bundle.py)
    pxoutcome       written here: one signed record after the other, uploaded by the platform when the job ends
    pxfiles         likewise, where output files are wanted: what the calls have written

A supervisor forks one child, which runs the calls in their order and appends a record when a call starts and one when
it ends. So a call that takes its process down costs itself and the calls behind it, and the outcomes before it stand.
The supervisor writes what the child could not: that it crashed, or that the time was up.

A record is PREFIX, body, header. The header is JSON and names run, job, attempt, call, kind and the body's SHA-256;
the prefix holds both lengths and the header's HMAC, and is written last: a record without it does not count.
"""

import hashlib
import hmac
import json
import mmap
import os
import pickle
import signal
import stat
import struct
import sys
import time

FORMAT = 1
JOB_FILE = "pxjob.json"
FILES_FILE = "pxfiles"
MAGIC = b"PXOUT1\n"
FILES_MAGIC = b"PXFILES1\n"
CALLS_MAGIC = b"PXCALLS1\n"
OBJECT_MAGIC = b"PXOBJ1\n"
PREFIX = struct.Struct(">QI32s")  # length of the body, length of the header, HMAC-SHA-256 of the header
WORKER_PROGRAM = "promlet"  # of the platform; this program is its descendant
NO_CALL = -1  # a record that speaks of the whole job
LARGE_BUFFER = 1 << 16  # bytes from which on a buffer of a result lies behind its pickle
ALIGNMENT = 64  # bytes: at a multiple of it such a buffer begins, as numpy and Arrow like it
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
TEXT_LIMIT = 100000  # characters of a traceback or message that travel


def main(argv):
    with open(JOB_FILE, "rb") as file:
        job = json.loads(file.read().decode("utf-8"))
    if "bundle" in job:  # one job of an array: the rest lies in the archive that this program runs from
        job["bundle"]["name"] = os.path.abspath(argv[0])
        with open_part(job, "jobs/%s.json" % argv[1]) as file:
            job.update(json.loads(file.read().decode("utf-8")))
    limit_threads()
    if "outputs" in job and not ("mpi" in job and mpi_rank()[0]):
        with open(FILES_FILE, "wb") as file:  # it is declared: without it, the platform calls the job failed
            file.write(FILES_MAGIC)
    if "mpi" in job and "%d.%d" % sys.version_info[:2] == job["python"]:
        import pxranks  # type: ignore[import-not-found]  # from the archive

        sys.exit(pxranks.Rank(job, *mpi_rank()).run(argv))
    if "mpi" in job and mpi_rank()[0]:
        return  # rank 0 says that this is the wrong Python
    outcomes = Outcomes(job)
    here = "%d.%d" % sys.version_info[:2]
    if here != job["python"]:
        outcomes.write(NO_CALL, "python", here=here, wanted=job["python"], executable=sys.executable)
        return
    if "worker" in job:
        import pxworker  # type: ignore[import-not-found]  # from the archive

        pxworker.Worker(job).run()
        outcomes.write(NO_CALL, "end")
        return
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            run_calls(job, outcomes, argv)
            code = 0
        except BaseException as error:  # whatever it is, the supervisor and the client must hear of it
            code = report_failure(outcomes, error)
        finally:
            flush_streams()
            os._exit(code)
    outcomes.close()
    supervise(job, child)


def mpi_rank():
    """Which of how many processes of an MPI job this is; (0, 1) of any other."""
    for name in ("OMPI_COMM_WORLD", "PMI", "MV2_COMM_WORLD"):
        if name + "_RANK" in os.environ:
            return int(os.environ[name + "_RANK"]), int(os.environ.get(name + "_SIZE", 1))
    return 0, 1


def limit_threads():
    """Let numerical libraries use the job's CPUs, not all that the machine has, unless the user or the image says more.

    What was said for OpenMP holds for the others, too: some of them would look at their own variable first.
    """
    env = os.environ
    try:
        sharing = env.get("OMPI_COMM_WORLD_LOCAL_SIZE") or env.get("MPI_LOCALNRANKS") or 1
        cpus = str(max(1, int(env["PROMINENCE_CPUS"]) // int(sharing)))
    except (KeyError, ValueError):
        return
    said = env.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    for name in THREADS:
        env.setdefault(name, said if said.isdigit() and int(said) else cpus)


def supervise(job, child):
    """Wait for the child within the walltime, then say what it could not say itself."""
    started = time.monotonic()
    try:
        status = wait_for(child, seconds_left(job.get("seconds")))
    except TimeoutError:
        end_group(child)
        os.waitpid(child, 0)
        facts = files_left(job)
        Outcomes(job, append=True).write(NO_CALL, "walltime", seconds=time.monotonic() - started, **facts)
        return
    end_group(child)
    if os.WIFSIGNALED(status):
        Outcomes(job, append=True).write(NO_CALL, "crashed", exit=-os.WTERMSIG(status), **files_left(job))
    elif os.WEXITSTATUS(status) or not Outcomes.ended_well(job):
        Outcomes(job, append=True).write(NO_CALL, "crashed", exit=os.WEXITSTATUS(status), **files_left(job))


def files_left(job):
    """What the call has written that was running when its process ended, if its files are wanted."""
    if "outputs" not in job:
        return {}
    import pxstaging  # type: ignore[import-not-found]

    with open(job["outcome"], "rb") as file:
        last = Outcomes.last_end(file)[1]
    if last.get("kind") != "started":
        return {}
    return {"files": pxstaging.Collector(job, since=last["time"]).collect(last["call"])}


def seconds_left(seconds):
    """What is left of a job's time, which runs from the start of the platform's worker: before image and inputs."""
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
                if WORKER_PROGRAM in file.read():
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


def run_calls(job, outcomes, argv):
    """Load the function, run the initializer and every call of this job, and write an outcome for each."""
    sys.argv = [""]
    line_buffered()
    for entry in reversed(job.get("modules", [])):
        check_digest(job, entry)
        sys.path.insert(1, module_file(job, entry["name"]))
    check_digest(job, job["calls"])
    if "files" in job or "outputs" in job:
        import pxstaging  # from the archive

        if "files" in job and outcomes.places:
            pxstaging.place(job)
        if "outputs" in job and outcomes.rank == 0:
            outcomes.collector = pxstaging.Collector(job)
    outcomes.ready()
    import cloudpickle  # ours, from the archive that this program runs from: the client's own version

    load = loader(job)
    with open_part(job, job["calls"]["name"]) as file:
        (function, initializer, initargs), offsets = read_calls(job, file, load)
        if initializer is not None and not initialized(outcomes, cloudpickle, initializer, initargs):
            return
        for call, offset in enumerate(offsets):
            if offset is not None:  # else it was cancelled before the job was sent
                run_call(outcomes, cloudpickle, call, function, lambda at=offset: file.seek(at) and load(file))
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


def open_part(job, name):
    """Open an input: a file of the job, or a member of its bundle."""
    if "bundle" not in job:
        return open(name, "rb")
    import zipfile

    return zipfile.ZipFile(job["bundle"]["name"]).open(name)


def module_file(job, name):
    """The path of a zip of modules, which in a bundle is taken out of it first."""
    path = os.path.abspath(os.path.basename(name))
    if "bundle" in job:
        partial = "%s.%d" % (path, os.getpid())  # MPI ranks may share the directory
        with open_part(job, name) as source, open(partial, "wb") as target:
            target.write(source.read())
        os.replace(partial, path)
    return path


def loader(job):
    """Return a function that unpickles a file, whose pickle may refer to objects that came as files of their own.

    A shared one is loaded once; each pickle has a copy of its own of a private one, made when it is written to.
    """
    home = os.getcwd()
    verified = set()  # type: set[str]
    shared = {}  # type: dict[str, object]

    def load_object(digest):
        path = os.path.join(home, job["objects"][digest])
        if digest not in verified:
            verify(path, digest)
            verified.add(digest)
        with open(path, "rb") as file:
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            if file.readline() != OBJECT_MAGIC:
                raise ValueError("%s is not in the format of this runner" % path)
            parts = json.loads(file.readline().decode("utf-8"))
            start = file.tell()
            buffers = []
            for at, size, readonly in parts["buffers"]:
                view = memory[start + at : start + at + size]
                buffers.append(view.toreadonly() if readonly else view)
            return pickle.Unpickler(file, buffers=buffers).load()

    def load(file):
        private = {}  # type: dict[str, object]

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, pid):
                kind, _, digest = pid.partition(" ")
                loaded = shared if kind == "shared" else private
                if digest not in loaded:
                    loaded[digest] = load_object(digest)
                return loaded[digest]

        return Unpickler(file).load()

    return load


def read_calls(job, file, load):
    """Return what stands before the calls, and the offset of each call's arguments in the file of calls."""
    if file.readline() != CALLS_MAGIC:
        raise ValueError("the file of calls is not in the format of this runner")
    index = json.loads(file.readline().decode("utf-8"))
    start = file.tell()
    if "function" in job:
        with open_part(job, job["function"]) as part:
            head = load(part)
    else:
        head = load(file)
    offsets = []
    start += index["function"]
    for length in index["calls"]:
        offsets.append(None if length is None else start)
        start += length or 0
    return head, offsets


def initialized(outcomes, cloudpickle, initializer, initargs):
    """Run the initializer, once before all calls; when it raises, none of them runs."""
    began, position = time.time(), stream_positions()
    try:
        initializer(*initargs)
        return True
    except BaseException as error:  # as for the calls
        flush_streams()
        write_exception(outcomes, cloudpickle, NO_CALL, error, began, position, kind="initializer")
        return False


def check_digest(job, entry):
    """Refuse a file that did not arrive as it was sent: nothing unverified is unpickled or imported."""
    if "bundle" in job:
        return  # start.py has made sure of it as a whole
    verify(entry["name"], entry["sha256"])


def verify(path, sha256):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError("%s did not arrive as it was sent (its SHA-256 differs)" % os.path.basename(path))


def write_result(outcomes, cloudpickle, call, result, began, position):
    facts = call_facts(began, position)
    try:
        outcomes.write(call, "result", lambda file: dump_apart(cloudpickle, result, file), **facts)
    except OSError as error:
        write_no_room(outcomes, call, error, facts)
    except BaseException as error:  # __reduce__ is somebody else's code
        facts.update(type=type_name(result), error=error_text(error), traceback=traceback_text(error, 0))
        outcomes.write(call, "unpicklable", **facts)


def dump_apart(cloudpickle, value, file):
    """Pickle a value, its large buffers uncopied behind the pickle; returns where they lie, for the header."""
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
    facts = call_facts(began, position)
    facts.update(type=type_name(error), error=error_text(error), traceback=traceback_text(error, 1))
    chain = exception_chain(cloudpickle, error)
    try:
        outcomes.write(call, kind, lambda file: pickle.dump(chain, file, protocol=5), **facts)
    except OSError as failure:
        write_no_room(outcomes, call, failure, facts)


def write_no_room(outcomes, call, error, facts):
    """The disk is full: say so in a few bytes, which the cut-off record has just given back."""
    facts.update(error=error_text(error))
    outcomes.write(call, "noroom", **facts)


def call_facts(began, position):
    end = stream_positions()
    facts = {"seconds": round(time.time() - began, 6), "host": os.uname().nodename}
    if position and end:
        facts["streams"] = [position, end]
    return facts


def exception_chain(cloudpickle, error):
    """The exception and what it was raised from, each pickled for itself so that one that cannot be costs no other.

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
    try:
        return cloudpickle.dumps(value, protocol=5)
    except BaseException:  # __reduce__ is somebody else's code; the text travels anyway
        return None


def report_failure(outcomes, error):
    """Something failed around the calls: the function does not load, a file is damaged."""
    try:
        facts = {"type": type_name(error), "error": error_text(error), "traceback": traceback_text(error, 0)}
        if isinstance(error, ImportError):
            facts["module"] = error.name
        outcomes.write(NO_CALL, "failure", **facts)
        return 0
    except BaseException:  # nothing is left but the standard error, whose tail the client shows
        sys.stderr.write("prominence-executor runner: %s\n" % error_text(error))
        return 1


def type_name(value):
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def error_text(error):
    try:
        return str(error)[:TEXT_LIMIT]
    except BaseException:  # __str__ is somebody else's code
        return "<no text: its __str__ raised>"


def traceback_text(error, skip):
    """The formatted traceback without the runner's own first frames."""
    try:
        import traceback

        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
        return "".join(traceback.format_exception(type(error), error, frames))[-TEXT_LIMIT:]
    except BaseException:  # formatting calls __str__ and __repr__ of somebody else's classes
        return "%s: %s\n" % (type_name(error), error_text(error))


def line_buffered():
    """What a call prints is seen at the service while it runs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        except (AttributeError, ValueError):
            pass


def flush_streams():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the call closed it, replaced it, or its disk is full
            pass


def stream_positions():
    """How long stdout and stderr are, if they are files: the client cuts a call's own part out of the job's."""
    try:
        states = [os.fstat(1), os.fstat(2)]
    except OSError:
        return None  # the call closed one
    return [state.st_size for state in states] if all(stat.S_ISREG(state.st_mode) for state in states) else None


class Outcomes:
    """The file of outcomes: appends signed records, and takes back one that could not be finished."""

    collector = None  # of the files that calls write, if they are wanted
    rank = 0  # of an MPI job's processes
    places = True  # the files that calls are given

    def __init__(self, job, append=False, name=None):
        self._job = job
        self._key = bytes.fromhex(job["key"])
        self._name = os.path.abspath(name or job["outcome"])  # a call may change the working directory
        if append:
            self._file = open(self._name, "r+b")
            self._file.seek(self.last_end(self._file)[0])
            self._file.truncate()
        else:
            self._file = open(self._name, "w+b")
            self._file.write(MAGIC)
            self._file.flush()

    def write(self, call, kind, dump=None, **facts):
        """Append one record, its body written by ``dump(file)``; on any error the file is as it was before."""
        start = self._file.tell()
        try:
            self._file.write(bytes(PREFIX.size))
            body = Body(self._file)
            if dump is not None:
                facts.update(dump(body) or {})
            if self.collector is not None and call != NO_CALL and kind != "started":
                facts["files"] = self.collector.collect(call)
            header = {"format": FORMAT, "call": call, "kind": kind, "size": body.size, "sha256": body.hexdigest()}
            for name in ("run", "job", "attempt"):
                header[name] = self._job[name]
            header.update(facts)
            text = json.dumps(header).encode("utf-8")
            mac = hmac.new(self._key, text, hashlib.sha256).digest()
            self._file.write(text)
            self._file.flush()
            end = self._file.tell()
            self._file.seek(start)
            self._file.write(PREFIX.pack(body.size, len(text), mac))
            self._file.flush()
            self._file.seek(end)
        except BaseException:
            self.take_back(start)
            raise

    def ready(self):
        """The files that the calls are given are in their places."""

    def ended(self, call):
        """A call has ended, and its outcome has been written."""

    def take_back(self, start):
        try:
            self._file.close()  # drops what is still buffered, on a full disk with an error
        except OSError:
            pass
        with open(self._name, "r+b") as file:
            file.truncate(start)
        self._file = open(self._name, "r+b")
        self._file.seek(start)

    def close(self):
        self._file.close()

    @classmethod
    def last_end(cls, file):
        """Return where the last finished record ends, and its header."""
        size = os.fstat(file.fileno()).st_size
        end, header = len(MAGIC), {}
        while end + PREFIX.size <= size:
            file.seek(end)
            body, length, _ = PREFIX.unpack(file.read(PREFIX.size))
            if length == 0 or end + PREFIX.size + body + length > size:
                break
            file.seek(body, os.SEEK_CUR)
            header = json.loads(file.read(length).decode("utf-8"))
            end = file.tell()
        return end, header

    @classmethod
    def ended_well(cls, job):
        """True if the child said that it came to the end, or why it did not."""
        with open(job["outcome"], "rb") as file:
            return cls.last_end(file)[1].get("kind") in ("end", "failure", "initializer")


class Body:
    """A file to pickle into: counts and hashes what goes through it."""

    def __init__(self, file):
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data):
        data = memoryview(data).cast("B")
        self._file.write(data)
        self._digest.update(data)
        self.size += data.nbytes
        return data.nbytes

    def hexdigest(self):
        return self._digest.hexdigest()


if __name__ == "__main__":
    main(sys.argv)
