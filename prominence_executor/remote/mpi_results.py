"""How the child of an MPI rank hands on its results: each to rank 0, which writes the list of them as one record.

A `rank` here is the supervisor's object of mpi.py: number, size, job and the common directory. Nothing here ends a
process.
"""

import json
import os
import shutil
import struct
import sys
import time

from .records import HashingWriter, OutcomeWriter

SHARED = 60.0  # seconds in which all ranks must have shown up in a shared directory
PAUSE = (0.002, 0.05)  # seconds between two looks, at first and in the long run
PIECE = 1 << 28  # bytes of a message
APART = 5.0  # seconds that a failed rank leaves to rank 0, which it cannot see, to write down earlier calls
ALL = 1 << 31  # a number behind that of any call


class Abandoned(BaseException):
    """This rank has failed, and has said so: its child is to end."""


def write_rank_failure(rank, call, kind, dump=None, **facts):
    """Write a record of a failed rank where rank 0 finds it, and takes it over."""
    partial = rank.place("failed-%d.part" % rank.rank)
    outcomes = OutcomeWriter(rank.job, name=partial)
    outcomes.write(call, kind, dump, rank=rank.rank, ranks=rank.size, **facts)
    outcomes.close()
    os.replace(partial, rank.place("failed-%d" % rank.rank))


class RankOutcomeWriter(OutcomeWriter):
    """Outcomes of a child: a result is one when all ranks have one, anything else ends the job."""

    def __init__(self, rank):
        self.supervisor = rank
        self.rank = rank.rank
        self.places = rank.claims("placing")  # one rank for each directory, be it one node's or all nodes'
        self.facts = {}  # type: dict[str, object]  # of this rank's result
        self.channel = Directory(rank)
        if self.rank == 0:
            super().__init__(rank.job, append=True)

    def ready(self):
        """See that the files are in their places, and how results go to rank 0, before the first call."""
        if self.places:
            self.supervisor.note("placed")
        else:
            wait_for_notes(self.supervisor, ["placed"])
        # Not before: rank 0 has looked at what is there by now, so that what a call writes is new to it.
        self.supervisor.note("here-%d" % self.rank)
        self.channel = channel(self.supervisor)

    def write(self, call, kind, dump=None, **facts):
        """Keep a result for `ended`; a failure ends this rank, and what has no result goes to the file on rank 0."""
        if kind in ("started", "end"):
            if self.rank == 0:
                super().write(call, kind, dump, **facts)
            self.supervisor.note("at-%d" % self.rank, b"%d" % (ALL if kind == "end" else call))
        elif kind == "result":
            with open(self.own_result(call), "wb") as file:
                body = HashingWriter(file)
                facts.update(dump(body) or {})
                facts.update(size=body.size)
            self.facts = facts
        else:
            write_rank_failure(self.supervisor, call, kind, dump, **facts)
            if "traceback" in facts:
                sys.stderr.write("prominence-executor, rank %d:\n%s" % (self.rank, facts["traceback"]))
            self.supervisor.await_earlier(call)
            if kind != "failure":  # the child has that behind it
                raise Abandoned

    def own_result(self, call):
        """Return the path of this rank's result of a call."""
        return self.supervisor.place("%d.%d.part" % (call, self.rank))

    def close(self):
        """Close the outcome file, which rank 0 alone has."""
        if self.rank == 0:
            super().close()

    def ended(self, call):
        """Hand this rank's result to rank 0, which waits for all and writes them down."""
        own = self.own_result(call)
        if self.rank:
            self.channel.send(call, own, self.facts)
        else:
            ranks = []  # type: list[dict[str, object]]

            def dump(body):
                for rank in range(self.supervisor.size):
                    with open(own, "rb") if rank == 0 else self.channel.receive(call, rank) as file:
                        facts = self.facts if rank == 0 else self.channel.facts
                        shutil.copyfileobj(file, body, 1 << 20)
                        ranks.append(facts)
                return {"ranks": ranks}

            super().write(call, "ranks", dump, seconds=self.facts["seconds"], host=self.facts["host"])
        os.unlink(own)

    def finish(self):
        """End MPI where it was begun: mpirun takes a process that does not for one that has crashed."""
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
            mpi.Finalize()


# -- channels: how results go to rank 0 ------------------------------------------------------------------------------


def channel(rank):
    """Choose the common directory; for several nodes, which may have none, mpi4py if the image has it."""
    several = rank.job["mpi"]["nodes"] != 1 and rank.size > 1  # None: the service chooses
    if several:
        try:
            from mpi4py import MPI

            if MPI.COMM_WORLD.size == rank.size:
                return Messages(rank, MPI)
        except Exception:  # there is none, or it does not find its library
            pass
    wait_for_notes(rank, ["here-%d" % other for other in range(rank.size)], SHARED if several else None)
    return Directory(rank)


def wait_for_notes(rank, names, seconds=None):
    """Wait until all of these files are in the common directory; RuntimeError when the seconds are over."""
    missing = names
    for _ in looks(seconds):
        missing = [name for name in missing if not rank.has(name)]
        if not missing:
            return
    raise RuntimeError(
        "rank %s has left nothing in the directory of rank %d: the nodes do not share it, and the image has no mpi4py "
        "that fits mpirun, through which results could travel instead" % (missing[0].rpartition("-")[2], rank.rank)
    )


class Directory:
    """Each result in a file; rank 0 waits for it, for as long as the call takes."""

    def __init__(self, rank):
        self._rank = rank
        self.facts = {}  # type: dict[str, object]

    def send(self, call, path, facts):
        """Put this rank's result of a call, and the facts of it, into the common directory."""
        shutil.copyfile(path, self._rank.place("%d.%d" % (call, self._rank.rank)))
        self._rank.note("%d.%d.json" % (call, self._rank.rank), json.dumps(facts).encode("utf-8"))

    def receive(self, call, other):
        """Return another rank's result of a call as an open file, its facts in `facts`; blocks until it is there."""
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
        """Send this rank's result of a call, and the facts of it, to rank 0."""
        text = json.dumps(facts).encode("utf-8")
        self._world.Send([struct.pack(">Q", len(text)), self._mpi.BYTE], 0, 1)
        self._world.Send([text, self._mpi.BYTE], 0, 1)
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE), b""):
                self._world.Send([piece, self._mpi.BYTE], 0, 1)

    def receive(self, call, other):
        """Return another rank's result of a call as a file, its facts in `facts`; blocks until it comes."""
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
        """Return the next piece, b"" at the end; blocks until it has come."""
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
    """Yield time after time, ever less often, until the seconds are over."""
    began = time.monotonic()
    while True:
        yield
        passed = time.monotonic() - began
        if seconds is not None and passed > seconds:
            return
        time.sleep(min(max(PAUSE[0], passed / 20), PAUSE[1]))
