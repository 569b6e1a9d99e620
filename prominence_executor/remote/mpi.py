"""The remote side of a call on many MPI ranks: each runs it, and rank 0 writes the list of their results.

It travels beside runner.py in its archive, as ``pxranks``, under the same rules: standard library only (and mpi4py,
where the image has it), in the syntax of Python 3.8, nothing of this package.

mpirun starts the runner on every rank. Each rank is a supervisor and its child, as in any other job; MPI belongs to the
child, which finds mpirun's environment. Rank 0 alone writes ``pxoutcome``. What the ranks have to tell each other lies
in a directory ``pxranks-...``, whose name all processes of one mpirun know:

    here-<rank>             it has begun, and has this directory
    placing, placed         a rank puts the files that the calls are given in their places; has done so
    <call>.<rank>[.json]    its result of a call: the pickle, and what there is to say of it
    failed-<rank>           a signed record: an exception, or that the process crashed
    reported                rank 0 has taken that over; mpirun may end the job

On one node the ranks share their directory. On several they may not: then results go to rank 0 through mpi4py, and a
rank that fails says so on its standard error as well.

An exception ends the job, since the other ranks may wait for the failed one for ever: rank 0's supervisor puts its
record into ``pxoutcome``, and the rank's exit code makes mpirun end the others.
"""

import glob
import hashlib
import json
import os
import shutil
import signal
import struct
import sys
import time

import __main__ as runner

LAST_WORDS = 0.4  # seconds; mpirun gives about one between its two signals
GRACE = 10.0  # seconds that a failed rank waits for rank 0 to report it
SHARED = 60.0  # seconds in which all ranks must have shown up in a shared directory
PAUSE = (0.002, 0.05)  # seconds between two looks, at first and in the long run
PIECE = 1 << 28  # bytes of a message
# Equal on all ranks; the first ones are another mpirun's when the platform runs the task once more.
LAUNCHES = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "PROMINENCE_JOB_ID")


class Rank:
    """One rank's supervisor, and what its child needs."""

    def __init__(self, job, rank, size):
        self.job = job
        self.rank = rank
        self.size = size
        launch = next((os.environ[name] for name in LAUNCHES if os.environ.get(name)), "")
        self.folder = os.path.abspath("pxranks-" + hashlib.sha256(launch.encode()).hexdigest()[:12])
        self.terminated = False

    def run(self, argv):
        """Returns the exit code."""
        os.makedirs(self.folder, exist_ok=True)
        sys.stdout.flush()
        began = time.monotonic()
        until = None
        seconds = runner.seconds_left(self.job.get("seconds"))
        if seconds:
            until = began + seconds
        if self.rank == 0:
            runner.Outcomes(self.job).close()
        signal.signal(signal.SIGTERM, self.terminate)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.child(argv)
        code = self.supervise(child, began, until)
        if self.rank == 0:
            self.note("reported")
            if code:  # another mpirun in this directory is to find nothing of this one
                time.sleep(2 * PAUSE[1])
                os.rename(self.folder, "%s-ended-%d" % (self.folder, os.getpid()))
        elif code:
            for _ in looks(GRACE):
                if self.terminated or self.has("reported"):
                    break
        return code

    def terminate(self, number, frame):
        """mpirun ends this rank because another one has failed."""
        self.terminated = True

    # -- the supervisor ----------------------------------------------------------------------------------------------

    def supervise(self, child, began, until):
        for _ in looks():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended and status != signal.SIGTERM:
                return self.over(status)
            if self.rank == 0 and not ended and self.failures():
                end(child)
                self.take_over()
                return 1
            if ended or self.terminated:
                if not ended:
                    end(child)
                if self.rank == 0:
                    self.last_words()
                return 1
            if until is not None and time.monotonic() > until:
                end(child)
                if self.rank == 0:
                    self.append(runner.NO_CALL, "walltime", seconds=time.monotonic() - began)
                return 1
        return 1

    def over(self, status):
        """The child has ended: well, with a failure that it has written down, or without a word."""
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if code == 0 and (self.rank or runner.Outcomes.ended_well(self.job)):
            return 0
        if not self.has("failed-%d" % self.rank):
            Failed(self).write(runner.NO_CALL, "crashed", exit=code, rank=self.rank, ranks=self.size)
            sys.stderr.write("prominence-executor: the process of rank %d ended with %d\n" % (self.rank, code))
        if self.rank == 0:
            self.take_over()
        return 1

    def last_words(self):
        """mpirun ends all ranks: does one say why?"""
        for _ in looks(LAST_WORDS):
            if self.take_over():
                return
        self.append(runner.NO_CALL, "crashed", exit=-signal.SIGTERM)

    def failures(self):
        return glob.glob(os.path.join(glob.escape(self.folder), "failed-*[0-9]"))

    def take_over(self):
        """Put what the first failed rank has written into the outcome file; False if none has failed."""
        names = self.failures()
        if not names:
            return False
        chosen = min(names, key=lambda name: int(name.rpartition("-")[2]))
        with open(self.job["outcome"], "r+b") as target, open(chosen, "rb") as source:
            target.seek(runner.Outcomes.last_end(target)[0])
            target.truncate()
            source.seek(len(runner.MAGIC))
            shutil.copyfileobj(source, target)
        return True

    def append(self, call, kind, **facts):
        runner.Outcomes(self.job, append=True).write(call, kind, **facts)

    # -- the child ---------------------------------------------------------------------------------------------------

    def child(self, argv):
        """Run the calls; never returns."""
        code = 1
        try:
            self.note("here-%d" % self.rank)
            outcomes = Together(self)
            try:
                runner.run_calls(self.job, outcomes, argv)
                code = 0
            except Abandoned:
                pass
            except BaseException as error:  # whatever it is, rank 0 and the client must hear of it
                runner.report_failure(outcomes, error)
            if code == 0:
                outcomes.finish()
        except Abandoned:
            pass
        except BaseException as error:
            sys.stderr.write("prominence-executor, rank %d: %s\n" % (self.rank, runner.error_text(error)))
        finally:
            runner.flush_streams()
            os._exit(code)

    # -- the common directory ----------------------------------------------------------------------------------------

    def place(self, name):
        return os.path.join(self.folder, name)

    def has(self, name):
        return os.path.exists(self.place(name))

    def claims(self, name):
        """Whether this rank is the first one to ask."""
        try:
            os.mkdir(self.place(name))
            return True
        except FileExistsError:
            return False

    def note(self, name, content=b""):
        """A file that is there as a whole or not at all."""
        partial = self.place("%s.%d.part" % (name, os.getpid()))
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, self.place(name))


