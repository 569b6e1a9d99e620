"""A call on many MPI ranks: each runs it, and rank 0 writes the list of their results.

This is the supervisor of one rank; like any other it runs nothing of the user's. mpirun starts the runner on every
rank. MPI belongs to the child, which finds mpirun's environment. Rank 0 alone writes ``pxoutcome``. What the ranks have
to tell each other lies in a directory ``pxranks-...``, whose name all processes of one mpirun know:

    here-<rank>             it has begun, and has this directory
    placing, placed         a rank puts the files that the calls are given in their places; has done so
    <call>.<rank>[.json]    its result of a call: the pickle, and what there is to say of it
    at-<rank>               the number of the call that it has begun: rank 0 has written down all before that
    failed-<rank>           a signed record: an exception, or that the process crashed
    reported                rank 0 has taken that over; mpirun may end the job

On one node the ranks share their directory. On several they may not: then results go to rank 0 through mpi4py, and a
rank that fails says so on its standard error as well.

An exception ends the job, since the other ranks may wait for the failed one forever: rank 0's supervisor puts its
record into ``pxoutcome``, and the rank's exit code makes mpirun end the others. Not before rank 0 has the calls behind
it that come before the failed one: these have their results, and a failed rank waits for that as long as it takes.
"""

import glob
import hashlib
import os
import shutil
import signal
import sys
import time

from .calling import run_calls
from .ending import end_process
from .exceptions import error_text
from .mpi_results import APART, PAUSE, Abandoned, RankOutcomeWriter, looks, write_rank_failure
from .records import OutcomeWriter, ended_well, last_end
from .reporting import flush_streams, write_failure
from .supervisor import seconds_left
from .wire import NO_CALL, OUTCOME_MAGIC, RANKS_FOLDER

LAST_WORDS = 0.4  # seconds; mpirun gives about one between its two signals
GRACE = 10.0  # seconds that a failed rank waits for rank 0 to report it
# Equal on all ranks; the first ones are another mpirun's when the platform runs the task once more.
LAUNCHES = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "PROMINENCE_JOB_ID")


