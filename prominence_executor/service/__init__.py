"""The embedded service: an independent implementation of the PROMINENCE HTTP API on 127.0.0.1.

    with LocalService() as service:
        requests.get(service.url + "/jobs", headers={"Authorization": "Bearer " + service.token})

Jobs run as plain processes of this machine, or in containers with `containers="real"`. A folder imports only from those
before it:

    schema/       what a description may contain, and the sentences that refuse it
                  items (names, labels, policies), parameters, resources, task, files, job, factory, workflow (and which
                  jobs it stands for), allocation (what a job gets of this machine)
    state/        what is kept
                  clock, shortage (errors that are worth another try), vital (threads that must live), directory
                  (who may write there), authority (that signs its certificate), store (SQLite), workflow_rows, pairs
                  (keys and values), objects (files), tokens (and signed URLs), representations (rows as the service's
                  JSON)
    sandbox/      one job's files and processes
                  sandbox (its directory and environment), held (by a lock, where nobody clears up later), processes
                  (their trees), archives (unpacked within bounds), staging (files in and out), downloads
                  (past proxies where they lie here), removal (without following links)
    containers/   how a task's words become a command
                  base (the interface; plain processes), once (for many jobs), images, overlay (an image's files,
                  writable), runtime (that interface), udocker, apptainer, proot_shim (a program between udocker and
                  PRoot), tasks (whichever of them a task names)
    node/         one job on the machine where it runs
                  outcome (what follows from a run), platform (how the real one behaves, by option), logs, spec (what a
                  run knows of its job), mpi, machine, job_processes (those of one run), tasks (of one run), job_run;
                  oom (kills by the kernel), ticket, elsewhere, program (the same on another machine)
    engines/      where jobs run, and when they start
                  base (the interface), queue (what starts next), sandboxes, memory (that is enforced, by option), local
                  (this machine); system (what a batch system is), ends (why a job ended), batches (on disk), ledger
                  (what is submitted), sending, listening, batch (an engine of these), slurm
    execution/    from a stored job to its end
                  context (what the rooms share), postponed (for lack of room), facts (of a job, for its run), scheduler
                  (submitted, given to the engine, ended, repeated), due (which jobs of a workflow), workflows,
                  notifications (mails); pace (of the real platform, by option)
    http/         requests and answers
                  server (an event loop in a thread that ends), context (what views share), routes, transfer (bytes from
                  and to files), jobs, workflows, data, keys, app (who may ask, and which view answers), costs (of
                  requests, by option)
    assembly      the parts put together
    service       LocalService: the life of one service (directory, threads, port)
    serving       where it serves, said in its directory
    found         the service that outlives its programs, for url="slurm"
    launch        the service as the child of another program, for url="local"
    __main__      the service as a program

This package imports nothing of the rest of `prominence_executor`, and nothing there imports it except the lazy lines
behind url="local" and the command `serve`: a schema that is written twice can be tested.
"""

from .node.platform import Platform
from .service import LocalService

__all__ = ["LocalService", "Platform"]
