"""A Slurm of one node for tests: its own munge, ports and folder, so that several can run side by side.

It takes root (slurmd does), and the packages `slurm-wlm` and `munge`. Every daemon is a child of this process.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "runuser")
_SECONDS = 20.0


def missing() -> str | None:
    """Why there can be no Slurm here."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = [name for name in _NEEDED if shutil.which(name, path=path) is None]
    return f"there is no {lacking[0]} here: apt-get install slurm-wlm munge" if lacking else None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class OneNodeSlurm:
    """A running Slurm. `variables` is what its commands need to find it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="one-node-slurm-"))
        self.folder.chmod(0o755)  # munge is another user
        self._host = socket.gethostname().partition(".")[0]
        self._conf = self.folder / "slurm.conf"
        self.variables = {"SLURM_CONF": str(self._conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons; returns when the node is idle."""
        self._start_munge()
        self._conf.write_text(self._configuration())
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.start_controller()
        self._start("slurmd", ["slurmd", "-D", "-f", str(self._conf)])
        self._await(lambda: self.asked("sinfo", "-h", "-o", "%T") == "idle")

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
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def asked(self, *command: str) -> str:
        """Return what a command prints; "" when it fails."""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, **self.variables}
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()

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
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={"PATH": path, "HOME": "/root", **self.variables},
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
            "SlurmctldPort": _free_port(), "SlurmdPort": _free_port(), "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/munge/socket", "CredType": "cred/munge",
            "StateSaveLocation": f"{folder}/state", "SlurmdSpoolDir": f"{folder}/spool",
            "SlurmctldPidFile": f"{folder}/slurmctld.pid", "SlurmdPidFile": f"{folder}/slurmd.pid",
            "SlurmdParameters": "config_overrides", "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
            "MpiDefault": "none", "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none", "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory", "SchedulerType": "sched/builtin",
            "SchedulerParameters": "sched_interval=1,sched_min_interval=0,batch_sched_delay=0",
            "ReturnToService": 2, "MinJobAge": 60, "DefMemPerCPU": 500, "KillWait": 2, "MailProg": "/bin/true",
        }  # fmt: skip
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 State=UNKNOWN",
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "PartitionName=short Nodes=ALL MaxTime=30 State=UP",
        ]
        return "\n".join(lines) + "\n"
