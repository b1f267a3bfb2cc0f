"""The step between the shim and a program of the runner: it ties the process to the shim, then becomes the program.

Started by path with `python -I -S`. It exists because code between fork and exec is not safe in a process with gRPC's
threads, and costs about 10 ms, and 5 more where the program gets a file system view of its own (see mounts).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import termios

sys.path.insert(0, __file__.rpartition("/fal_runner/")[0])

from fal_runner.isolation import mounts

_PR_SET_PDEATHSIG = 1


def fail(message: str, code: int) -> None:
    """Say why on stderr, as a shell does, and end."""
    os.write(2, f"fal: {message}\n".encode())
    os._exit(code)


def main() -> None:
    """Arguments: the shim's pid, `tty` or `pipes`, the directory, and the command."""
    parent, mode, directory, *command = sys.argv[1:]
    worker = mounts.JOIN_VARIABLE not in os.environ
    app = os.environ.get(mounts.APP_VARIABLE)
    lacking = mounts.enter(os.environ, [word for word in (directory, *command) if word.startswith("/")])
    if lacking and worker:
        os.write(
            2, f"fal: no /data and /app of this runner's own, see FAL_DATA_DIR and FAL_APP_DIR: {lacking}\n".encode()
        )
    if directory == app:
        directory = os.environ[mounts.APP_VARIABLE]  # the same, under its name in the view
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)  # the shim died before the line above
    if mode == "tty":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # what Python, the shim or who started it ignores would be inherited
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.chdir(directory)
    except OSError as error:
        fail(f"cannot enter the directory {directory}: {error.strerror}", 126)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except FileNotFoundError:
        fail(f"{command[0]}: command not found", 127)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", 126)


if __name__ == "__main__":
    main()
