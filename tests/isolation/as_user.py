"""Runs a module as an ordinary user: `python -m tests.isolation.as_user MODULE [ARGUMENT ...]`, as root.

The module's files may be in a directory that only root may enter, such as /root. So this replaces those directories, in
a private view of the file system, by the needed files.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.controller import ROOT

USER = 65534
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x00020000, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2


def main() -> None:
    """Become the user, then the module."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: Path | str, target: Path | str, kind: str | None, flags: int, options: str | None = None) -> None:
        encoded = (None if text is None else str(text).encode() for text in (source, target, kind))
        data = None if options is None else options.encode()
        if libc.mount(*encoded, flags, data) != 0:
            raise OSError(ctypes.get_errno(), f"{source} cannot be mounted on {target}")

    os.umask(0o022)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of its own")
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    needed = {Path(sys.prefix), Path(sys.base_prefix), ROOT, *(Path(path) for path in sys.path if path)}
    hidden = {closed for path in needed if path.exists() and (closed := _closed(path)) is not None}
    for closed in hidden:
        kept = [path for path in sorted(needed) if path.exists() and path.is_relative_to(closed)]
        aside = Path(tempfile.mkdtemp(prefix="fal-aside-"))
        mount(closed, aside, None, _MS_BIND | _MS_REC)
        mount("shown", closed, "tmpfs", 0, "mode=755")
        for path in kept:
            shown = aside / path.relative_to(closed)
            if shown.is_dir() and not path.exists():
                path.mkdir(parents=True)
                mount(shown, path, None, _MS_BIND | _MS_REC)
        if libc.umount2(str(aside).encode(), _MNT_DETACH) != 0:
            raise OSError(ctypes.get_errno(), f"{aside} cannot be unmounted")
        aside.rmdir()
    home = tempfile.mkdtemp(prefix="fal-user-")
    os.chown(home, USER, USER)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.environ["HOME"] = home
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        shutil.rmtree(home)


def _closed(path: Path) -> Path | None:
    """Return the topmost parent directory that others may not enter."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)


if __name__ == "__main__":
    main()
