"""The embedded service: an independent implementation of the PROMINENCE HTTP API on 127.0.0.1.

    with LocalService() as service:
        requests.get(service.url + "/jobs", headers={"Authorization": "Bearer " + service.token})

Jobs run as plain processes of this machine, or in containers with `containers="real"`. The rooms, imports pointing
down only:

    __main__     the service as a program
    launch       that program as the child of another one, for url="local"
    service      LocalService: the life of one service (directory, threads, port)
    server       waitress in threads that can be stopped and joined
    api, api_*   Flask views: HTTP in, JSON out; no state of their own
    mail         notifications about ended jobs
    workflows    which jobs of a workflow are due, and how it ends
    factories    a workflow's description turned into jobs
    scheduler    the queue, the slots, the clock
    parallel     the processes of a task: MPI's mpirun, and nodes
    fitting      what a job gets of this machine
    worker       one running job: stage in, tasks, stage out
    real         tasks in containers, whichever runtime they name
    udocker, apptainer   those runtimes, each behind the interface of `runtime`
    prootshim    a program of its own between udocker and PRoot
    layers       an image's files for one job, writable
    pulling      images by checksum, had once for many jobs
    containers   what a run needs of all that; plain processes
    staging      files into and out of a sandbox
    sandbox      a job's directory and environment
    processes    starting, waiting for and killing process trees
    web          what all Flask views share
    views        rows turned into the service's JSON
    rules        what a description may contain, and the sentences that refuse it
    site         what the rooms of one service share
    store        all state, in SQLite
    objects      the object store, on disk
    tokens       bearer tokens and signed URLs
    downloads    artifacts and images by HTTP, past proxies where they lie on this machine
    trees        removing directories without following links
    directory    the service's own directory and who may write in it

This package imports nothing of the rest of `prominence_executor`, and nothing there imports it except the one
lazy line behind url="local": a schema that is written twice can be tested.
"""

from .service import LocalService

__all__ = ["LocalService"]
