"""A Slurm of one node for tests: its own munge, ports and folder, so that several can run side by side.

It takes root (slurmd does), and the packages `slurm-wlm` and `munge`. Every daemon is a child of this process.
Of several nodes each is a slurmd in a UTS namespace of its own, so that programs there see another host's name. What
jobs use of memory is limited where the kernel lets this be done without systemd, by cgroups of version 1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "runuser")
_SECONDS = 20.0
_CGROUPS = Path("/sys/fs/cgroup/memory")
_COUNTED = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "srun")


def missing() -> str | None:
    """Why there can be no Slurm here."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = [name for name in _NEEDED if shutil.which(name, path=path) is None]
    return f"there is no {lacking[0]} here: apt-get install slurm-wlm munge" if lacking else None


def missing_for_nodes() -> str | None:
    """Why there can be no Slurm of several nodes here."""
    if reason := missing():
        return reason
    allowed = subprocess.run(["unshare", "--uts", "hostname", "other"], capture_output=True, text=True, check=False)
    return None if allowed.returncode == 0 else f"nodes need names of their own: {allowed.stderr.strip()}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Counted:
    """Commands in a folder that count how often they are called, and are the real ones: for the front of PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        for name in _COUNTED:
            path = folder / name
            quiet = (
                "2>/dev/null" if name == "sacct" else ""
            )  # without a database it says at each call that there is none
            path.write_text(f'#!/bin/sh\necho >>"{path}.calls"\nexec {shutil.which(name)} "$@" {quiet}\n')
            path.chmod(0o755)

    def path(self) -> str:
        """PATH with them in front."""
        return f"{self._folder}:{os.environ['PATH']}"

    def calls(self, name: str) -> int:
        """How often a command was called."""
        try:
            return (self._folder / f"{name}.calls").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


class OneNodeSlurm:
    """A running Slurm. `variables` is what its commands need to find it, `limits_memory` whether it does."""

    def __init__(self, nodes: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="one-node-slurm-"))
        self.folder.chmod(0o755)  # munge is another user
        self._host = socket.gethostname().partition(".")[0]
        # Names of this process alone: cgroups are named by them.
        self.nodes = [f"p{os.getpid()}n{number + 1}" for number in range(nodes)]
        self.limits_memory = (_CGROUPS / "memory.limit_in_bytes").exists() and os.access(_CGROUPS, os.W_OK)
        self._conf = self.folder / "slurm.conf"
        self.variables = {"SLURM_CONF": str(self._conf)}
        self._path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # without what is put in front of it later
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons; returns when the node is idle."""
        self._start_munge()
        self._conf.write_text(self._configuration())
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n")
        for name in ("state", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        self.start_controller()
        for node in self.nodes:
            daemon = ["slurmd", "-D", "-N", node, "-f", str(self._conf)]
            named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node]
            self._start(f"slurmd-{node}", daemon if len(self.nodes) == 1 else [*named, *daemon])
        idle = ["idle"] * len(self.nodes)
        self._await(lambda: self.asked("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == idle)

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(self._conf)])

    def stop_controller(self) -> None:
        """End slurmctld as a site does that updates it."""
        self._end("slurmctld")

    def stop(self) -> None:
        """End the jobs and all daemons."""
        self.asked("scancel", "--user=root")
        deadline = time.monotonic() + _SECONDS
        while self.asked("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.1)
        for name in reversed(list(self._daemons)):
            self._end(name)
        self._remove_cgroups()
        shutil.rmtree(self.folder, ignore_errors=True)

    def asked(self, *command: str) -> str:
        """Return what a command prints; "" when it fails."""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=False,
                env={**os.environ, "PATH": self._path, **self.variables},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()

    def _remove_cgroups(self) -> None:
        """Remove what is left of them, as soon as the last programs of jobs have ended."""
        deadline, left = time.monotonic() + _SECONDS, [_CGROUPS / f"slurm_{node}" for node in self.nodes]
        while (left := [top for top in left if top.exists()]) and time.monotonic() < deadline:
            for top in left:
                for group, _, _ in os.walk(top, topdown=False):
                    with suppress(OSError):
                        os.rmdir(group)
            time.sleep(0.05)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir()
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for path in (folder, key):
            shutil.chown(path, "munge", "munge")
        names = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / name}" for option, name in names.items()]
        self._start("munged", ["runuser", "-u", "munge", "--", "munged", "--foreground", "--force", *options])
        self._await((folder / "socket").exists)

    def _start(self, name: str, command: list[str]) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={"PATH": self._path, "HOME": "/root", **self.variables},
            )  # fmt: skip

    def _end(self, name: str) -> None:
        process = self._daemons.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await(self, condition: object) -> None:
        assert callable(condition)
        deadline = time.monotonic() + _SECONDS * 2
        while not condition():
            if time.monotonic() > deadline:
                said = "\n".join(path.read_text()[-1000:] for path in self.folder.glob("*.out"))
                self.stop()
                raise RuntimeError(f"Slurm did not start:\n{said}")
            time.sleep(0.05)

    def _configuration(self) -> str:
        folder, host = self.folder, self._host
        settings = {
            "ClusterName": "tests", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmUser": "root", "SlurmdUser": "root",
            "SlurmctldPort": _free_port(), "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/munge/socket", "CredType": "cred/munge",
            "StateSaveLocation": f"{folder}/state", "SlurmdSpoolDir": f"{folder}/spool-%n",
            "SlurmctldPidFile": f"{folder}/slurmctld.pid", "SlurmdPidFile": f"{folder}/slurmd-%n.pid",
            "SlurmdParameters": "config_overrides", "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/cgroup" if self.limits_memory else "task/none", "MaxJobCount": 20_000,
            "MpiDefault": "none", "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none", "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory", "SchedulerType": "sched/builtin",
            "SchedulerParameters": "sched_interval=1,sched_min_interval=0,batch_sched_delay=0",
            "ReturnToService": 2, "MinJobAge": 60, "DefMemPerCPU": 500, "KillWait": 2, "MailProg": "/bin/true",
        }  # fmt: skip
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [
            f"NodeName={node} NodeHostname={host if len(self.nodes) == 1 else node} NodeAddr=127.0.0.1 "
            f"Port={_free_port()} CPUs={8 // len(self.nodes)} RealMemory={64_000 // (number + 1)} State=UNKNOWN"
            for number, node in enumerate(self.nodes)
        ]
        lines += [
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "PartitionName=short Nodes=ALL MaxTime=30 State=UP",
            "PartitionName=closed Nodes=ALL MaxTime=INFINITE State=DOWN",  # takes jobs, and starts none
        ]
        return "\n".join(lines) + "\n"
