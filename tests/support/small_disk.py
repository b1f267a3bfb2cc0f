"""Becomes a controller whose runners' directory is a separate disk. It has a few MiB, and ends with it.

Other processes see that disk only through `/proc/PID/root`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

MIB = 48
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    """Raise the error of a call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def alone() -> None:
    """Unshare the mount namespace as root. If that is not allowed, do it in a user namespace."""
    try:
        checked(_libc.unshare(_CLONE_NEWNS))
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


if __name__ == "__main__":
    place = Path(sys.argv[sys.argv.index("--state-dir") + 1]) / "runners"
    place.mkdir(mode=0o700, exist_ok=True)
    alone()
    checked(_libc.mount(b"small", bytes(place), b"tmpfs", 0, f"size={MIB}m,mode=0700".encode()))
    os.execv(sys.executable, [sys.executable, "-m", "fal_server", *sys.argv[1:]])