class Rank:
    """One rank's supervisor, and what its child needs."""

    def __init__(self, job, rank, size):
        self.job = job
        self.rank = rank
        self.size = size
        launch = next((os.environ[name] for name in LAUNCHES if os.environ.get(name)), "")
        self.folder = os.path.abspath(RANKS_FOLDER + hashlib.sha256(launch.encode()).hexdigest()[:12])
        self.terminated = False

    def run(self):
        """Return the exit code."""
        os.makedirs(self.folder, exist_ok=True)
        sys.stdout.flush()
        began = time.monotonic()
        until = None
        seconds = seconds_left(self.job.get("seconds"))
        if seconds:
            until = began + seconds
        if self.rank == 0:
            OutcomeWriter(self.job).close()
        signal.signal(signal.SIGTERM, self.terminate)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.run_child()
        code = self.supervise(child, began, until)
        if self.rank == 0:
            self.note("reported")
            if code:  # another mpirun in this directory is to find nothing of this one
                time.sleep(2 * PAUSE[1])
                os.rename(self.folder, "%s-ended-%d" % (self.folder, os.getpid()))
        elif code:
            if self.has("failed-%d" % self.rank):
                self.await_earlier(self.failed_at("failed-%d" % self.rank))
            for _ in looks(GRACE):
                if self.terminated or self.has("reported"):
                    break
        return code

    def terminate(self, number, frame):
        """Note that mpirun ends this rank, since another one has failed."""
        self.terminated = True

    # -- the supervisor ----------------------------------------------------------------------------------------------

    def supervise(self, child, began, until):
        """Return the exit code when the child has ended, another rank has failed, or the time is up."""
        for _ in looks():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended and status != signal.SIGTERM:
                return self.exit_code(status)
            if self.rank == 0 and not ended and self.failures() and self.has_written_earlier():
                end(child)
                self.take_over()
                return 1
            if ended or self.terminated:
                if not ended:
                    end(child)
                if self.rank == 0:
                    self.take_last_words()
                return 1
            if until is not None and time.monotonic() > until:
                end(child)
                if self.rank == 0:
                    self.append("walltime", seconds=time.monotonic() - began)
                return 1
        return 1

    def exit_code(self, status):
        """Handle the child's end: a good one, a failure that it has written down, or neither."""
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if code == 0 and (self.rank or ended_well(self.job)):
            return 0
        if not self.has("failed-%d" % self.rank):
            write_rank_failure(self, NO_CALL, "crashed", exit=code)
            sys.stderr.write("prominence-executor: the process of rank %d ended with %d\n" % (self.rank, code))
        if self.rank == 0:
            self.take_over()
        return 1

    def take_last_words(self):
        """See whether a rank says why mpirun ends all of them."""
        for _ in looks(LAST_WORDS):
            if self.take_over():
                return
        self.append("crashed", exit=-signal.SIGTERM)

    def failures(self):
        """List the records of ranks that have failed."""
        return glob.glob(os.path.join(glob.escape(self.folder), "failed-*[0-9]"))

    def failed_at(self, name):
        """Return the number of the call in which a rank has failed; -1 when that was before the first one."""
        with open(self.place(name), "rb") as file:
            call = last_end(file)[1]["call"]
        return call if call != NO_CALL else self.at(int(name.rpartition("-")[2]))

    def at(self, rank):
        """Return the number of the call that a rank has begun last; -1 before the first one."""
        try:
            with open(self.place("at-%d" % rank), "rb") as file:
                return int(file.read())
        except OSError:
            return -1

    def has_written_earlier(self):
        """Return whether rank 0 has written down what comes before the first call that has failed."""
        return self.at(0) >= min(self.failed_at(name) for name in self.failures())

    def await_earlier(self, call):
        """Wait until rank 0 has written down the calls before this one, in which this rank has failed."""
        if call > 0:
            for _ in looks(None if self.has("here-0") else APART):
                if self.terminated or self.at(0) >= call:
                    return

    def take_over(self):
        """Put what the first failed rank has written into the outcome file; return False if none has failed."""
        names = self.failures()
        if not names:
            return False
        chosen = min(names, key=lambda name: (self.failed_at(name), int(name.rpartition("-")[2])))
        with open(self.job["outcome"], "r+b") as target, open(chosen, "rb") as source:
            target.seek(last_end(target)[0])
            target.truncate()
            source.seek(len(OUTCOME_MAGIC))
            shutil.copyfileobj(source, target)
        return True

    def append(self, kind, **facts):
        """Append a record of the whole job to the outcome file."""
        OutcomeWriter(self.job, append=True).write(NO_CALL, kind, **facts)

    # -- the child ---------------------------------------------------------------------------------------------------

    def run_child(self):
        """Run the calls; never returns."""
        code = 1
        try:
            outcomes = RankOutcomeWriter(self)
            try:
                run_calls(self.job, outcomes)
                code = 0
            except Abandoned:
                pass
            except BaseException as error:  # whatever it is, rank 0 and the client must learn of it
                write_failure(outcomes, error)
            if code == 0:
                end_process()
                outcomes.finish()
        except Abandoned:
            pass
        except BaseException as error:
            sys.stderr.write("prominence-executor, rank %d: %s\n" % (self.rank, error_text(error)))
        finally:
            flush_streams()
            os._exit(code)

    # -- the common directory ----------------------------------------------------------------------------------------

    def place(self, name):
        """Return the path of a file in the common directory."""
        return os.path.join(self.folder, name)

    def has(self, name):
        """Return whether a file is in the common directory."""
        return os.path.exists(self.place(name))

    def claims(self, name):
        """Return whether this rank is the first one to ask."""
        try:
            os.mkdir(self.place(name))
            return True
        except FileExistsError:
            return False

    def note(self, name, content=b""):
        """Leave a file that is there as a whole or not at all."""
        partial = self.place("%s.%d.part" % (name, os.getpid()))
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, self.place(name))


def end(child):
    """End the child, and what it has started as far as that stays with it: mpirun ends the rest."""
    try:
        os.kill(child, signal.SIGKILL)
    except OSError:
        pass
    os.waitpid(child, 0)
