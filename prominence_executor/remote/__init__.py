"""What runs inside a job. It travels there as the package ``pxremote`` in one compressed file; see payload/archive.py.

The standard library only (and cloudpickle, which travels along, and mpi4py, where the image has it), in the syntax of
Python 3.8, with relative imports. It may import nothing outside of this folder. Of its modules only those travel that
a job needs, those that every call needs as byte code. `lean`, `lines` and `plain` are there for the start of a job, of
which most is the import of modules of the standard library: import such a module where it is needed.

    start           start (the program, which imports the others from memory), runner
    both sides      wire, definitions, lines, dumping, clouds: the client imports them, too
    supervising     supervisor, worker, mpi
    calling         calling, worker_process, mpi_results, with inputs, loading, script, inheritance, reporting, plain,
                    records, files, modules, environment
    by itself       probe
"""
