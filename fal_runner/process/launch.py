"""The step between the shim and a runner's program. It ties the process to the shim, then becomes the program.

The shim runs it by path with `python -I -S`, because code between fork and exec would not be safe in a process with
gRPC's threads. It costs about 10 ms, 5 more if the program gets its own view of the file system (see mounts), and some
15 more if it gets a sandbox (see namespaces). In a sandbox the program is a child of this process, which stays outside.
This process has privileges that the program must not have. So it does not get the program's variables, which are the
app's, in its own environment, but through a descriptor. An earlier version's shim still passes them in the environment.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios

sys.path.insert(0, __file__.rpartition("/fal_runner/")[0])

from fal_runner.isolation import confinement, mounts
from fal_runner.isolation.sandbox import (
    APP,
    DATA,
    NO_VIEW,
    PARTS,
    PROCESSES_VARIABLE,
    SANDBOX_DIRECTORY_VARIABLE,
    SANDBOX_VARIABLE,
    VARIABLES_VARIABLE,
    WORKER,
    has_sandbox,
    read,
)
from fal_runner.process import groups

TYPE_CHECKING = False  # as in typing, whose import would cost more than this whole file
if TYPE_CHECKING:
    from collections.abc import MutableMapping

_WORKER_VARIABLE = "FAL_WORKER_PID"


def fail(message: str, code: int) -> None:
    """Report an error on stderr like a shell, and exit."""
    os.write(2, f"fal: {message}\n".encode())
    os._exit(code)


def main() -> None:
    """Become the program. The arguments are the shim's pid, `tty` or `pipes`, the directory, and the command."""
    parent, mode, directory, *command = sys.argv[1:]
    ours, variables = os.environ, take_variables()
    is_worker = mounts.JOIN_VARIABLE not in ours
    app = variables.get(mounts.APP_VARIABLE)
    tie(int(parent))
    try:
        groups.enter(ours)
    except OSError as error:
        fail(f"cannot enter the control group of its runner: {error.strerror}", 126)
    sandbox = ours.pop(SANDBOX_VARIABLE, "")
    process = ours.pop(mounts.JOIN_VARIABLE, "")
    if has_sandbox(sandbox):
        enter_sandbox(sandbox, process, variables)
    elif sandbox != NO_VIEW or process:
        enter_view(process, [directory, *command], variables)
    if directory == app:
        directory = variables[mounts.APP_VARIABLE]  # the same directory, under its name in the view
    if is_worker and not sandbox:
        # `fal runners profile` reads the worker's memory from another process of the shim, which Yama only allows by
        # name.
        confinement.allow_tracer(int(parent))
    if mode == "tty":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # the program would inherit the signals that Python or the shim ignores
    try:
        os.chdir(directory)
    except OSError as error:
        fail(f"cannot enter the directory {directory}: {error.strerror}", 126)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a signal that arrived since the fork is delivered here
    try:
        os.execvpe(command[0], command, dict(variables))  # noqa: S606
    except FileNotFoundError:
        fail(f"{command[0]}: command not found", 127)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", 126)


def take_variables() -> MutableMapping[str, str]:
    """Read the program's variables."""
    number = os.environ.pop(VARIABLES_VARIABLE, "")
    if not number:
        return os.environ
    with open(int(number), "rb") as file:  # noqa: PTH123 - it is a descriptor
        entries = file.read().split(b"\0")[:-1]
    pairs = (entry.partition(b"=") for entry in entries)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def tie(parent: int) -> None:
    """Make this process end with the shim."""
    confinement.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)  # the shim died before the previous line


def enter_view(process: str, paths: list[str], variables: MutableMapping[str, str]) -> None:
    """Create a view of the machine, or share another process's. Report a failure."""
    variables.pop(mounts.JOIN_VARIABLE, None)  # the app must not set it
    if process:
        variables[mounts.JOIN_VARIABLE] = process
    problem = mounts.enter(variables, [path for path in paths if path.startswith("/")])
    if problem and not process:
        message = f"fal: no /data and /app of this runner's own, see FAL_DATA_DIR and FAL_APP_DIR: {problem}\n"
        os.write(2, message.encode())


def enter_sandbox(sandbox: str, process: str, variables: MutableMapping[str, str]) -> None:
    """Create a sandbox, or join that of another process. Without it the program does not run."""
    from fal_runner.isolation import namespaces  # an import that a view does not need

    processes = os.environ.pop(PROCESSES_VARIABLE, "")
    directory = os.environ.pop(SANDBOX_DIRECTORY_VARIABLE, "")  # a build has none
    try:
        if process:
            namespaces.join(int(process))
            variables[_WORKER_VARIABLE] = str(WORKER)
        else:
            parts = [(how, f"{directory}/{name}", path) for name, (how, path) in PARTS.items() if directory]
            namespaces.enter([*parts, *read(sandbox)])
        namespaces.confine(worker=not process, processes=int(processes) if processes else None)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"this program cannot be isolated, so it does not run: {error.strerror}{where}", 126)
    if directory or process:
        variables[mounts.DATA_VARIABLE], variables[mounts.APP_VARIABLE] = DATA, PARTS[APP][1]


if __name__ == "__main__":
    main()
