"""Gives a runner its own /data and /app if the kernel allows.

launch.py uses it between fork and exec, so it has one thread, no state, and imports the standard library alone.
"""

from __future__ import annotations

import os

from fal_runner.isolation.confinement import call, libc

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

DATA_VARIABLE = "FAL_DATA_DIR"
APP_VARIABLE = "FAL_APP_DIR"
JOIN_VARIABLE = "FAL_JOIN_PROCESS"
"""Names the process whose view a command shares; removed from the command's environment."""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_OLD_ROOT = ".fal-old-root"
_NAMES = {"data": DATA_VARIABLE, "app": APP_VARIABLE}


def enter(environ: MutableMapping[str, str], needed: Sequence[str]) -> str:
    """Give this process the view that its environment asks for. The current directory is then /.

    FAL_DATA_DIR and FAL_APP_DIR name the directories; afterwards they are /data and /app. FAL_JOIN_PROCESS names a
    process whose view to share, if it has its own.

    Args:
        environ: the variables of this process; FAL_JOIN_PROCESS is removed.
        needed: absolute paths that must stay visible.

    Returns:
        Why there is no such view, for people; empty if there is one, or none was asked for.
    """
    process = environ.pop(JOIN_VARIABLE, "")
    wanted = {name: os.path.realpath(environ[variable]) for name, variable in _NAMES.items() if environ.get(variable)}
    if not wanted:
        return ""
    try:
        if process:
            if not join(int(process)):
                return ""
        else:
            paths = [*wanted.values(), *needed, *map(os.path.realpath, needed)]
            hidden = [path for path in paths for name in wanted if f"{path}/".startswith(f"/{name}/")]
            if hidden:
                return f"{hidden[0]} is needed, and would be hidden by a /data or /app of the runner's own"
            _make_beside(wanted)
    except OSError as error:
        return "" if process else f"the kernel refuses: {error.strerror}"
    for name in wanted:
        environ[_NAMES[name]] = f"/{name}"
    return ""


def _make_beside(wanted: Mapping[str, str]) -> None:
    """Have a child create the view, then join it. A failure leaves this process unchanged.

    Raises:
        OSError: the kernel does not allow it.
    """
    report, reported = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(release)
            make(wanted)
            os.write(reported, b"\0")
            os.read(hold, 1)
        except OSError as error:
            os.write(reported, f"{error.errno or 0}".encode())
        finally:
            os._exit(0)
    try:
        os.close(reported)
        answer = os.read(report, 16)
        if answer != b"\0":
            number = int(answer or b"0")
            raise OSError(number, os.strerror(number))
        join(child)
    finally:
        for descriptor in (report, hold, release):
            os.close(descriptor)
        os.waitpid(child, 0)


def make(wanted: Mapping[str, str]) -> None:
    """Create a view: the machine's /, with these directories at the top.

    A tmpfs becomes the root, so that the machine's own root does not change. A process that may not mount gets the
    right from a user namespace, in which the user keeps its id.

    Args:
        wanted: name at the top -> the directory to mount there.

    Raises:
        OSError: the kernel does not allow it; this process's view is undefined then.
    """
    user, group = os.getuid(), os.getgid()
    try:
        call(libc.unshare, _CLONE_NEWNS)
    except OSError:
        call(libc.unshare, _CLONE_NEWUSER | _CLONE_NEWNS)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib costs more than all of this
                file.write(text)
    call(libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    # Any existing directory can hold the new root; pivot_root uncovers it again.
    root = b"/proc"
    call(libc.mount, b"fal", root, b"tmpfs", 0, b"mode=755,size=1m")
    os.mkdir(f"/proc/{_OLD_ROOT}")  # noqa: PTH102
    call(libc.pivot_root, root, f"/proc/{_OLD_ROOT}".encode())
    os.chdir("/")
    old = f"/{_OLD_ROOT}"
    for entry in os.scandir(old):
        if entry.name in wanted:
            continue
        path = f"/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)  # noqa: PTH115, PTH211
        elif entry.is_dir():
            os.mkdir(path)  # noqa: PTH102
            _bind(entry.path, path)
        elif entry.is_file():
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC))
            _bind(entry.path, path)
    for name, directory in wanted.items():
        os.mkdir(f"/{name}")  # noqa: PTH102
        _bind(f"{old}{directory}", f"/{name}")
    call(libc.umount2, old.encode(), _MNT_DETACH)
    os.rmdir(old)  # noqa: PTH106


def join(process: int) -> bool:
    """Join the view of another process of the same user. Return False if it has no own view.

    Raises:
        OSError: the process is gone, or the kernel does not allow it.
    """
    joined = False
    for kind, flag in (("user", _CLONE_NEWUSER), ("mnt", _CLONE_NEWNS)):
        theirs = f"/proc/{process}/ns/{kind}"
        if os.readlink(theirs) == os.readlink(f"/proc/self/ns/{kind}"):  # noqa: PTH115
            continue
        descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call(libc.setns, descriptor, flag)
        finally:
            os.close(descriptor)
        joined = True
    return joined


def _bind(source: str, target: str) -> None:
    call(libc.mount, os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None)
