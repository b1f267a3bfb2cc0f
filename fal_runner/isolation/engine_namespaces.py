"""Runs a container engine's build with its own processes. Its /dev lacks the machine's disks.

`python -I -S engine_namespaces.py COMMAND ...`, as root, or as an ordinary user by `podman unshare`. An engine that
builds in a chroot shows the steps of a Dockerfile its own /proc and /dev, so a step could signal what its user may
signal, and one of root's open the machine's disks. The engine itself still needs the file system and its rights.
"""

# ruff: noqa: PTH102, PTH110, PTH112, PTH208, PTH211
# (importing pathlib would take longer than all of this)

from __future__ import annotations

import os
import signal
import sys

sys.path.insert(0, __file__.rpartition("/fal_runner/")[0])

from fal_runner.isolation import confinement
from fal_runner.isolation.confinement import call, libc

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_MOVE = 2, 4, 8, 0x1000, 0x2000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
_PLACE = "/proc"
_SHARED, _LOCKS = "/dev/shm", "libpod"  # noqa: S108 - where podman has its locks
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


KEPT_VARIABLE = "FAL_ENGINE_FILES"
"""Names the directory of /dev/shm that holds the build's secrets; those of other builds are not seen."""


def main() -> None:
    """Run the command, and end as it ends. Everything that it started ends, too."""
    parent, kept = os.getppid(), os.environ.pop(KEPT_VARIABLE, "")
    confinement.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    call(libc.unshare, _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        confinement.die_with_parent()
        _furnish(kept)
        program = os.fork()  # the kernel ignores signals to the first process, and that one reaps orphans
        if program == 0:
            os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
        _wait_for(program)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the engine has it too, as it is in the same process group
    _, status = os.waitpid(child, 0)
    confinement.end_as(status)


def _wait_for(program: int) -> None:
    """Reap everything, and end as the program ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        process, status = os.waitpid(-1, 0)
        if process == program:
            os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _furnish(kept: str) -> None:
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    # Any directory can hold the new /dev until it is moved, and this one always exists.
    _mount("fal", _PLACE, "tmpfs", _MS_NOSUID | _MS_NOEXEC, "mode=755,size=64k")
    for name in _DEVICES:
        if os.path.exists(f"/dev/{name}"):
            _show(f"/dev/{name}", f"{_PLACE}/{name}")
    for name, link in _LINKS.items():
        os.symlink(link, f"{_PLACE}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{_PLACE}/{name}")
    _mount("devpts", f"{_PLACE}/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    _mount("shm", f"{_PLACE}/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    for path in [kept, *(f"{_SHARED}/{name}" for name in os.listdir(_SHARED) if name.startswith(_LOCKS))]:
        if path.startswith(f"{_SHARED}/"):
            _show(path, f"{_PLACE}/shm/{path.removeprefix(f'{_SHARED}/')}")
    _mount(_PLACE, "/dev", None, _MS_MOVE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _show(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.mkdir(target, 0o700)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _mount(path, target, None, _MS_BIND)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    call(libc.mount, *encoded, flags, None if options is None else options.encode())


if __name__ == "__main__":
    main()
