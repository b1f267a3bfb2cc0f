"""The step between the shim and a program of the runner: ties the process to the shim, then becomes the program.

The shim runs it by path with `python -I -S`. Code between fork and exec would not be safe in a process with gRPC's
threads. It costs about 10 ms, and 5 more if the program gets its own view of the file system (see mounts).
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
from fal_runner.process import groups

_PR_SET_PDEATHSIG = 1
_PR_SET_PTRACER = 0x59616D61


def fail(message: str, code: int) -> None:
    """Say why on stderr, as a shell does, and end."""
    os.write(2, f"fal: {message}\n".encode())
    os._exit(code)


def main() -> None:
    """Become the program; the arguments are the shim's pid, `tty` or `pipes`, the directory, and the command."""
    parent, mode, directory, *command = sys.argv[1:]
    is_worker = mounts.JOIN_VARIABLE not in os.environ
    app = os.environ.get(mounts.APP_VARIABLE)
    try:
        groups.enter(os.environ)
    except OSError as error:
        fail(f"cannot enter the control group of its runner: {error.strerror}", 126)
    needed = [argument for argument in (directory, *command) if argument.startswith("/")]
    refusal = mounts.enter(os.environ, needed)
    if refusal and is_worker:
        message = f"fal: no /data and /app of this runner's own, see FAL_DATA_DIR and FAL_APP_DIR: {refusal}\n"
        os.write(2, message.encode())
    if directory == app:
        directory = os.environ[mounts.APP_VARIABLE]  # the same directory, under its name in the view
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if is_worker:
        # `fal runners profile` reads the worker's memory from another process of the shim, which Yama allows by name.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, int(parent), 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)  # the shim died before the line above
    if mode == "tty":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # the program would inherit what Python or the shim ignores
    try:
        os.chdir(directory)
    except OSError as error:
        fail(f"cannot enter the directory {directory}: {error.strerror}", 126)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a signal that came since the fork arrives here
    try:
        os.execvp(command[0], command)  # noqa: S606
    except FileNotFoundError:
        fail(f"{command[0]}: command not found", 127)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", 126)


if __name__ == "__main__":
    main()
