"""What runs inside a job. It travels there as the package ``pxremote`` of a zip application; see payload/archive.py.

The standard library only (and cloudpickle, which travels along, and mpi4py, where the image has it), in the syntax of
Python 3.8, with relative imports. It may import nothing outside of this folder. Of its modules only those travel that
a job needs, and as source only those with which a wrong Python says that it is the wrong one.

    start           archive_start (the ``__main__`` of the archive), bundle_start, runner
    both sides      wire, definitions, dumping, clouds: the client imports them, too
    supervising     supervisor, worker, mpi
    calling         calling, worker_process, mpi_results, with inputs, loading, script, inheritance, reporting, records,
                    files, modules, environment
    by itself       probe
"""