class Abandoned(BaseException):
    """This rank has failed, and has said so: its child is to end."""


class Failed(runner.Outcomes):
    """Writes records of a failed rank, which rank 0 takes over."""

    def __init__(self, rank):
        self._rank_of = rank
        self._partial = rank.place("failed-%d.part" % rank.rank)
        runner.Outcomes.__init__(self, rank.job, name=self._partial)

    def write(self, call, kind, dump=None, **facts):
        runner.Outcomes.write(self, call, kind, dump, **facts)
        self.close()
        os.replace(self._partial, self._rank_of.place("failed-%d" % self._rank_of.rank))


class Together(runner.Outcomes):
    """Outcomes of a child: a result is one when all ranks have one, anything else ends the job."""

    def __init__(self, rank):
        self._all = rank
        self.rank = rank.rank
        self.places = rank.claims("placing")  # one rank for each directory, be it one node's or all nodes'
        self._facts = {}  # type: dict[str, object]
        self._job = rank.job
        if self.rank == 0:
            runner.Outcomes.__init__(self, rank.job, append=True)
        self._way = Directory(rank)

    def ready(self):
        """Before the first call: see that the files are in their places, and how results go to rank 0."""
        if self.places:
            self._all.note("placed")
        else:
            wait_for(self._all, ["placed"])
        self._way = way(self._all)

    def write(self, call, kind, dump=None, **facts):
        if kind in ("started", "end"):
            if self.rank == 0:
                runner.Outcomes.write(self, call, kind, dump, **facts)
        elif kind == "result":
            with open(self._all.place("%d.%d.part" % (call, self.rank)), "wb") as file:
                body = runner.Body(file)
                facts.update(dump(body) or {})
                facts.update(size=body.size)
            self._facts = facts
        else:
            facts.update(rank=self.rank, ranks=self._all.size)
            Failed(self._all).write(call, kind, dump, **facts)
            if "traceback" in facts:
                sys.stderr.write("prominence-executor, rank %d:\n%s" % (self.rank, facts["traceback"]))
            if kind != "failure":  # the child has that behind it
                raise Abandoned

    def close(self):
        if self.rank == 0:
            runner.Outcomes.close(self)

    def ended(self, call):
        """This rank has its result: hand it to rank 0, which waits for all and writes them down."""
        mine = self._all.place("%d.%d.part" % (call, self.rank))
        if self.rank:
            self._way.send(call, mine, self._facts)
        else:
            ranks = []  # type: list[dict[str, object]]

            def dump(body):
                for rank in range(self._all.size):
                    with open(mine, "rb") if rank == 0 else self._way.receive(call, rank) as file:
                        facts = self._facts if rank == 0 else self._way.facts
                        shutil.copyfileobj(file, body, 1 << 20)
                        ranks.append(facts)
                return {"ranks": ranks}

            runner.Outcomes.write(self, call, "ranks", dump, seconds=self._facts["seconds"], host=self._facts["host"])
        os.unlink(mine)

    def finish(self):
        """End MPI where it was begun: mpirun takes a process that does not for one that has crashed."""
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
            mpi.Finalize()


