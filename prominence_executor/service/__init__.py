"""The embedded service: an independent implementation of the PROMINENCE HTTP API on 127.0.0.1.

    with LocalService() as service:
        requests.get(service.url + "/jobs", headers={"Authorization": "Bearer " + service.token})

Jobs run as plain processes of this machine, or in containers with `containers="real"`. A folder imports only from those
before it:

    schema/       what a description may contain, and the sentences that refuse it
                  items (names, labels, policies), parameters, resources, task, files, job, factory, workflow (and which
                  jobs it stands for), allocation (what a job gets of this machine)
    state/        what is kept
                  clock, shortage (errors that are worth another try), directory (who may write there), store (SQLite),
                  workflow_rows, pairs (keys and values), objects (files), tokens (and signed URLs), representations
                  (rows as the service's JSON)
    sandbox/      one job's files and processes
                  sandbox (its directory and environment), processes (their trees), archives (unpacked within bounds),
                  staging (files in and out), downloads (past proxies where they lie here), removal (without following
                  links)
    containers/   how a task's words become a command
                  base (the interface; plain processes), images (had once for many jobs), overlay (an image's files,
                  writable), runtime (that interface), udocker, apptainer, proot_shim (a program between udocker and
                  PRoot), tasks (whichever of them a task names)
    engines/      where a job's processes run
                  local (this machine: slots and sandboxes), job_processes (those of one run)
    execution/    from a stored job to its end
                  vital (threads that must live), context (what the rooms share), postponed (for lack of room), logs,
                  spec (what a run knows of its job), mpi, machine, outcome (what follows from a run), tasks (of one
                  run), job_run (one running job), queue (what starts next), scheduler (one thread decides), due (which
                  jobs of a workflow), workflows, notifications (mails);
                  platform (how the real one behaves, by option), pace and memory (what it needs for that)
    http/         requests and answers
                  server (an event loop in a thread that ends), context (what views share), routes, transfer (bytes from
                  and to files), jobs, workflows, data, keys, app (who may ask, and which view answers), costs (of
                  requests, by option)
    service       LocalService: the life of one service (directory, threads, port)
    launch        the service as the child of another program, for url="local"
    __main__      the service as a program

This package imports nothing of the rest of `prominence_executor`, and nothing there imports it except the lazy lines
behind url="local" and the command `serve`: a schema that is written twice can be tested.
"""

from .execution.platform import Platform
from .service import LocalService

__all__ = ["LocalService", "Platform"]
