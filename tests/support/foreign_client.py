"""A client's program without what POSIX alone has, as on Windows: run with URL, token, and a folder for its store.

It takes away modules and names before the package is imported, imports all of the client, and sends calls to a
service that runs elsewhere: of jobs, of warm workers, with a journal, and of a sweep. `os.name` stays, since the
standard library looks at it when it is used.
"""

from __future__ import annotations

import importlib
import multiprocessing.connection
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = """
    crypt curses fcntl grp nis ossaudiodev posix_ipc pty pwd readline resource spwd syslog termios tty
"""
OF_OS = """
    EX_OK EX_SOFTWARE EX_TEMPFAIL EX_UNAVAILABLE EX_USAGE WEXITSTATUS WIFEXITED WIFSIGNALED WTERMSIG eventfd fchmod
    fdatasync get_blocking getxattr listxattr pipe2 set_blocking setxattr uname
    O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown chroot confstr copy_file_range ctermid fchdir
    fchown fork forkpty fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority
    getresuid getsid getuid initgroups killpg lchown lockf major makedev memfd_create minor mkfifo mknod nice
    openpty pathconf pidfd_open posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev
    register_at_fork sched_getaffinity sched_setaffinity sendfile setgid setpgid setpgrp setpriority setsid setuid
    statvfs sync sysconf tcgetpgrp ttyname uname wait3 wait4 waitid
"""
OF_SIGNAL = """
    ITIMER_REAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1
    SIGUSR2 SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pthread_kill
    pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
"""
OF_OTHERS = {
    "select": "epoll kqueue poll",
    "socket": "AF_UNIX CMSG_LEN SCM_RIGHTS sendmsg",
    "time": "pthread_getcpuclockid tzset",
}
# What a client does not need: the service, what runs in the job, and joblib, which looks for itself what this is.
OTHERS = {"examples", "integrations", "local", "remote", "service"}

assert multiprocessing.connection
assert subprocess
assert tempfile.gettempdir()  # of the standard library, and on Windows they find by other ways what goes now


def take_away() -> None:
    for name in MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it is an ImportError
    taken = {"os": OF_OS, "signal": OF_SIGNAL, **OF_OTHERS}
    for module, names in taken.items():
        for name in names.split():
            vars(importlib.import_module(module)).pop(name, None)


def double(x: int) -> int:
    return 2 * x


def main(url: str, token: str, folder: Path) -> None:
    take_away()
    import prominence_executor
    from prominence_executor import ProminenceExecutor, sweep

    for name in prominence_executor.__all__:
        assert getattr(prominence_executor, name)
    for module in pkgutil.walk_packages(prominence_executor.__path__, "prominence_executor."):
        if module.name.split(".")[1] not in OTHERS and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    interval = (0.05, 0.5)
    with ProminenceExecutor(url, token, poll_interval=interval, journal=folder / "journal") as executor:
        print(list(executor.map(double, range(3), chunksize=3)), executor.submit(len, bytes(2_000_000)).result(60))
        with sweep(double, {"x": [5, 6]}, executor=executor, store=folder / "a.sweep", progress=False) as scan:
            print([point.result() for point in sorted(scan, key=lambda point: point.params["x"])])
    with ProminenceExecutor(url, token, poll_interval=interval, workers="warm", max_workers=1) as executor:
        print(executor.submit(double, 21).result(60))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
