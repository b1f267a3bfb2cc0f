"""Drops a process's rights: capabilities, new privileges, core dumps and high limits.

launch.py uses it between fork and exec, so it has one thread and imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_FILES = 65536
MOST_PROCESSES = 16384
"""Of a runner; the kernel counts threads, and does not count those of the machine's root."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 24, 38, 47
_PR_SET_PTRACER = 0x59616D61
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_SCOPE_ABSTRACT_SOCKETS = 1
_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1

libc = ctypes.CDLL(None, use_errno=True)


def call(function: Callable[..., int], *arguments: object) -> int:
    """Call a function of the C library, and check its result.

    Raises:
        OSError: it failed.
    """
    answer = function(*arguments)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call(libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def allow_tracer(process: int) -> None:
    """Let a process and its descendants trace this one despite Yama. `-1` stands for every process of this user."""
    libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(process & 0xFFFFFFFFFFFFFFFF), 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Set whether this user's processes may read this one's memory. The same holds for variables and descriptors."""
    call(libc.prctl, _PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def bound_resources(processes: int | None = None) -> None:
    """Limit the program's resources and forbid core dumps. Core dumps would write secrets to disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, most in ((resource.RLIMIT_NOFILE, MOST_FILES), (resource.RLIMIT_NPROC, processes or MOST_PROCESSES)):
        soft, hard = resource.getrlimit(number)
        resource.setrlimit(number, (_least(soft, most), _least(hard, most)))


def _least(limit: int, most: int) -> int:
    return most if limit == resource.RLIM_INFINITY else min(limit, most)


def give_up_privileges() -> None:
    """Drop every capability for good. This holds for programs that this process runs, too, setuid ones included.

    Raises:
        OSError: the kernel refuses.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel has no further capability, or this process never had this one
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    call(libc.capset, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))
    call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def leave_abstract_sockets() -> None:
    """Keep this process and its descendants from others' abstract sockets. This works from Linux 6.12 on.

    Call `give_up_privileges` first.
    """
    attributes = struct.pack("=QQQ", 0, 0, _LANDLOCK_SCOPE_ABSTRACT_SOCKETS)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return
    try:
        libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def leave_session_keyring() -> None:
    """Replace the inherited session keyring of the kernel with an empty one."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def close_descriptors(keep: int | None = None) -> None:
    """Close every descriptor, except an optional one. Connect the first three to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    first = 3
    if keep is not None:
        os.closerange(first, keep)
        first = keep + 1
    os.closerange(first, 1 << 20)


def end_as(status: int) -> None:
    """End as another process did: by its exit code or signal.

    Args:
        status: as waitpid gives it.
    """
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # the action of SIGKILL cannot be set
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)
