"""The program of every job: reads who it is, sees that this is the right Python, and has the calls run.

It runs on whatever Python the container image has. With lean, records, inputs and wire it travels as source, too, so
that a wrong Python can say that it is the wrong one; whatever else it needs is imported behind that.

The way of a job, in its working directory:

    pxjob.json      who this is (run, job, attempt), the key to sign with, the Python wanted, names and digests
    <calls>         the function and the arguments of each call (see payload/calls.py, which writes it)
    <modules>       the user's own modules, unpacked into a directory (see payload/modules.py)
    <results>       of other jobs' calls, fetched from the object store (see results.py)
    <packages>      installed packages, likewise (see environments/archive.py)
    <objects>       large arguments, each in a file of its own (see payload/pickling.py)
    pxrun.py, .bin  this program: see start.py
    <bundle>        of an array: the second of these, and the calls and modules of all its jobs (see payload/bundle.py)
    pxoutcome       written here: one signed record after the other, uploaded by the platform when the job ends
    pxfiles         likewise, where output files are wanted: what the calls have written

The supervisor forks one child, which runs the calls in their order and appends a record when a call starts and one when
it ends. So a call that takes its process down costs itself and the calls behind it, and the outcomes before it stand.
"""

import os
import sys

from .inputs import open_part
from .lean import loads
from .records import OutcomeWriter
from .wire import FILES_FILE, FILES_MAGIC, JOB_FILE, NO_CALL

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip


def main():
    """Run a job: the part that its instructions name."""
    job = read_job(sys.argv)
    rank, ranks = mpi_rank() if "mpi" in job else (0, 1)
    limit_threads()
    if "outputs" in job and rank == 0:
        with open(FILES_FILE, "wb") as file:  # it is declared: without it, the platform calls the job failed
            file.write(FILES_MAGIC)
    here = "%d.%d" % sys.version_info[:2]
    if here != job["python"]:
        if rank == 0:
            OutcomeWriter(job).write(NO_CALL, "python", here=here, wanted=job["python"], executable=sys.executable)
    elif "mpi" in job:
        from .mpi import Rank

        sys.exit(Rank(job, rank, ranks).run())
    elif "courier" in job:
        from .courier import leave_places

        leave_places(job)
    elif "worker" in job:
        from .worker import Worker

        outcomes = OutcomeWriter(job)
        Worker(job).run()
        outcomes.write(NO_CALL, "end")
    else:
        run_in_child(job)


def read_job(argv):
    """Return this job's instructions; a job of an array finds its own in the bundle."""
    with open(JOB_FILE, "rb") as file:
        job = loads(file.read().decode("utf-8"))
    if "bundle" in job:
        job["bundle"]["name"] = os.path.abspath(job["bundle"]["name"])
        with open_part(job, "jobs/%s.json" % argv[1]) as file:
            job.update(loads(file.read().decode("utf-8")))
    return job


def run_in_child(job):
    """Have a child run the calls, and supervise it; never returns."""
    from . import supervisor

    if "limit" in job:
        from . import limits

        limits.supervise(job, start_child)
    else:
        supervisor.supervise(job, start_child(job, OutcomeWriter(job)))
    os._exit(0)  # nothing is buffered; taking the interpreter down would cost a tenth of the start of a job


def start_child(job, outcomes):
    """Fork the child that runs the calls; return its process id."""
    from . import calling, ending, reporting

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            calling.run_calls(job, outcomes)
            code = 0
        except BaseException as error:  # whatever it is, the supervisor and the client must learn of it
            code = reporting.write_failure(outcomes, error)
        finally:
            ending.end_process()
            reporting.flush_streams()
            os._exit(code)
    outcomes.close()
    return child


def mpi_rank():
    """Return which of how many processes of an MPI job this is; (0, 1) without one."""
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
