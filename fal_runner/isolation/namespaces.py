"""Puts a program into a sandbox. The sandbox has a root with only the entries of a list, and its own processes.

    launch.py          the shim's child: forwards signals, and ends as the program ends
    ├── first process  of the sandbox: creates it, then reaps orphans
    └── the program    in the sandbox, without capabilities

The namespaces live as long as the first process, and it lives as long as its parent: when the shim or launch.py dies,
the kernel ends everything in the sandbox. launch.py uses this between fork and exec, so it has one thread and imports
the standard library alone.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH112, PTH113, PTH114, PTH115, PTH118, PTH120, PTH123, PTH211, S108
# (importing pathlib would take longer than all of this)

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time

from fal_runner.isolation import confinement
from fal_runner.isolation.confinement import call, libc
from fal_runner.isolation.sandbox import DEVICE, LINK, READ, SYSTEM, WORKER, WRITE

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_runner.isolation.sandbox import Place

_CLONE = {"user": 0x10000000, "mnt": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "pid": 0x20000000}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_MOST_SECONDS, _PAUSE_SECONDS = 30.0, 0.005
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_OLD_ROOT = "/.fal-old-root"
_ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "nvidia",
    "OpenCL",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "python3",
    "resolv.conf",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vulkan",
)
_SYS = ("/sys/bus", "/sys/class", "/sys/dev", "/sys/devices", "/sys/module")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_PROC_READ_ONLY = ("sys", "irq", "bus", "driver", "fs", "sysrq-trigger", "acpi", "scsi", "asound")
_PROC_HIDDEN = ("kcore", "keys", "key-users", "latency_stats", "sched_debug", "timer_list", "timer_stats")


def enter(places: Sequence[Place]) -> None:
    """Create a sandbox and return inside it, in the program's process. The caller's process stays outside.

    Call `confine` next.

    Raises:
        OSError: the kernel does not allow it.
    """
    parent = os.getppid()
    own_users = _unshare()
    held, hold = os.pipe()
    report, reported = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(hold)
        try:
            _live_with(held)
            if own_users:
                _write("/proc/sys/user/max_user_namespaces", "0")
            _furnish(places)
            os.write(reported, b"\0")
        except OSError as error:
            os.write(reported, f"{error.errno or 0} {error.filename or ''}".encode())
            os._exit(1)
        _wait_for_orphans()
    os.close(reported)
    answer = os.read(report, 4096)
    if not answer:
        raise OSError(errno.ECHILD, "the first process of the sandbox ended before the sandbox was ready")
    if answer != b"\0":
        number, _, path = answer.decode().partition(" ")
        raise OSError(int(number), os.strerror(int(number)), path or None)
    os.close(report)
    _step_inside(parent, held, hold, os.kill, first)


def join(process: int) -> None:
    """Join the sandbox of another launch.py's worker. Return inside it, in the program's process.

    Raises:
        OSError: the worker is gone, or the kernel does not allow it.
    """
    worker = _worker_of(process)
    theirs = {name: f"/proc/{worker}/ns/{name}" for name in _CLONE}
    parent = os.getppid()
    confinement.set_dumpable(False)  # programs in the sandbox must not read this process
    opened = {
        name: os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for name, path in theirs.items()
        if not _same(path, f"/proc/self/ns/{name}")
    }
    for name, descriptor in opened.items():  # the user namespace first: it gives the right to join the others
        call(libc.setns, descriptor, _CLONE[name])
        os.close(descriptor)
    os.chdir("/")
    held, hold = os.pipe()
    _step_inside(parent, held, hold, _signal_group)


def _worker_of(process: int) -> int:
    """Find the worker of a launch.py, waiting while that creates the sandbox.

    Raises:
        OSError: it is gone.
    """
    end = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < end:
        with open(f"/proc/{process}/task/{process}/children") as file:
            children = file.read().split()
        for child in children:
            with contextlib.suppress(OSError), open(f"/proc/{child}/status") as file:
                if f"\t{WORKER}\n" in next((line for line in file if line.startswith("NSpid:")), ""):
                    return int(child)
        time.sleep(_PAUSE_SECONDS)
    raise OSError(errno.ESRCH, "the runner's sandbox is not ready")


def confine(*, worker: bool, processes: int | None = None) -> None:
    """Drop the rights by which the program could leave its sandbox.

    Args:
        worker: whether it is the runner's worker. Commands get no Landlock, which would keep `fal runners profile` from
            reading the worker.
        processes: the most processes and threads of the sandbox; None for the usual number.

    Raises:
        OSError: the kernel refuses.
    """
    confinement.bound_resources(processes)
    confinement.leave_session_keyring()
    confinement.allow_tracer(-1)
    confinement.give_up_privileges()
    if worker:
        confinement.leave_abstract_sockets()


def _unshare() -> bool:
    """Leave the machine's namespaces; return whether its user namespace is among them.

    Root leaves it, too, so that no program inside can make another one. If root may not, no program inside may either.
    """
    user, group = os.geteuid(), os.getegid()
    every = sum(_CLONE.values())
    try:
        call(libc.unshare, every)
    except OSError:
        if user != 0:
            raise
        call(libc.unshare, every & ~_CLONE["user"])
        own_users = False
    else:
        own_users = True
        try:
            maps = ("allow", "0 0 4294967295", "0 0 4294967295") if user == 0 else ("deny", *_alone(user, group))
            _write_maps(*maps)
        except PermissionError:
            _write_maps("deny", *_alone(user, group))
    # After a change of rights the kernel hides a process from its own user, but commands must read its namespaces.
    confinement.set_dumpable(True)
    return own_users


def _alone(user: int, group: int) -> tuple[str, str]:
    return f"{user} {user} 1", f"{group} {group} 1"


def _write_maps(groups: str, users: str, group_ids: str) -> None:
    for name, text in (("setgroups", groups), ("uid_map", users), ("gid_map", group_ids)):
        _write(f"/proc/self/{name}", text)


def _furnish(places: Sequence[Place]) -> None:
    """Fill the sandbox's root, in the first process of the sandbox."""
    call(libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    # Any existing directory can hold the new root; pivot_root uncovers it again.
    _mount("fal", "/proc", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=4m")
    os.mkdir(f"/proc{_OLD_ROOT}", 0o700)
    call(libc.pivot_root, b"/proc", f"/proc{_OLD_ROOT}".encode())
    os.chdir("/")
    _copy_system()
    for mode, source, target in places:
        if mode == DEVICE:
            continue
        if mode != LINK:
            _bind(f"{_OLD_ROOT}{source}", target, _attributes(mode))
        elif not os.path.lexists(target):
            _make_directory(os.path.dirname(target))
            os.symlink(source, target)
    _make_devices([source for mode, source, _ in places if mode == DEVICE])
    _make_proc()
    for path in _SYS:
        if os.path.isdir(f"{_OLD_ROOT}{path}"):
            _bind(f"{_OLD_ROOT}{path}", path, _attributes(READ) | _ATTR_NOEXEC)
    call(libc.umount2, _OLD_ROOT.encode(), _MNT_DETACH)
    os.rmdir(_OLD_ROOT)
    for path in ("/run", "/var", "/root", "/home"):
        _make_directory(path)
    if not os.path.lexists("/var/tmp"):
        os.symlink("../tmp", "/var/tmp")
    _set_attributes("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)


def _copy_system() -> None:
    for name in SYSTEM:
        _copy(f"/{name}")
    for name in _ETC:
        _copy(f"/etc/{name}")


def _copy(path: str) -> None:
    """Mount a path of the machine read-only. Copy a link, and mount its target."""
    old = f"{_OLD_ROOT}{path}"
    if not os.path.lexists(old):
        return
    if not os.path.islink(old):
        _bind(old, path, _attributes(READ))
        return
    link = os.readlink(old)
    _make_directory(os.path.dirname(path))
    os.symlink(link, path)
    target = os.path.normpath(os.path.join(os.path.dirname(path), link))
    kept = tuple(f"/{name}/" for name in SYSTEM)
    if target.startswith("/etc/") or f"{target}/".startswith(kept) or os.path.lexists(target):
        return
    if os.path.isfile(f"{_OLD_ROOT}{target}"):
        _bind(f"{_OLD_ROOT}{target}", target, _attributes(READ))


def _attributes(mode: str) -> int:
    return _ATTR_NOSUID | _ATTR_NODEV | (0 if mode == WRITE else _ATTR_RDONLY)


def _make_devices(own: Sequence[str]) -> None:
    """Create a small /dev with the runner's own devices. It also has devices without content, such as null."""
    _make_directory("/dev")
    _mount("fal", "/dev", "tmpfs", _MS_NOSUID | _MS_NOEXEC, "mode=755,size=64k")
    usual = [f"/dev/{name}" for name in _DEVICES if os.path.lexists(f"{_OLD_ROOT}/dev/{name}")]
    for path in [*usual, *own]:
        _bind(f"{_OLD_ROOT}{path}", path, _ATTR_NOSUID | _ATTR_NOEXEC)
    for name, link in _LINKS.items():
        os.symlink(link, f"/dev/{name}")
    _make_directory("/dev/pts")
    _mount("devpts", "/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    _make_directory("/dev/shm")
    _mount("shm", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    _set_attributes("/dev", _ATTR_RDONLY, recursive=False)


def _make_proc() -> None:
    """Mount /proc with the sandbox's processes. The machine's part is hidden or read-only."""
    _make_directory("/proc")
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    for name in _PROC_READ_ONLY:
        path = f"/proc/{name}"
        if os.path.exists(path):
            call(libc.mount, path.encode(), path.encode(), None, _MS_BIND | _MS_REC, None)
            _set_attributes(path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC)
    for name in _PROC_HIDDEN:
        path = f"/proc/{name}"
        if os.path.exists(path):
            call(libc.mount, b"/dev/null", path.encode(), None, _MS_BIND, None)


def _bind(source: str, target: str, attributes: int) -> None:
    """Mount a file or directory of the machine in the sandbox.

    Raises:
        OSError: it does not exist, or the target's path contains a link.
    """
    if os.path.isdir(source):
        _make_directory(target)
    else:
        _make_directory(os.path.dirname(target))
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        call(libc.mount, os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None)
        _set_attributes(target, attributes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def _make_directory(path: str) -> None:
    """Create a directory with its parents, following no link.

    Apps write to /data and /tmp, and a link there could lead out of the sandbox.

    Raises:
        OSError: a part of the path is not a directory.
    """
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, path.split("/")):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=here)
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(here)


def _mount(source: str, target: str, kind: str, flags: int, options: str | None) -> None:
    data = None if options is None else options.encode()
    try:
        call(libc.mount, source.encode(), target.encode(), kind.encode(), flags, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def _set_attributes(path: str, attributes: int, *, recursive: bool = True) -> None:
    """Set attributes of a mount and, by default, those below (Linux 5.12)."""
    wanted = attributes.to_bytes(8, "little") + bytes(24)
    flags = _AT_RECURSIVE if recursive else 0
    call(libc.syscall, _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, wanted, len(wanted))


def _same(one: str, other: str) -> bool:
    return os.readlink(one) == os.readlink(other)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _live_with(held: int) -> None:
    """End when the process outside ends, even if that has already happened."""
    confinement.die_with_parent()
    waiting = select.poll()
    waiting.register(held, select.POLLHUP)
    if waiting.poll(0):
        os._exit(1)


def _wait_for_orphans() -> None:
    """Serve as the sandbox's init process: reap orphans."""
    confinement.set_dumpable(False)
    confinement.give_up_privileges()
    confinement.close_descriptors()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        signal.sigwait({signal.SIGCHLD})


def _step_inside(
    parent: int, held: int, hold: int, pass_on: Callable[[int, int], None], first: int | None = None
) -> None:
    """Fork the program's process and return in it. The parent ends as it ends.

    Args:
        first: the first process of the sandbox, if it must end with the program.
    """
    program = os.fork()
    if program == 0:
        os.close(hold)
        os.setsid()
        _live_with(held)
        os.close(held)
        return
    confinement.die_with_parent()  # again, because a change of rights clears it
    if os.getppid() != parent:
        os._exit(1)
    confinement.close_descriptors(hold)  # its end tells the children that this process has ended
    _stand_for(program, pass_on, first)


def _stand_for(program: int, pass_on: Callable[[int, int], None], first: int | None) -> None:
    """Forward signals to the program. End as it ends, after its sandbox is empty."""

    def passing(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            pass_on(program, number)

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, passing)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    while True:
        process, status = os.waitpid(-1, 0)
        if process == first:
            first = None
        if process == program:
            if first is not None:  # it ends only after all other processes of the sandbox
                os.kill(first, signal.SIGKILL)
                os.waitpid(first, 0)
            confinement.end_as(status)


def _signal_group(program: int, number: int) -> None:
    try:
        os.killpg(program, number)
    except ProcessLookupError:  # it has no process group yet
        os.kill(program, number)