# -- how results go to rank 0 -----------------------------------------------------------------------------------------


def way(rank):
    """Through the common directory; of several nodes, which may have none, through mpi4py if the image has it."""
    several = rank.job["mpi"]["nodes"] != 1 and rank.size > 1  # None: the service chooses
    if several:
        try:
            from mpi4py import MPI

            if MPI.COMM_WORLD.size == rank.size:
                return Messages(rank, MPI)
        except Exception:  # there is none, or it does not find its library
            pass
    wait_for(rank, ["here-%d" % other for other in range(rank.size)], SHARED if several else None)
    return Directory(rank)


def wait_for(rank, names, seconds=None):
    missing = names
    for _ in looks(seconds):
        missing = [name for name in missing if not rank.has(name)]
        if not missing:
            return
    raise RuntimeError(
        "of rank %s nothing is seen in the directory of rank %d: the nodes do not share it, and the image has no "
        "mpi4py that fits mpirun, through which results could go instead" % (missing[0].rpartition("-")[2], rank.rank)
    )


class Directory:
    """Each result in a file; rank 0 waits for it, for as long as the call takes."""

    def __init__(self, rank):
        self._rank = rank
        self.facts = {}  # type: dict[str, object]

    def send(self, call, path, facts):
        shutil.copyfile(path, self._rank.place("%d.%d" % (call, self._rank.rank)))
        self._rank.note("%d.%d.json" % (call, self._rank.rank), json.dumps(facts).encode("utf-8"))

    def receive(self, call, other):
        path = self._rank.place("%d.%d" % (call, other))
        for _ in looks():
            if os.path.exists(path + ".json"):
                break
        with open(path + ".json", "rb") as file:
            self.facts = json.loads(file.read().decode("utf-8"))
        file = open(path, "rb")
        os.unlink(path)
        os.unlink(path + ".json")
        return file


class Messages(Directory):
    """Each result as messages, on a communicator of our own, so that none is taken for one of the user's."""

    def __init__(self, rank, mpi):
        Directory.__init__(self, rank)
        self._mpi = mpi
        self._world = mpi.COMM_WORLD.Dup()

    def send(self, call, path, facts):
        text = json.dumps(facts).encode("utf-8")
        self._world.Send([struct.pack(">Q", len(text)), self._mpi.BYTE], 0, 1)
        self._world.Send([text, self._mpi.BYTE], 0, 1)
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE), b""):
                self._world.Send([piece, self._mpi.BYTE], 0, 1)

    def receive(self, call, other):
        head = bytearray(8)
        self._world.Recv([head, self._mpi.BYTE], other, 1)
        text = bytearray(struct.unpack(">Q", head)[0])
        self._world.Recv([text, self._mpi.BYTE], other, 1)
        self.facts = json.loads(text.decode("utf-8"))
        return Incoming(self._world, self._mpi, other, self.facts["size"])


class Incoming:
    """A result that comes as messages, as a file."""

    def __init__(self, world, mpi, other, size):
        self._world, self._mpi, self._other, self._left = world, mpi, other, size

    def read(self, size=-1):
        if not self._left:
            return b""
        piece = bytearray(min(PIECE, self._left))
        self._world.Recv([piece, self._mpi.BYTE], self._other, 1)
        self._left -= len(piece)
        return piece

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass


def looks(seconds=None):
    """Time after time, ever less often, until the seconds are over."""
    began = time.monotonic()
    while True:
        yield
        passed = time.monotonic() - began
        if seconds is not None and passed > seconds:
            return
        time.sleep(min(max(PAUSE[0], passed / 20), PAUSE[1]))


def end(child):
    """End the child, and what it has started as far as that stays with it: mpirun sees to the rest."""
    try:
        os.kill(child, signal.SIGKILL)
    except OSError:
        pass
    os.waitpid(child, 0)
